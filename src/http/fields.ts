/**
 * What makes a request malformed or too large, as pure functions. A listener leaves to its engine only what the engine
 * is known to check; everything here holds for every protocol.
 */
import type { FailureStatus, Fields, RequestHead } from "../exchange.ts";
import { isSafe } from "./semantics.ts";

export interface HeadLimits {
  /** Bytes of the field section: names, values and 32 a line (RFC 9114 §4.2.2), and the target. */
  readonly maxHeaderBytes: number;
  /** Bytes of a request's body. */
  readonly maxBodyBytes: number;
}

/** Why a request is not let through to a handler. */
export interface Refusal {
  readonly status: FailureStatus;
  readonly reason: string;
}

const FIELD_LINE_BYTES = 32;
const MAX_SENT_LINE_BYTES = 65_535 - FIELD_LINE_BYTES;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const LOWER_CASE_TOKEN = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
const TARGET = /^\/[!-"$-~]*$/;
/** The characters of a host and port (RFC 3986 §3.2): of a backslash a URL would make the slash that begins its path. */
const AUTHORITY = /^[!$%&'()*+,\-.0-9:;=A-Z[\]_a-z~]*$/;
const SCHEME = /^[a-zA-Z][a-zA-Z0-9+\-.]*$/;
const DIGITS = /^[0-9]{1,16}$/;
const LENGTH = /^[0-9]+$/;
const FORBIDDEN_IN_VALUE = /[\0\r\n]|^[ \t]|[ \t]$/;
const COMMON_METHODS = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]);
/** RFC 9113 §8.2.2, RFC 9114 §4.2. */
const CONNECTION_SPECIFIC = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);

/** Of a response, those of one value, which no list can hold: two lines of them are no message (RFC 9110 §5.3). */
const SINGLETONS = new Set([
  "age",
  "content-length",
  "content-location",
  "content-range",
  "content-type",
  "date",
  "etag",
  "expires",
  "last-modified",
  "location",
  "retry-after",
]);

const FORBIDDEN_TRAILERS = new Set([
  "authorization",
  "cache-control",
  "content-encoding",
  "content-length",
  "content-range",
  "content-type",
  "cookie",
  "expect",
  "host",
  "max-forwards",
  "range",
  "set-cookie",
  "te",
  "trailer",
]);

/** A request's header section, as HTTP/2 and HTTP/3 carry it: taken apart, and held to what only its lines can tell. */
export interface RequestSection {
  /** Empty where it is missing; `malformed` says so. */
  readonly method: string;
  readonly path: string;
  /** By `:authority`, or else `host`; empty where there is neither. */
  readonly authority: string;
  /** The regular fields. */
  readonly fields: Fields;
  /** The rule that is broken, null where none is. What `refusalOf` asks of every request is left to it. */
  readonly malformed: string | null;
}

const TAB = 0x09;
const SPACE = 0x20;
const COLON = 0x3a;
const DELETE = 0x7f;

/**
 * Splits the lines of a header section into pseudo fields and regular ones: RFC 9113 §8.2 and §8.3, RFC 9114 §4.2 to
 * §4.4.
 * @param lines as they came: name, value, name, value…
 */
export function readRequestSection(lines: Fields): RequestSection {
  const fields: string[] = [];
  let method: string | undefined;
  let scheme: string | undefined;
  let authority: string | undefined;
  let path: string | undefined;
  let host: string | undefined;
  let malformed: string | null = null;
  for (let i = 0; i < lines.length; i += 2) {
    const name = lines[i] as string;
    const value = lines[i + 1] as string;
    if (name.charCodeAt(0) !== COLON) {
      malformed ??= malformedFieldLine(name, value);
      if (name === "host") {
        if (host !== undefined) malformed ??= "host is given twice (RFC 9110 §7.2)";
        host = value;
      }
      fields.push(name, value);
      continue;
    }
    if (fields.length > 0)
      malformed ??= `"${name}" comes after regular fields (RFC 9113 §8.3, RFC 9114 §4.3)`;
    switch (name) {
      case ":method":
        if (method !== undefined) malformed ??= repeated(name);
        method = value;
        break;
      case ":scheme":
        if (scheme !== undefined) malformed ??= repeated(name);
        scheme = value;
        break;
      case ":authority":
        if (authority !== undefined) malformed ??= repeated(name);
        authority = value;
        break;
      case ":path":
        if (path !== undefined) malformed ??= repeated(name);
        path = value;
        break;
      default:
        malformed ??= "there is a pseudo field that no request has (RFC 9113 §8.3, RFC 9114 §4.3)";
    }
  }
  malformed ??= malformedPseudoFields(method, scheme, authority, path, host);
  return { method: method ?? "", path: path ?? "", authority: authority ?? host ?? "", fields, malformed };
}

function malformedPseudoFields(
  method: string | undefined,
  scheme: string | undefined,
  authority: string | undefined,
  path: string | undefined,
  host: string | undefined,
): string | null {
  if (method === undefined) return '":method" is missing (RFC 9113 §8.3.1, RFC 9114 §4.3.1)';
  if (authority === "") return '":authority" is empty (RFC 9113 §8.3.1, RFC 9114 §4.3.1)';
  if (authority !== undefined && host !== undefined && authority.toLowerCase() !== host.toLowerCase()) {
    return "host disagrees with :authority (RFC 9113 §8.3.1, RFC 9114 §4.3.1)";
  }
  if (method === "CONNECT") {
    if (scheme === undefined && path === undefined && authority !== undefined) return null;
    return "CONNECT has :authority, and neither :scheme nor :path (RFC 9113 §8.5, RFC 9114 §4.4)";
  }
  if (scheme === undefined || path === undefined) {
    return `":${scheme === undefined ? "scheme" : "path"}" is missing (RFC 9113 §8.3.1, RFC 9114 §4.3.1)`;
  }
  return SCHEME.test(scheme) ? null : '":scheme" is no scheme (RFC 3986 §3.1)';
}

/** The rule that a trailer section of HTTP/2 or HTTP/3 breaks, null where it breaks none (RFC 9113 §8.1, RFC 9114 §4.3). */
export function malformedTrailers(lines: Fields): string | null {
  for (let i = 0; i < lines.length; i += 2) {
    const name = lines[i] as string;
    if (name.charCodeAt(0) === COLON) return `the pseudo field "${name}" is in a trailer section`;
    if (isConnectionSpecific(name)) return `"${name}" is for one connection of HTTP/1.1`;
    const malformed = malformedFieldLine(name, lines[i + 1] as string);
    if (malformed !== null) return malformed;
  }
  return null;
}

/**
 * Null where the request may go to a handler.
 * @param head with a bound of its own, where its listener takes less
 * @param hasBody false where the stream ended with the head
 */
export function refusalOf(
  head: RequestHead & { readonly maxHeaderBytes?: number | undefined },
  hasBody: boolean,
  limits: HeadLimits,
): Refusal | null {
  const { method, path, authority, fields } = head;
  if (!COMMON_METHODS.has(method)) {
    if (!TOKEN.test(method)) return malformed("the method is not a token (RFC 9110 §9.1)");
    if (method === "CONNECT") return { status: 501, reason: "CONNECT is not served" };
  }
  if (!TARGET.test(path) && !(path === "*" && method === "OPTIONS")) {
    return malformed("the request target is in no form that a server takes (RFC 9112 §3.2)");
  }
  const multiplexed = head.protocol !== "HTTP/1.1";
  if (multiplexed && authority === "") {
    return malformed("there is neither :authority nor host (RFC 9113 §8.3.1, RFC 9114 §4.3.1)");
  }
  if (!AUTHORITY.test(authority)) {
    return malformed("the authority is not a host and port (RFC 9110 §4.2.4)");
  }
  let bytes = path.length + authority.length;
  let declared: string | null = null;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    bytes += name.length + value.length + FIELD_LINE_BYTES;
    if (multiplexed) {
      if (isConnectionSpecific(name)) {
        return malformed(`"${name}" is for one connection of HTTP/1.1 (RFC 9113 §8.2.2, RFC 9114 §4.2)`);
      }
      if (name === "te" && value !== "trailers") {
        return malformed('"te" may only say "trailers" (RFC 9113 §8.2.2, RFC 9114 §4.2)');
      }
    }
    if (name === "transfer-encoding" && value.toLowerCase() !== "chunked") {
      return { status: 501, reason: 'no transfer coding is served but "chunked" (RFC 9112 §6.1)' };
    }
    if (name === "expect" && value.toLowerCase() !== "100-continue") {
      return { status: 417, reason: 'only "100-continue" can be expected (RFC 9110 §10.1.1)' };
    }
    // Any value is as good as "1" (RFC 8470 §5.1).
    if (name === "early-data" && !isSafe(method)) {
      return { status: 425, reason: "it came before the TLS handshake was done, and could be a replay" };
    }
    if (name === "content-length") {
      if (declared !== null && declared !== value) return malformed("content-length is given twice");
      declared = value;
    }
  }
  const maxHeaderBytes = Math.min(head.maxHeaderBytes ?? limits.maxHeaderBytes, limits.maxHeaderBytes);
  if (bytes > maxHeaderBytes) {
    return { status: 431, reason: `the head has ${bytes} bytes, over ${maxHeaderBytes}` };
  }
  if (declared !== null) {
    if (!DIGITS.test(declared)) return malformed("content-length is not a number (RFC 9110 §8.6)");
    const length = Number(declared);
    if (!hasBody && length > 0) return malformed("content-length promises a body that is not there");
    if (length > limits.maxBodyBytes) {
      return { status: 413, reason: `the body has ${length} bytes, over ${limits.maxBodyBytes}` };
    }
  }
  return null;
}

/** True for a field that speaks of one connection of HTTP/1.1, which is the server's alone to send. */
export function isConnectionSpecific(name: string): boolean {
  return CONNECTION_SPECIFIC.has(name);
}

/** True for a field of a response that may have one line alone. */
export function isSingleton(name: string): boolean {
  return SINGLETONS.has(name);
}

/** What an engine lets through that checks no characters: RFC 9110 §5.1 and §5.5, RFC 9113 §8.2.1. */
export function malformedFieldLine(name: string, value: string): string | null {
  if (!LOWER_CASE_TOKEN.test(name)) return "a field name is not a token in lower case (RFC 9113 §8.2.1)";
  if (FORBIDDEN_IN_VALUE.test(value)) return forbiddenCharacters(name);
  return null;
}

/**
 * What makes a field line unfit to be sent. HPACK and QPACK encoders of the engines stop at 65,535 bytes a line, and
 * not one of them says so. Of control characters, which a recipient may let pass, a sender makes none but tabs.
 */
export function unsendableFieldLine(name: string, value: string): string | null {
  const bytes = name.length + value.length;
  if (bytes > MAX_SENT_LINE_BYTES) return `"${name}" has ${bytes} bytes, over ${MAX_SENT_LINE_BYTES}`;
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code > 0xff) return `the value of "${name}" is not latin1 (RFC 9110 §5.5)`;
    if ((code < SPACE && code !== TAB) || code === DELETE) return forbiddenCharacters(name);
  }
  if (!LOWER_CASE_TOKEN.test(name))
    return `${JSON.stringify(name)} is no token, as the name of a field is (RFC 9110 §5.1)`;
  return FORBIDDEN_IN_VALUE.test(value) ? forbiddenCharacters(name) : null;
}

/**
 * A trailer section as it came, without the lines that no trailer section may have: framing, routing and the like
 * would be taken for the head's (RFC 9110 §6.5.1).
 */
export function trailersOf(raw: Fields): Fields {
  const trailers: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase();
    const value = raw[i + 1] as string;
    if (!isForbiddenTrailer(name) && malformedFieldLine(name, value) === null) trailers.push(name, value);
  }
  return trailers;
}

/** Fields that frame a message, route it, or must be known before its body: RFC 9110 §6.5.1. */
export function isForbiddenTrailer(name: string): boolean {
  return isConnectionSpecific(name) || FORBIDDEN_TRAILERS.has(name);
}

/** What a handler may give as `content-length`: a number of bytes, however large (RFC 9110 §8.6). */
export function isLength(value: string): boolean {
  return LENGTH.test(value);
}

/** The one number of `content-length`, undefined where there is none; a head that `refusalOf` let through. */
export function contentLength(fields: Fields): number | undefined {
  const value = fieldValue(fields, "content-length");
  return value === undefined ? undefined : Number(value);
}

/** The first value of a field, undefined where it is not there. */
export function fieldValue(fields: Fields, name: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === name) return fields[i + 1];
  }
  return undefined;
}

/** All lines but those of a field. */
export function withoutField(fields: Fields, name: string): string[] {
  return fields.filter((_, i) => fields[i & ~1] !== name);
}

/** All lines of a field as one list (RFC 9110 §5.3), undefined where it is not there. */
export function listValue(fields: Fields, name: string): string | undefined {
  let joined: string | undefined;
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === name) joined = joined === undefined ? fields[i + 1] : `${joined}, ${fields[i + 1]}`;
  }
  return joined;
}

function forbiddenCharacters(name: string): string {
  return `the value of "${name}" has forbidden characters (RFC 9110 §5.5)`;
}

function repeated(name: string): string {
  return `"${name}" is given twice (RFC 9113 §8.3.1, RFC 9114 §4.3.1)`;
}

function malformed(reason: string): Refusal {
  return { status: 400, reason };
}
