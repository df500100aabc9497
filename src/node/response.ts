/** An exchange's response as `node:http` has it: a `ServerResponse` that writes to the exchange's sink. */
import { type OutgoingHttpHeader, type OutgoingHttpHeaders, ServerResponse, STATUS_CODES } from "node:http";
import type { Exchange, Fields, ResponseHead } from "../exchange.ts";
import {
  contentLength,
  isConnectionSpecific,
  isForbiddenTrailer,
  unsendableFieldLine,
} from "../http/fields.ts";
import { forbidsBody, forbidsLength } from "../http/semantics.ts";
import { ownedBy } from "./own.ts";
import type { NodeRequest } from "./request.ts";
import type { NodeSocket } from "./socket.ts";

/** A whole body of up to this many bytes leaves with its head. */
const WHOLE_BYTES = 65_536;

type Callback = (error?: Error | null) => void;
type Headers = OutgoingHttpHeaders | readonly OutgoingHttpHeader[] | readonly (readonly [string, string])[];

/** What `node:http` has, middleware uses, and the types do not have. */
interface Internals {
  /** Set where the header section is settled. */
  _header: string | null;
  _hasBody: boolean;
  _closed: boolean;
  _sent100: boolean;
  destroyed: boolean;
}

export class NodeResponse extends ServerResponse<NodeRequest> {
  readonly #exchange: Exchange;
  readonly #socket: NodeSocket;
  /** Told of what the handler did wrong when it is too late to throw. */
  readonly #onFailure: (error: Error) => void;
  /** Null until `writeHead`. */
  #head: { readonly status: number; readonly fields: string[] } | null = null;
  #headSent = false;
  /** Of the body, by `content-length`; null where it does not say. */
  #declaredBytes: number | null = null;
  #sentBytes = 0;
  /** Bytes that the sink has taken since it last asked to wait. */
  #waitingBytes = 0;
  #needsDrain = false;
  #onDrained: Callback[] = [];
  #trailers: string[] | null = null;
  #isFinished = false;
  #error: Error | null = null;

  static {
    const state = {
      headersSent: (response: NodeResponse) => response.#head !== null,
      writableFinished: (response: NodeResponse) => response.#isFinished,
      writableNeedDrain: (response: NodeResponse) => response.#needsDrain && !response.destroyed,
      writableLength: (response: NodeResponse) => (response.#needsDrain ? response.#waitingBytes : 0),
      errored: (response: NodeResponse) => response.#error,
    };
    // The types declare properties where the platform has accessors, which a class may not override with some.
    for (const [name, read] of Object.entries(state)) {
      const get = function (this: NodeResponse) {
        return read(this);
      };
      Object.defineProperty(NodeResponse.prototype, name, { get, configurable: true });
    }
  }

  static readonly #members = ownedBy(NodeResponse.prototype);

  constructor(
    request: NodeRequest,
    exchange: Exchange,
    socket: NodeSocket,
    onFailure: (error: Error) => void,
  ) {
    super(request);
    Object.defineProperties(this, NodeResponse.#members);
    const own = { value: socket, writable: true, configurable: true };
    Object.defineProperties(this, { socket: own, connection: own });
    this.#exchange = exchange;
    this.#socket = socket;
    this.#onFailure = onFailure;
  }

  override writeHead(code: number, ...rest: unknown[]): this {
    if (this.#head !== null) throw headersSent("write");
    // As node:http reads it: handlers get by with "404".
    const status = typeof code === "string" ? Number(code) : code;
    if (!Number.isInteger(status) || status < 200 || status > 599) {
      throw invalidStatus(status, "a final one, from 200 to 599 (RFC 9110 §15)");
    }
    const [first] = rest;
    this.statusCode = status;
    this.statusMessage =
      typeof first === "string" ? first : this.statusMessage || (STATUS_CODES[status] ?? "");
    // Wrappers of writeHead pass on a status message that is undefined.
    this.#setAll((typeof first === "string" ? rest[1] : (rest[1] ?? first)) as Headers | null | undefined);
    this.#head = this.#settledHead(status);
    internals(this)._header = `HTTP/1.1 ${status} ${this.statusMessage}\r\n\r\n`;
    internals(this)._hasBody = !forbidsBody(this.#exchange.method, status);
    return this;
  }

  _implicitHeader(): void {
    if (this.#head === null) this.writeHead(this.statusCode);
  }

  override flushHeaders(): void {
    this._implicitHeader();
    this.#sendHead();
  }

  override write(chunk: unknown, encoding?: unknown, callback?: unknown): boolean {
    const done = callbackOf(encoding, callback);
    const bytes = bytesOf(chunk, encoding);
    if (this.finished) {
      this.#refuse("ERR_STREAM_WRITE_AFTER_END", "write after end", done);
      return false;
    }
    if (this.destroyed) {
      if (done !== null) process.nextTick(done, destroyed());
      return false;
    }
    this._implicitHeader();
    this.#sendHead();
    const accepted = this.#send(bytes);
    if (done !== null) {
      if (accepted) process.nextTick(done);
      else this.#onDrained.push(done);
    }
    return accepted;
  }

  override end(chunk?: unknown, encoding?: unknown, callback?: unknown): this {
    const done = callbackOf(chunk, encoding, callback);
    const bytes = chunk == null || typeof chunk === "function" ? null : bytesOf(chunk, encoding);
    if (this.finished) {
      if (bytes !== null) this.#refuse("ERR_STREAM_WRITE_AFTER_END", "write after end", done);
      else if (done !== null) process.nextTick(done, this.#isFinished ? alreadyFinished() : null);
      return this;
    }
    if (this.destroyed) {
      this.finished = true;
      if (done !== null) process.nextTick(done, destroyed());
      return this;
    }
    this._implicitHeader();
    if (done !== null) this.once("finish", done);
    this.finished = true;
    this.emit("prefinish");
    if (this.#headSent || this.#trailers !== null) this.#endStreamed(bytes);
    else this.#endWhole(bytes);
    return this;
  }

  override addTrailers(trailers: OutgoingHttpHeaders | readonly (readonly [string, string])[]): void {
    const lines: string[] = [];
    for (const [name, value] of Array.isArray(trailers) ? trailers : Object.entries(trailers)) {
      if (isForbiddenTrailer(name.toLowerCase())) continue;
      for (const one of Array.isArray(value) ? value : [value]) pushLine(lines, name, one, "trailer");
    }
    // Where there is no way to send them they are left out, as node:http does on HTTP/1.0.
    if (this.#exchange.sendsTrailers) this.#trailers = lines;
  }

  /** The server has told a client that asked to go on, and has sent it on its way. */
  override writeContinue(callback?: () => void): void {
    internals(this)._sent100 = true;
    if (callback !== undefined) process.nextTick(callback);
  }

  override writeProcessing(callback?: () => void): void {
    this.writeInformation(102, null, callback);
  }

  override writeEarlyHints(hints: Record<string, string | string[]>, callback?: () => void): void {
    // A string has a method of that name, and each of its characters would be a field.
    if (typeof hints !== "object" || hints === null) {
      const error = new TypeError(
        `the hints are an object of fields, not ${hints === null ? "null" : typeof hints}`,
      );
      throw Object.assign(error, { code: "ERR_INVALID_ARG_TYPE" });
    }
    if (hints.link !== undefined && hints.link.length > 0) this.writeInformation(103, hints, callback);
  }

  /** An interim response, where the engine can send one; otherwise nothing. */
  override writeInformation(
    status: number,
    headers?: OutgoingHttpHeaders | readonly string[] | (() => void) | null,
    callback?: () => void,
  ): void {
    if (this.#head !== null) throw headersSent("write");
    if (!Number.isInteger(status) || status < 100 || status > 199 || status === 101) {
      throw invalidStatus(status, "an interim one, from 100 to 199 without 101");
    }
    const fields: string[] = [];
    if (headers != null && typeof headers !== "function") {
      const pairs = Array.isArray(headers) ? pairsOf(headers) : Object.entries(headers);
      for (const [name, value] of pairs) {
        for (const one of Array.isArray(value) ? value : [value]) pushLine(fields, name, one, "header");
      }
    }
    this.#exchange.sink.inform({ status, fields });
    const done = callbackOf(headers, callback);
    if (done !== null) process.nextTick(done);
  }

  override setTimeout(timeout: number, callback?: () => void): this {
    if (callback !== undefined) this.on("timeout", callback);
    this.#socket.setTimeout(timeout, () => {
      // As in node:http: where nobody takes care of it, it is the end.
      if (!this.emit("timeout")) this.destroy();
    });
    return this;
  }

  override destroy(error?: Error): this {
    if (this.destroyed) return this;
    internals(this).destroyed = true;
    this.#error = error ?? null;
    if (!this.#isFinished) this.#exchange.sink.abort(error?.message ?? "the handler destroyed the response");
    process.nextTick(() => this.exchangeOver());
    return this;
  }

  /** The exchange is over: after `finish`, or because the client has gone or the handler has failed. */
  exchangeOver(): void {
    if (internals(this)._closed) return;
    internals(this)._closed = true;
    internals(this).destroyed = true;
    for (const done of this.#onDrained.splice(0)) done(destroyed());
    this.req.exchangeOver();
    this.#socket.exchangeOver();
    this.emit("close");
  }

  #setAll(headers: Headers | null | undefined): void {
    if (headers == null) return;
    if (!Array.isArray(headers)) {
      for (const [name, value] of Object.entries(headers as OutgoingHttpHeaders)) {
        if (value !== undefined) this.setHeader(name, value);
      }
      return;
    }
    const pairs = Array.isArray(headers[0]) ? (headers as [string, string][]) : pairsOf(headers as string[]);
    for (const [name] of pairs) this.removeHeader(name);
    for (const [name, value] of pairs) this.appendHeader(name, value);
  }

  #settledHead(status: number): { status: number; fields: string[] } {
    const fields: string[] = [];
    for (const [name, value] of Object.entries(this.getHeaders())) {
      if (name === "content-length" && forbidsLength(status)) continue;
      for (const one of Array.isArray(value) ? value : [value]) pushLine(fields, name, one, "header");
    }
    this.#declaredBytes = contentLength(fields) ?? null;
    return { status, fields };
  }

  #sendHead(): void {
    if (this.#headSent) return;
    this.#headSent = true;
    this.#exchange.sink.head(this.#head as ResponseHead);
  }

  /** False asks to wait for `drain`. */
  #send(bytes: Uint8Array): boolean {
    if (!internals(this)._hasBody || bytes.length === 0) return true;
    this.#sentBytes += bytes.length;
    if (this.#declaredBytes !== null && this.#sentBytes > this.#declaredBytes) {
      this.#mismatch();
      return false;
    }
    this.#socket.active();
    const { sink } = this.#exchange;
    if (sink.data(bytes)) return !this.#needsDrain;
    if (!this.#needsDrain) {
      this.#needsDrain = true;
      this.#waitingBytes = 0;
      // Not at once, as for the exchange's end.
      sink.onDrain = () => process.nextTick(() => this.#drained());
    }
    this.#waitingBytes += bytes.length;
    return false;
  }

  #drained(): void {
    this.#needsDrain = false;
    if (this.#exchange.aborted || this.destroyed) return;
    this.#socket.active();
    const { finished } = this;
    // They may end the response, write more, or destroy it.
    for (const done of this.#onDrained.splice(0)) done();
    if (this.destroyed || this.#needsDrain) return;
    if (finished) this.#endSink();
    else if (!this.finished) this.emit("drain");
  }

  #endWhole(bytes: Uint8Array | null): void {
    const { status, fields } = this.#head as { status: number; fields: string[] };
    const { _hasBody: hasBody } = internals(this);
    const length = bytes?.length ?? 0;
    if (this.#declaredBytes === null) {
      // Of an answer to HEAD nobody knows how long that to GET would be, unless the handler has said it.
      const tells = !forbidsLength(status) && status !== 304;
      const isKnown = hasBody || (this.#exchange.method === "HEAD" && length > 0 && tells);
      if (isKnown) fields.push("content-length", String(length));
    } else if (hasBody && this.#declaredBytes !== length) {
      this.#mismatch();
      return;
    }
    if (hasBody && length > WHOLE_BYTES) {
      this.#endStreamed(bytes);
      return;
    }
    this.#headSent = true;
    this.req.answered();
    this.#exchange.sink.respond({ status, fields }, hasBody ? bytes : null);
    process.nextTick(() => this.#finish());
  }

  #endStreamed(bytes: Uint8Array | null): void {
    this.#sendHead();
    if (bytes !== null) this.#send(bytes);
    if (this.destroyed) return;
    const { _hasBody: hasBody } = internals(this);
    if (hasBody && this.#declaredBytes !== null && this.#sentBytes < this.#declaredBytes) {
      this.#mismatch();
      return;
    }
    // `finish` says that all was handed over: a slow client has it wait.
    if (!this.#needsDrain) this.#endSink();
  }

  #endSink(): void {
    this.req.answered();
    this.#exchange.sink.end(this.#trailers as Fields | null);
    process.nextTick(() => this.#finish());
  }

  #finish(): void {
    if (internals(this)._closed || this.destroyed) return;
    this.#isFinished = true;
    this.emit("finish");
    process.nextTick(() => this.exchangeOver());
  }

  #mismatch(): void {
    const error = new Error(
      `the response's body has not the ${this.#declaredBytes} bytes that its content-length declares`,
    );
    this.#onFailure(Object.assign(error, { code: "ERR_HTTP_CONTENT_LENGTH_MISMATCH" }));
    // Where nothing was sent there is time for a 500, which is on its way.
    if (this.#headSent) this.destroy(error);
  }

  #refuse(code: string, message: string, done: Callback | null): void {
    const error = Object.assign(new Error(message), { code });
    process.nextTick(() => {
      done?.(error);
      // Of one that is over only the callback hears, as in node:http.
      if (this.destroyed) return;
      // Without a listener node:http lets the process die of it, with everybody's requests.
      if (this.listenerCount("error") > 0) this.emit("error", error);
      else this.#onFailure(error);
    });
  }
}

function internals(response: NodeResponse): Internals {
  return response as unknown as Internals;
}

function pushLine(lines: string[], name: string, value: unknown, what: "header" | "trailer"): void {
  const lower = name.toLowerCase();
  // What handlers written for HTTP/1.1 say of the connection: it is the reactor's.
  if (isConnectionSpecific(lower)) return;
  const text = String(value).trim();
  const wrong = unsendableFieldLine(lower, text);
  if (wrong !== null) throw Object.assign(new TypeError(`${what}: ${wrong}`), { code: "ERR_INVALID_CHAR" });
  lines.push(lower, text);
}

function pairsOf(flat: readonly string[]): [string, string][] {
  if (flat.length % 2 !== 0) {
    throw Object.assign(new TypeError("headers: a flat list has names and values by turns"), {
      code: "ERR_INVALID_ARG_VALUE",
    });
  }
  const pairs: [string, string][] = [];
  for (let i = 0; i < flat.length; i += 2) pairs.push([flat[i] as string, flat[i + 1] as string]);
  return pairs;
}

function callbackOf(...candidates: unknown[]): Callback | null {
  return (candidates.find((one) => typeof one === "function") as Callback | undefined) ?? null;
}

function bytesOf(chunk: unknown, encoding: unknown): Uint8Array {
  if (typeof chunk === "string") {
    return Buffer.from(chunk, typeof encoding === "string" ? (encoding as BufferEncoding) : "utf8");
  }
  if (chunk instanceof Uint8Array) return chunk;
  const shown = chunk === null ? "null" : typeof chunk;
  const error = new TypeError(`a chunk of the body is a string, a Buffer or a Uint8Array, not ${shown}`);
  throw Object.assign(error, { code: chunk === null ? "ERR_STREAM_NULL_VALUES" : "ERR_INVALID_ARG_TYPE" });
}

function invalidStatus(status: number, allowed: string): Error {
  const error = new RangeError(`Invalid status code: ${status}; it must be ${allowed}`);
  return Object.assign(error, { code: "ERR_HTTP_INVALID_STATUS_CODE" });
}

function headersSent(verb: string): Error {
  const error = new Error(`Cannot ${verb} headers after they are sent to the client`);
  return Object.assign(error, { code: "ERR_HTTP_HEADERS_SENT" });
}

function destroyed(): Error {
  const error = new Error("Cannot write to a response that was destroyed, or whose client has gone");
  return Object.assign(error, { code: "ERR_STREAM_DESTROYED" });
}

function alreadyFinished(): Error {
  return Object.assign(new Error("the response has finished"), { code: "ERR_STREAM_ALREADY_FINISHED" });
}
