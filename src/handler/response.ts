/** A response as a handler makes it: the head, then a body at once or piece by piece. */
import { inspect } from "node:util";
import type { Exchange, ResponseHead } from "../exchange.ts";
import { byteLength, toBytes } from "../http/body.ts";
import {
  isConnectionSpecific,
  isForbiddenTrailer,
  isLength,
  isSingleton,
  unsendableFieldLine,
} from "../http/fields.ts";
import { formatPriority, type Priority } from "../http/priority.ts";
import { forbidsBody, forbidsLength } from "../http/semantics.ts";
import { type CookieOptions, setCookieOf } from "../http/set-cookie.ts";
import { EventStream, type EventStreamOptions } from "./event-stream.ts";

export type Chunk = string | Uint8Array | ArrayBuffer;

/** One value, or one for each line of a field that may come several times. */
export type FieldValue = string | number | readonly (string | number)[];

/** A call that the state of the response does not allow, such as a header after the head was sent. */
export class ResponseStateError extends Error {
  readonly code = "TERCET_RESPONSE_STATE";
  override readonly name = "ResponseStateError";
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** What a URI may hold (RFC 3986 §2) stays; `encodeURI` would encode a percent sign again. */
const NOT_IN_URI = /[^!#$%&'()*+,\-./0-9:;=?@A-Z[\]_a-z~]+/g;

export class HttpResponse {
  readonly #exchange: Exchange;
  #status = 200;
  #fields: string[] = [];
  #state: "open" | "streaming" | "ended" = "open";
  #drained: Promise<void> | null = null;
  #trailers: string[] | null = null;
  /** Bytes of body that `content-length` promised and that were not yet written; null where it did not. */
  #owed: number | null = null;
  #detached = false;
  /** It was open when its handler returned, and was ended for it. */
  #finished = false;
  #verbatim = false;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  /** The head has gone to the client: status and headers are settled. */
  get headSent(): boolean {
    return this.#state !== "open";
  }

  /** `end` was called. */
  get ended(): boolean {
    return this.#state === "ended";
  }

  /** What is written now can still reach the client: it has not left, and the response has not ended. */
  get isWritable(): boolean {
    return this.#state !== "ended" && !this.#exchange.aborted;
  }

  /**
   * Sets the status; 200 by default.
   * @param code from 200 to 599 (RFC 9110 §15)
   * @throws RangeError for another number, ResponseStateError after the head was sent
   */
  status(code: number): this {
    this.#mustBeOpen("status");
    if (!Number.isInteger(code) || code < 200 || code > 599) {
      throw new RangeError(`status: ${inspect(code)} is not a final status from 200 to 599`);
    }
    this.#status = code;
    return this;
  }

  /**
   * Sets a field, in place of what it was before. Names are taken in any case and sent in lower case.
   * @param value an array for a field of several lines
   * @throws TypeError for a name or value that RFC 9110 §5 forbids, an object, a content-length that is no number of bytes, a line
   * of over 65,503 bytes, several lines of a field that has one value, such as content-type, or a field of the connection
   * (RFC 9113 §8.2.2), which is the server's own; ResponseStateError after the head was sent
   */
  header(name: string, value: FieldValue): this {
    this.#mustBeOpen("header");
    const lower = name.toLowerCase();
    if (Array.isArray(value)) {
      const texts = value.map((each) => sendable("header", lower, each));
      if (texts.length > 1) mayRepeat("header", lower);
      this.removeHeader(lower);
      for (const text of texts) this.#fields.push(lower, text);
      return this;
    }
    const text = sendable("header", lower, value);
    const at = this.#find(lower);
    if (at === -1) {
      this.#fields.push(lower, text);
      return this;
    }
    this.#fields[at + 1] = text;
    this.#remove(lower, at + 2);
    return this;
  }

  /** Adds a line to a field, beside those it has. Throws as `header` does. */
  appendHeader(name: string, value: FieldValue): this {
    this.#mustBeOpen("appendHeader");
    const lower = name.toLowerCase();
    const texts = [value].flat().map((each) => sendable("appendHeader", lower, each));
    if (texts.length > 1 || this.#find(lower) !== -1) mayRepeat("appendHeader", lower);
    for (const text of texts) this.#fields.push(lower, text);
    return this;
  }

  /** Takes a field back, all its lines. @throws ResponseStateError after the head was sent */
  removeHeader(name: string): this {
    this.#mustBeOpen("removeHeader");
    this.#remove(name.toLowerCase(), 0);
    return this;
  }

  /** The values that a field has so far, one a line; empty where it was not set. */
  getHeader(name: string): string[] {
    const lower = name.toLowerCase();
    return this.#fields.filter((_, i, fields) => i % 2 === 1 && fields[i - 1] === lower);
  }

  /**
   * Sets a cookie (RFC 6265bis). What may not stand in a cookie's value is percent-encoded.
   * @throws TypeError for what browsers would refuse; ResponseStateError after the head was sent
   */
  cookie(name: string, value: string, options: CookieOptions = {}): this {
    this.#mustBeOpen("cookie");
    return this.appendHeader("set-cookie", setCookieOf(name, value, options));
  }

  /**
   * Ends a cookie at the client. `path`, `domain` and `partitioned` must be those it was set with, and `secure` where its name
   * or `partitioned` asks for it.
   */
  clearCookie(name: string, options: CookieOptions = {}): this {
    return this.cookie(name, "", { ...options, maxAge: 0, expires: new Date(0) });
  }

  /**
   * Sends a piece of the body, and before the first the head. Resolves when there is room for more: a slow client
   * holds its handler back. Resolves too when the client has gone; see `request.signal`.
   * @throws ResponseStateError (as a rejection) after `end`, or beyond the `content-length` that was set
   */
  write(chunk: Chunk): Promise<void> {
    if (this.#state === "ended") return Promise.reject(this.#isOver("write"));
    const bytes = toBytes(chunk);
    try {
      if (this.#state === "open") this.#begin();
      this.#pay("write", bytes.length);
    } catch (error) {
      return Promise.reject(error);
    }
    if (this.#exchange.aborted || this.#bodyForbidden || this.#exchange.sink.data(bytes)) {
      return Promise.resolve();
    }
    this.#drained ??= this.#drain();
    return this.#drained;
  }

  /**
   * Ends the response, with a last piece of the body where one is given. Without a `write` before it the whole
   * response leaves at once, with its `content-length`.
   * @throws ResponseStateError when the response had ended, or the body is not what `content-length` promised: then
   * nothing is sent, or the response is cut off where its head was
   */
  end(chunk?: Chunk): void {
    if (this.#state === "ended") throw this.#isOver("end");
    if (this.#state === "open" && this.#trailers === null) {
      this.#respond(chunk === undefined || typeof chunk === "string" ? (chunk ?? null) : toBytes(chunk));
      return;
    }
    const bytes = chunk === undefined ? null : toBytes(chunk);
    if (this.#state === "open") this.#begin();
    this.#pay("end", bytes?.length ?? 0);
    const { sink } = this.#exchange;
    this.#state = "ended";
    const short = this.#owed !== null && this.#owed > 0 && !this.#bodyForbidden;
    if (short && !this.#exchange.aborted) {
      sink.abort("the body is shorter than its content-length");
      throw new ResponseStateError(`end: the body is ${this.#owed} bytes shorter than its content-length`);
    }
    if (bytes !== null && !this.#bodyForbidden) sink.data(bytes);
    sink.end(this.#bodyForbidden ? null : this.#trailers);
  }

  /**
   * Ends the response with JSON.
   * @throws TypeError for what JSON has not: undefined, a function, a cycle
   */
  json(value: unknown): void {
    this.#mustBeOpen("json");
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError(`json: there is no JSON for ${typeof value}`);
    if (this.#find("content-type") === -1) this.header("content-type", "application/json");
    this.end(text);
  }

  /**
   * Ends the response by sending the client elsewhere (RFC 9110 §15.4).
   * @param location a URI, absolute or relative to the request's; what none may hold is percent-encoded
   * @param status 301, 302, 303, 307 or 308
   * @throws RangeError for another status
   */
  redirect(location: string, status = 302): void {
    this.#mustBeOpen("redirect");
    if (!REDIRECTS.has(status)) {
      throw new RangeError(`redirect: ${inspect(status)} is none of ${[...REDIRECTS].join(", ")}`);
    }
    if (typeof location !== "string")
      throw new TypeError(`redirect: the location is ${inspect(location)}, not a string`);
    const uri = location.toWellFormed().replace(NOT_IN_URI, encodeURIComponent);
    this.header("location", uri).status(status).end();
  }

  /**
   * Says how urgent the response is beside others of its connection (RFC 9218), in its `priority` field: for a proxy
   * before this server, and for the HTTP/3 engine quic, which goes by it.
   * @param priority `urgency` from 0, the most urgent, to 7; `incremental` where the body is of use piece by piece. What
   * is left out is as the client said
   * @throws RangeError for another urgency, TypeError for another option, ResponseStateError after the head was sent
   */
  priority(priority: Priority): this {
    this.#mustBeOpen("priority");
    const value = formatPriority(priority);
    return value === "" ? this.removeHeader("priority") : this.header("priority", value);
  }

  /**
   * Sets a trailer field, sent behind the body (RFC 9110 §6.5).
   * @throws ResponseStateError where this client's engine sends no trailers, before anything is sent (the native HTTP/3
   * engine, HTTP/1.0, HTTP/1.1 with a content-length), and after `end`; TypeError for a field that no trailer section may have
   */
  trailer(name: string, value: string | number): this {
    if (this.#state === "ended") throw this.#isOver("trailer");
    const { protocol, sendsTrailers } = this.#exchange;
    if (!sendsTrailers) {
      throw new ResponseStateError(`trailer: the engine of this ${protocol} connection sends no trailers`);
    }
    if (protocol === "HTTP/1.1" && this.#find("content-length") !== -1) {
      throw new ResponseStateError("trailer: HTTP/1.1 has none behind a content-length (RFC 9112 §7.1.2)");
    }
    const lower = name.toLowerCase();
    if (isForbiddenTrailer(lower))
      throw new TypeError(`trailer: "${lower}" is for the head (RFC 9110 §6.5.1)`);
    const text = sendable("trailer", lower, value);
    this.#trailers ??= [];
    this.#trailers.push(lower, text);
    if (this.#state === "open") this.appendHeader("trailer", lower);
    return this;
  }

  /**
   * Has the client prepare for the response that will come: sends 103 (RFC 8297), at once. The HTTP/3 engine `quic` leaves it out
   * where its connection has another request open.
   * @param fields such as `{ link: "</a.css>; rel=preload; as=style" }`
   * @returns false where the worker knows that nothing was sent: to HTTP/1.0, by the native HTTP/3 engine, and in the mode `base`
   * where the engine `quic` has left it out
   * @throws TypeError without `link`, or for a field that cannot be sent; ResponseStateError after the head was sent
   */
  earlyHints(fields: Readonly<Record<string, FieldValue>>): boolean {
    this.#mustBeOpen("earlyHints");
    const lines: string[] = [];
    for (const [name, value] of Object.entries(fields)) {
      const lower = name.toLowerCase();
      if (lower === "content-length")
        throw new TypeError(`earlyHints: "${lower}" is for the response that will come (RFC 9110 §8.6)`);
      for (const each of [value].flat()) lines.push(lower, sendable("earlyHints", lower, each));
    }
    if (!lines.some((text, i) => i % 2 === 0 && text === "link")) {
      throw new TypeError('earlyHints: there is no "link" among the fields (RFC 8297 §2)');
    }
    const { sink, sendsInterim, aborted } = this.#exchange;
    return sendsInterim && !aborted && sink.inform({ status: 103, fields: lines });
  }

  /**
   * Begins a stream of server-sent events. It stays open after the handler has returned, until it is closed or its
   * client leaves.
   * @throws TypeError or RangeError for options that there are none of, ResponseStateError after the head was sent
   */
  sse(options: EventStreamOptions = {}): EventStream {
    this.#mustBeOpen("sse");
    const stream = new EventStream(this.#exchange, this, options);
    this.header("content-type", "text/event-stream");
    if (this.#find("cache-control") === -1) this.header("cache-control", "no-cache");
    this.detach();
    this.#begin();
    if (this.#bodyForbidden) stream.close();
    // The native HTTP/3 engine sends a head only with the first of its body.
    else void stream.comment("");
    return stream;
  }

  /**
   * Ends the response with a file, which the reactor reads and sends. Of GET and HEAD with status 200 it answers the
   * request's conditions and ranges (RFC 9110 §13, §14) with 206, 304, 412 or 416, by an ETag and a Last-Modified that
   * it adds; with `offset` or `length`, or another status, it sends just what is asked for. `content-type` follows the
   * file's extension, unless it was set.
   * Resolves when the reactor was told. A client that is slow, or leaves, is no longer the handler's concern then.
   * @param path relative to the working directory
   * @param offset bytes from the file's start, 0 by default
   * @param length bytes; all that follow, by default
   * @throws FileError (as a rejection), by the system's `code`: ENOENT, EACCES, EISDIR…; RangeError for a part that the
   * file has not; ResponseStateError after the head was sent. Nothing was sent then: the handler may answer otherwise
   */
  async sendfile(path: string, offset?: number, length?: number): Promise<void> {
    this.#mustBeOpen("sendfile");
    if (this.#trailers !== null) throw new ResponseStateError("sendfile: no trailers go with a file");
    const asked = { path, offset, length, status: this.#status, fields: this.#fields };
    const { sink } = this.#exchange;
    this.#state = "ended";
    try {
      const { fileResponseOf } = await import("../files/sendfile.ts");
      const { head, body } = await fileResponseOf(this.#exchange, asked);
      // The reactor sends a file as it is, and HEAD says what GET would say.
      if (body === null || body instanceof Uint8Array) sink.respond({ ...head, verbatim: true }, body);
      else await sink.file(head, body);
    } catch (error) {
      this.#state = "open";
      throw error;
    }
  }

  /**
   * Whether the response may be compressed, for a client that takes it (option `compression`): by default it may.
   * @throws ResponseStateError after the head was sent
   */
  compress(may: boolean): this {
    this.#mustBeOpen("compress");
    this.#verbatim = !may;
    return this;
  }

  /** Leaves the response open when an `async` handler returns: something else will end it. */
  detach(): this {
    this.#detached = true;
    return this;
  }

  /** Nothing of it was sent, and nobody was said to do so later. @internal */
  get isUnsaid(): boolean {
    return this.#state === "open" && !this.#detached;
  }

  /** The handler's promise has resolved: what it left open ends here, unless it was detached. @internal */
  finish(): void {
    if (this.#state === "ended" || this.#detached) return;
    this.end();
    this.#finished = true;
  }

  get #head(): ResponseHead {
    return { status: this.#status, fields: this.#fields, verbatim: this.#verbatim };
  }

  get #bodyForbidden(): boolean {
    return forbidsBody(this.#exchange.method, this.#status);
  }

  /** Sends the whole response. */
  #respond(body: Uint8Array | string | null): void {
    const { sink } = this.#exchange;
    const forbidden = this.#bodyForbidden;
    const declared = this.#find("content-length");
    if (body !== null || !forbidden) {
      const length = body === null ? 0 : byteLength(body);
      if (declared !== -1) this.#mustBe(length, this.#declaredLength(declared));
      else if (this.#tellsLength) this.#fields.push("content-length", String(length));
    }
    if (forbidsLength(this.#status)) this.#remove("content-length", 0);
    this.#state = "ended";
    sink.respond(this.#head, forbidden ? null : body);
  }

  #mustBe(length: number, declared: number): void {
    if (length === declared) return;
    throw new ResponseStateError(`end: the body has ${length} bytes, and content-length says ${declared}`);
  }

  /** Sends the head of a response whose body comes piece by piece. */
  #begin(): void {
    const declared = this.#find("content-length");
    if (forbidsLength(this.#status)) this.#remove("content-length", 0);
    else if (declared !== -1 && this.#tellsLength) this.#owed = this.#declaredLength(declared);
    this.#state = "streaming";
    this.#exchange.sink.head(this.#head);
  }

  /** The length of 304 is that of the response it stands for, which nobody knows here (RFC 9110 §8.6). */
  get #tellsLength(): boolean {
    return !forbidsLength(this.#status) && this.#status !== 304;
  }

  #declaredLength(at: number): number {
    return Number(this.#fields[at + 1]);
  }

  #pay(call: string, bytes: number): void {
    if (this.#owed === null || this.#bodyForbidden) return;
    if (bytes > this.#owed) {
      throw new ResponseStateError(
        `${call}: the body is ${bytes - this.#owed} bytes longer than its content-length`,
      );
    }
    this.#owed -= bytes;
  }

  #drain(): Promise<void> {
    return new Promise((resolve) => {
      this.#exchange.sink.onDrain = () => {
        this.#drained = null;
        resolve();
      };
    });
  }

  #find(name: string): number {
    for (let i = 0; i < this.#fields.length; i += 2) {
      if (this.#fields[i] === name) return i;
    }
    return -1;
  }

  /** Removes the lines of a field from a place on. */
  #remove(name: string, from: number): void {
    for (let i = this.#fields.length - 2; i >= from; i -= 2) {
      if (this.#fields[i] === name) this.#fields.splice(i, 2);
    }
  }

  #mustBeOpen(call: string): void {
    if (this.#finished) throw this.#isOver(call);
    if (this.#state !== "open") throw new ResponseStateError(`${call}: the head of the response was sent`);
  }

  #isOver(call: string): ResponseStateError {
    const why = this.#finished ? ": its async handler returned, and had not called detach()" : "";
    return new ResponseStateError(`${call}: the response has ended${why}`);
  }
}

/** The value as it is sent. @throws TypeError */
function sendable(call: string, name: string, value: unknown): string {
  // "undefined" or "[object Object]" would be sent, and be a value like any other.
  if (value == null) throw new TypeError(`${call}: the value of "${name}" is ${value}`);
  if (typeof value === "object" || typeof value === "function")
    throw new TypeError(
      `${call}: the value of "${name}" is of type ${typeof value}, which no field can have`,
    );
  const text = String(value).trim();
  if (name === "content-length" && !isLength(text))
    throw new TypeError(`${call}: content-length is "${text}", not a number of bytes`);
  const wrong = unsendableFieldLine(name, text);
  if (wrong !== null) throw new TypeError(`${call}: ${wrong}`);
  if (isConnectionSpecific(name)) throw new TypeError(`${call}: "${name}" is for the server to send`);
  return text;
}

/** @throws TypeError for a field that has one line alone */
function mayRepeat(call: string, name: string): void {
  if (isSingleton(name)) throw new TypeError(`${call}: "${name}" has one value (RFC 9110 §5.3)`);
}
