/**
 * The contract of one request and its response in flight, shared by every room between a socket and a handler.
 * A listener creates an exchange; a reactor, a channel and a worker only use it. No behaviour lives here but the
 * names.
 */

/** Unique among the exchanges in flight of one reactor. */
export type ExchangeId = number & { readonly exchangeId: unique symbol };

export type Protocol = "HTTP/1.1" | "HTTP/2" | "HTTP/3";

export const PROTOCOLS = ["HTTP/1.1", "HTTP/2", "HTTP/3"] as const satisfies readonly Protocol[];

/**
 * Field lines in order, flat: name, value, name, value… Names are in lower case. Each character stands for one
 * octet (U+0000 to U+00FF), as in `node:http`'s `rawHeaders`; RFC 9110 §5.
 */
export type Fields = readonly string[];

/** What a request says before its body (RFC 9110 §6). */
export interface RequestHead {
  readonly protocol: Protocol;
  readonly method: string;
  readonly scheme: "http" | "https";
  /** The `:authority` pseudo field or the `host` field; empty where a client sent neither. */
  readonly authority: string;
  /** The request target as received: origin form, or `*` for OPTIONS. */
  readonly path: string;
  readonly fields: Fields;
  /** Milliseconds since the Unix epoch, with a fraction, when the head had arrived. */
  readonly receivedAt: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localPort: number;
  /** The connection's id among those of its reactor; empty where the engine does not tell connections apart. */
  readonly session: string;
  /** The stream's id on its connection: RFC 9000 §2.1, RFC 9113 §5.1.1; on HTTP/1.1 a count of its requests. */
  readonly stream: number;
  /** Interim (1xx) responses reach this client: its engine can send them, and its version of HTTP has them. */
  readonly sendsInterim: boolean;
  /** A trailer section can follow the response's body. */
  readonly sendsTrailers: boolean;
}

/**
 * `session id:stream id`, by which logs and statistics call an exchange. Where the engine does not tell its sessions
 * apart, the client's address and port stand for the session.
 */
export function nameOf(head: RequestHead): string {
  return `${nameOfSession(head)}:${head.stream}`;
}

/** What was asked, and its name: by which logs call an exchange. */
export function requestOf(head: RequestHead): string {
  return `${head.method} ${head.path} ${nameOf(head)}`;
}

/** The first half of `nameOf`. */
export function nameOfSession(head: RequestHead): string {
  if (head.session !== "") return head.session;
  const address = head.remoteAddress.includes(":") ? `[${head.remoteAddress}]` : head.remoteAddress;
  return `${address}:${head.remotePort}`;
}

/** What a response says before its body. The same object may be used for many responses, and is never changed. */
export interface ResponseHead {
  readonly status: number;
  readonly fields: Fields;
  /** The body goes out as it is given, never compressed. */
  readonly verbatim?: boolean;
}

/** A request's body, pulled by whoever consumes it: what is not read stays with the client. */
export interface RequestBody {
  /** Bytes, as declared by `content-length`; undefined where the client did not say. */
  readonly length: number | undefined;
  /** The next chunk, or null at the end. One call at a time. Rejects with a BodyLostError when the client goes away. */
  read(): Promise<Uint8Array | null>;
  /** The trailer section (RFC 9110 §6.5), there when `read` has come to the end; empty where the client sent none. */
  readonly trailers: Fields;
  /** All of it at once, instead of `read`: for a body whose declared length is small. Rejects as `read` does. */
  readAll(): Promise<Uint8Array>;
  /** The rest is of no interest: it is discarded or refused. */
  cancel(): void;
}

/** Bytes of a file: `length` of them from `offset` on. */
export interface FileRange {
  readonly offset: number;
  readonly length: number;
}

/** A body made of pieces of one file, which is read where its client's socket is: in the reactor. */
export interface FileBody {
  /** Absolute. */
  readonly path: string;
  /** The file that the head was made for (files/open.ts): another that has taken its place is not sent. */
  readonly identity: string;
  /** In the order they are sent; bytes stand for themselves. */
  readonly pieces: readonly (FileRange | Uint8Array)[];
}

/**
 * The only way to answer. The order is: `inform`*, then `respond`, or `file`, or `head` `data`* `end`; or `abort` at any
 * time.
 */
export interface Sink {
  /** `respond` or `head` was called: no other status can be sent. */
  readonly headSent: boolean;
  /** A whole response at once; a text stands for its bytes in UTF-8. */
  respond(head: ResponseHead, body: Uint8Array | string | null): void;
  /** An interim (1xx) response, RFC 9110 §15.2. False where the engine cannot send one. */
  inform(head: ResponseHead): boolean;
  /**
   * A whole response with a body from a file. Resolves when the last of it was handed over, or the client has gone.
   * Rejects with a FileError where the file cannot be sent as promised; `headSent` tells whether anything was.
   */
  file(head: ResponseHead, body: FileBody): Promise<void>;
  head(head: ResponseHead): void;
  /** Takes the chunk always; false asks to wait for `onDrain` before the next. */
  data(chunk: Uint8Array): boolean;
  /** @param trailers a trailer section (RFC 9110 §6.5), where `sendsTrailers` */
  end(trailers: Fields | null): void;
  /** Ends the response short: the stream is reset, or the connection closed on HTTP/1.1. */
  abort(reason: string): void;
  /** Ends a malformed request without an answer, where its listener would rather do that (RFC 9114 §4.1.2). */
  refuse?(): void;
  /** Told when a sink that answered false to `data` takes more, or the exchange is aborted. Whoever writes sets it. */
  onDrain: (() => void) | null;
}

/** The rest of a request's body will never come. */
export class BodyLostError extends Error {
  readonly code = "TERCET_BODY_LOST";
  override readonly name = "BodyLostError";
}

export interface Exchange extends RequestHead {
  readonly id: ExchangeId;
  /** Tells a client that waits for it to send the body (RFC 9110 §10.1.1), where the engine has not: the head is let through. */
  proceed?(): void;
  /** Null where the request has no body. */
  readonly body: RequestBody | null;
  readonly sink: Sink;
  /** What makes the request malformed, where only its listener could see it. */
  readonly malformed: string | null;
  /** Bytes of a head, where its listener has a bound of its own beside that of all. */
  readonly maxHeaderBytes?: number | undefined;
  /** The client has gone, or has reset the stream: nothing more can be answered. */
  readonly aborted: boolean;
  /** Told once, when `aborted` becomes true. Whoever owns the exchange at the time sets it. */
  onAborted: ((exchange: Exchange) => void) | null;
  /** Told once, in a worker, when nothing more can be sent: the response was handed over, or it has ended short. */
  onOver?: (() => void) | null;
}

/** What the client sees when nobody can answer for the handler: no body but the status's own words. */
export type FailureStatus = 400 | 403 | 413 | 417 | 425 | 431 | 500 | 501 | 502 | 503 | 504;
