/** Which responses are compressed, and what their heads say then (RFC 9110 §8.4, §12.5.3), as pure functions. */
import type { Fields, RequestHead, ResponseHead } from "../exchange.ts";
import type { Coding, ResolvedCompression } from "../options.ts";
import { acceptedEncodings } from "./accept.ts";
import { fieldValue, listValue } from "./fields.ts";

/** A response of a type that is compressed for whoever takes it. */
export interface Plan {
  /** Says that the response varies by Accept-Encoding, and is otherwise as it was given. */
  readonly head: ResponseHead;
  /** Null where this client takes none. */
  readonly coding: Coding | null;
}

/** Answers that are kept by what was asked: clients and handlers say the same few things over and over. */
const CACHED = 256;
const CACHED_CHARACTERS = 256;
/** Those without a body, and those whose body is part of something else. */
const LEFT_ALONE = new Set([204, 205, 206, 304, 416]);
const NO_TRANSFORM = /(?:^|,)\s*no-transform\s*(?:,|$)/i;
const VARIES = /(?:^|,)\s*(?:accept-encoding|\*)\s*(?:,|$)/i;
const STRONG_TAG = /^"[!#-~\x80-\xff]*"$/;

export class ContentCoding {
  readonly options: ResolvedCompression;
  readonly #types: RegExp;
  readonly #compressible = new Map<string, boolean>();
  readonly #preferred = new Map<string, Coding | null>();

  constructor(options: ResolvedCompression) {
    this.options = options;
    const types = options.types.map((type) =>
      type.replaceAll(/[^a-z0-9*]/g, "\\$&").replaceAll("*", "[^/]*"),
    );
    this.#types = new RegExp(`^(?:${types.join("|")})$`);
  }

  /** Null where the response goes out as it is, to everybody. */
  plan(request: RequestHead, head: ResponseHead): Plan | null {
    if (!this.#isCompressible(head)) return null;
    return { head: variedHead(head), coding: this.#preferredBy(request.fields) };
  }

  #isCompressible({ status, fields, verbatim }: ResponseHead): boolean {
    if (verbatim || LEFT_ALONE.has(status)) return false;
    let type: string | null = null;
    for (let i = 0; i < fields.length; i += 2) {
      switch (fields[i]) {
        case "content-type":
          type = fields[i + 1] as string;
          break;
        case "cache-control":
          // RFC 9111 §5.2.2.6.
          if (NO_TRANSFORM.test(fields[i + 1] as string)) return false;
          break;
        case "content-encoding":
        // Digests are of the bytes as they are sent (RFC 9530 §2, §3).
        case "content-digest":
        case "repr-digest":
          return false;
      }
    }
    return type !== null && this.#isListed(type);
  }

  #isListed(type: string): boolean {
    let listed = this.#compressible.get(type);
    if (listed === undefined) {
      const end = type.indexOf(";");
      listed = this.#types.test((end === -1 ? type : type.slice(0, end)).trim().toLowerCase());
      keep(this.#compressible, type, listed);
    }
    return listed;
  }

  #preferredBy(fields: Fields): Coding | null {
    const asked = listValue(fields, "accept-encoding");
    if (asked === undefined) return null;
    let coding = this.#preferred.get(asked);
    if (coding === undefined) {
      const [first] = acceptedEncodings(asked, this.options.codings);
      // Who refuses everything gets the response as it is, which RFC 9110 §12.1 leaves to the server.
      coding = this.options.codings.find((offered) => offered === first) ?? null;
      keep(this.#preferred, asked, coding);
    }
    return coding;
  }
}

/**
 * The head of the compressed response. Its entity tag is weak: the bytes are others, and what they mean is the same
 * (RFC 9110 §8.8.1). It offers no ranges: those that a handler knows are of the bytes before.
 * @param length bytes of the compressed body; null where it streams
 */
export function codedHead(head: ResponseHead, coding: Coding, length: number | null): ResponseHead {
  const fields: string[] = [];
  for (let i = 0; i < head.fields.length; i += 2) {
    const name = head.fields[i] as string;
    const value = head.fields[i + 1] as string;
    if (name === "content-length" || name === "accept-ranges") continue;
    fields.push(name, name === "etag" ? weakened(value) : value);
  }
  fields.push("content-encoding", coding);
  if (length !== null) fields.push("content-length", String(length));
  return { status: head.status, fields, verbatim: true };
}

/**
 * The head of a 304 where what the client has was compressed here: its entity tag is the weak one of that, and names
 * nothing else (RFC 9110 §15.4.5). The head itself where it was not.
 */
export function notModifiedHead(request: RequestHead, head: ResponseHead): ResponseHead {
  if (head.verbatim) return head;
  const tag = fieldValue(head.fields, "etag");
  if (tag === undefined || !STRONG_TAG.test(tag)) return head;
  if (!(listValue(request.fields, "if-none-match") ?? "").includes(weakened(tag))) return head;
  const { status, fields } = variedHead(head);
  // No name looks like a tag.
  return { status, fields: fields.map((text, i) => (fields[i - 1] === "etag" ? weakened(text) : text)) };
}

function variedHead({ status, fields }: ResponseHead): ResponseHead {
  let vary = -1;
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] !== "vary") continue;
    if (VARIES.test(fields[i + 1] as string)) return { status, fields, verbatim: true };
    vary = i + 1;
  }
  const varied =
    vary === -1
      ? [...fields, "vary", "accept-encoding"]
      : fields.with(vary, fields[vary] === "" ? "accept-encoding" : `${fields[vary]}, accept-encoding`);
  return { status, fields: varied, verbatim: true };
}

function weakened(tag: string): string {
  return STRONG_TAG.test(tag) ? `W/${tag}` : tag;
}

function keep<V>(cache: Map<string, V>, key: string, value: V): void {
  if (key.length > CACHED_CHARACTERS) return;
  if (cache.size === CACHED) cache.clear();
  cache.set(key, value);
}
