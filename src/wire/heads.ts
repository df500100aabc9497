/**
 * Request and response heads on the wire. Common field names are one byte; texts are latin1 with their length before
 * them. A response head that repeats is decoded once.
 */
import { type ExchangeId, type Fields, PROTOCOLS, type RequestHead, type ResponseHead } from "../exchange.ts";
import { END, FrameError, FrameType, type FrameWriter, type Payload } from "./frames.ts";

// The order is the wire format: a code is a place in its list, from 1; 0 says that the name follows as text.
// biome-ignore format: one long list
const FIELD_NAMES = [
  "accept", "accept-charset", "accept-encoding", "accept-language", "accept-ranges",
  "access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods",
  "access-control-allow-origin", "access-control-expose-headers", "access-control-max-age",
  "access-control-request-headers", "access-control-request-method", "age", "allow", "alt-svc", "authorization",
  "cache-control", "connection", "content-disposition", "content-encoding", "content-language", "content-length",
  "content-location", "content-range", "content-security-policy", "content-type", "cookie", "date", "dnt",
  "etag", "expect", "expires", "forwarded", "from", "host", "if-match", "if-modified-since", "if-none-match",
  "if-range", "if-unmodified-since", "keep-alive", "last-modified", "link", "location", "max-forwards", "origin",
  "pragma", "priority", "proxy-authenticate", "proxy-authorization", "purpose", "range", "referer",
  "referrer-policy", "retry-after", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest",
  "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user", "sec-gpc", "server", "server-timing", "set-cookie",
  "strict-transport-security", "te", "timing-allow-origin", "trailer", "transfer-encoding", "upgrade",
  "upgrade-insecure-requests", "user-agent", "vary", "via", "www-authenticate", "x-content-type-options",
  "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-frame-options", "x-powered-by", "x-request-id",
  "x-requested-with", "x-xss-protection",
] as const;
// biome-ignore format: one long list
const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"] as const;

const FIELD_CODES = codesOf(FIELD_NAMES);
const METHOD_CODES = codesOf(METHODS);
/** What the first byte of a request's head says beside the protocol. */
const HTTPS = 0x80;
const SENDS_INTERIM = 0x40;
const SENDS_TRAILERS = 0x20;
const PROTOCOL = 0x1f;

/** Response heads under this many bytes are kept decoded, this many of them. */
const CACHED_HEAD_BYTES = 512;
const CACHED_HEADS = 256;

export function writeRequest(
  writer: FrameWriter,
  id: ExchangeId,
  head: RequestHead,
  body: Uint8Array | null,
  end: boolean,
): void {
  writer.begin(FrameType.request, end ? END : 0, id);
  const mark = writer.mark();
  writer.u8(
    PROTOCOLS.indexOf(head.protocol) |
      (head.scheme === "https" ? HTTPS : 0) |
      (head.sendsInterim ? SENDS_INTERIM : 0) |
      (head.sendsTrailers ? SENDS_TRAILERS : 0),
  );
  writeCoded(writer, METHOD_CODES, head.method);
  writer.f64(head.receivedAt);
  writer.u16(head.remotePort);
  writer.u16(head.localPort);
  writer.f64(head.stream);
  writer.text(head.path);
  writer.text(head.session);
  writer.text(head.remoteAddress);
  writer.text(head.authority);
  writeFields(writer, head.fields);
  writer.patch(mark);
  if (body !== null) writer.raw(body);
  writer.finish();
}

/** The texts of a head that few handlers ask for. */
interface Origin {
  readonly session: string;
  readonly remoteAddress: string;
  readonly authority: string;
}

/** The head of a request as it came over the wire: what most handlers ask for is decoded at once, the rest when it is asked for. */
export class ReceivedHead implements RequestHead {
  readonly protocol: RequestHead["protocol"];
  readonly scheme: RequestHead["scheme"];
  readonly method: string;
  readonly receivedAt: number;
  readonly remotePort: number;
  readonly localPort: number;
  readonly stream: number;
  readonly path: string;
  readonly sendsInterim: boolean;
  readonly sendsTrailers: boolean;
  /** Of what is not decoded yet. */
  readonly #payload: Payload;
  #origin: Origin | null = null;
  #fields: Fields | null = null;

  constructor(payload: Payload) {
    const start = payload.u8();
    const protocol = PROTOCOLS[start & PROTOCOL];
    if (protocol === undefined) throw new FrameError(`there is no protocol ${start & PROTOCOL}`);
    this.protocol = protocol;
    this.scheme = (start & HTTPS) !== 0 ? "https" : "http";
    this.sendsInterim = (start & SENDS_INTERIM) !== 0;
    this.sendsTrailers = (start & SENDS_TRAILERS) !== 0;
    this.method = readCoded(payload, METHODS);
    this.receivedAt = payload.f64();
    this.remotePort = payload.u16();
    this.localPort = payload.u16();
    this.stream = payload.f64();
    this.path = payload.text();
    this.#payload = payload;
  }

  get session(): string {
    return this.#decodeOrigin().session;
  }

  get remoteAddress(): string {
    return this.#decodeOrigin().remoteAddress;
  }

  get authority(): string {
    return this.#decodeOrigin().authority;
  }

  get fields(): Fields {
    if (this.#fields === null) {
      this.#decodeOrigin();
      this.#fields = readFields(this.#payload);
    }
    return this.#fields;
  }

  #decodeOrigin(): Origin {
    const payload = this.#payload;
    this.#origin ??= {
      session: payload.text(),
      remoteAddress: payload.text(),
      authority: payload.text(),
    };
    return this.#origin;
  }
}

export function readRequestHead(payload: Payload): ReceivedHead {
  return new ReceivedHead(payload.part(payload.u32()));
}

export function writeResponse(
  writer: FrameWriter,
  id: ExchangeId,
  type: typeof FrameType.response | typeof FrameType.inform,
  head: ResponseHead,
  body: Uint8Array | string | null,
  end: boolean,
): void {
  writer.begin(type, end ? END : 0, id);
  writeResponseHead(writer, head);
  if (typeof body === "string") writer.utf8(body);
  else if (body !== null) writer.raw(body);
  writer.finish();
}

/** With its length before it. */
export function writeResponseHead(writer: FrameWriter, head: ResponseHead): void {
  const mark = writer.mark();
  writer.u16(head.status);
  writeFields(writer, head.fields);
  writer.patch(mark);
}

/**
 * Decodes response heads, and keeps the short ones: a handler answers most requests with the same few. The same bytes
 * give the same object, by which a listener may know what it made of it.
 */
export class ResponseHeads {
  #cache = new Map<string, ResponseHead>();

  /** Heads that are kept. */
  get size(): number {
    return this.#cache.size;
  }

  read(payload: Payload): ResponseHead {
    const length = payload.u32();
    if (length > CACHED_HEAD_BYTES) return readResponseHead(payload.part(length));
    const key = payload.peek(length);
    const head = payload.part(length);
    let found = this.#cache.get(key);
    if (found === undefined) {
      found = readResponseHead(head);
      if (this.#cache.size === CACHED_HEADS) this.#cache.clear();
      this.#cache.set(key, found);
    }
    return found;
  }
}

function readResponseHead(payload: Payload): ResponseHead {
  const status = payload.u16();
  if (status < 100 || status > 599) throw new FrameError(`there is no status ${status}`);
  return { status, fields: readFields(payload) };
}

export function writeTrailers(writer: FrameWriter, id: ExchangeId, trailers: Fields): void {
  writer.begin(FrameType.trailers, END, id);
  writeFields(writer, trailers);
  writer.finish();
}

export function readTrailers(payload: Payload): Fields {
  return readFields(payload);
}

function writeFields(writer: FrameWriter, fields: Fields): void {
  writer.u32(fields.length >> 1);
  for (let i = 0; i < fields.length; i += 2) {
    writeCoded(writer, FIELD_CODES, fields[i] as string);
    writer.text(fields[i + 1] as string);
  }
}

function readFields(payload: Payload): Fields {
  const count = payload.u32();
  const fields: string[] = [];
  for (let i = 0; i < count; i++) fields.push(readCoded(payload, FIELD_NAMES), payload.text());
  if (payload.left > 0) throw new FrameError(`${payload.left} bytes follow the last field of a head`);
  return fields;
}

function writeCoded(writer: FrameWriter, codes: ReadonlyMap<string, number>, text: string): void {
  const code = codes.get(text);
  if (code !== undefined) {
    writer.u8(code);
    return;
  }
  writer.u8(0);
  writer.text(text);
}

function readCoded(payload: Payload, texts: readonly string[]): string {
  const code = payload.u8();
  if (code === 0) return payload.text();
  const text = texts[code - 1];
  if (text === undefined) throw new FrameError(`there is no code ${code}`);
  return text;
}

function codesOf(texts: readonly string[]): ReadonlyMap<string, number> {
  return new Map(texts.map((text, index) => [text, index + 1]));
}
