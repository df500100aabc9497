/** An exchange's request as `node:http` has it: an `IncomingMessage` that is read from the exchange's body. */
import { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Exchange, Fields, RequestBody } from "../exchange.ts";
import { fieldValue } from "../http/fields.ts";
import { ownedBy } from "./own.ts";
import type { NodeSocket } from "./socket.ts";

/** What `node:http` has and its types do not. */
interface Internals {
  _consuming: boolean;
  _readableState: { readingMore: boolean };
  /** Takes header fields, or trailers where the message is complete. */
  _addHeaderLines(fields: Fields, count: number): void;
}

const VERSION = { "HTTP/1.1": [1, 1], "HTTP/2": [2, 0], "HTTP/3": [3, 0] } as const;

export class NodeRequest extends IncomingMessage {
  static readonly #members = ownedBy(NodeRequest.prototype);
  /** It is not in the types. */
  readonly upgrade = false;
  readonly #body: RequestBody | null;
  readonly #socket: NodeSocket;
  #answered = false;

  constructor(exchange: Exchange, socket: NodeSocket) {
    super(socket as unknown as Socket);
    Object.defineProperties(this, NodeRequest.#members);
    const [major, minor] = VERSION[exchange.protocol];
    this.#body = exchange.body;
    this.#socket = socket;
    this.method = exchange.method;
    this.url = exchange.path;
    this.httpVersionMajor = major;
    this.httpVersionMinor = minor;
    this.httpVersion = `${major}.${minor}`;
    const fields = fieldsOf(exchange);
    internals(this)._addHeaderLines(fields, fields.length);
    this.complete = exchange.body === null;
  }

  override _read(): void {
    const { _readableState: state } = internals(this);
    internals(this)._consuming = true;
    state.readingMore = false;
    if (this.#body === null) {
      this.push(null);
      return;
    }
    this.#body.read().then(
      (chunk) => this.#take(chunk),
      () => this.exchangeOver(),
    );
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#body?.cancel();
    if (!this.#answered && !(this.complete && this.readableEnded)) {
      this.aborted = true;
      this.emit("aborted");
      // node:stream takes it off first where a pipeline or an iteration ends early: the request can still be answered.
      if (this.socket !== null) this.#socket.destroy(error ?? undefined);
    }
    // An error for which nobody listens is none, as in node:http.
    process.nextTick(callback, this.listenerCount("error") > 0 ? error : null);
  }

  override setTimeout(timeout: number, callback?: () => void): this {
    if (callback !== undefined) this.on("timeout", callback);
    this.#socket.setTimeout(timeout, () => this.emit("timeout"));
    return this;
  }

  /** The response is about to end, and what was not read of the request with it. */
  answered(): void {
    this.#answered = true;
  }

  /** No more of the body will come. */
  exchangeOver(): void {
    if (this.destroyed) return;
    // As node:http does it: without `end`, whoever waits for this stream takes an answered GET for one that was cut off.
    if (this.#answered && this.#body === null) this.resume();
    else if (this.#answered) this.destroy();
    else this.destroy(Object.assign(new Error("aborted"), { code: "ECONNRESET" }));
  }

  #take(chunk: Uint8Array | null): void {
    if (this.destroyed) return;
    this.#socket.active();
    if (chunk !== null) {
      this.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
      return;
    }
    this.complete = true;
    const trailers = this.#body?.trailers ?? [];
    if (trailers.length > 0) internals(this)._addHeaderLines(trailers, trailers.length);
    this.push(null);
  }
}

/**
 * The header section as the same request would have it on HTTP/1.1: with `host`, and with `transfer-encoding` before a
 * body of unknown length, by which handlers tell that there is a body.
 */
function fieldsOf(exchange: Exchange): Fields {
  const { fields, authority, body } = exchange;
  const all = [...fields];
  if (authority !== "" && fieldValue(fields, "host") === undefined) all.push("host", authority);
  const hasFraming =
    fieldValue(fields, "content-length") !== undefined ||
    fieldValue(fields, "transfer-encoding") !== undefined;
  if (body !== null && !hasFraming) all.push("transfer-encoding", "chunked");
  return all;
}

function internals(request: NodeRequest): Internals {
  return request as unknown as Internals;
}
