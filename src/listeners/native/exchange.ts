/** One exchange of the native engine. */
import type {
  Exchange,
  ExchangeId,
  Fields,
  FileBody,
  RequestBody,
  ResponseHead,
  Sink,
} from "../../exchange.ts";
import { changed, openMeant, sendOpened, WHOLE_BYTES } from "../../files/send.ts";
import { toBytes } from "../../http/body.ts";
import { contentLength, fieldValue } from "../../http/fields.ts";
import { plainAddress } from "../listener.ts";
import { NativeBody } from "./body.ts";
import type { Answer, NativeEngine } from "./engine.ts";
import { ResponseStream } from "./response-stream.ts";

/** A client's. */
interface Peer {
  readonly address: string;
  readonly port: number;
}

const NO_PEER: Peer = { address: "", port: 0 };

// What every request has is set in the constructor, and nothing else: a request costs the reactor a dozen microseconds
// in all, and fields that are only for streams would be some of them.
export class NativeExchange implements Exchange, Sink {
  readonly id: ExchangeId;
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly fields: Fields;
  readonly receivedAt: number;
  readonly localPort: number;
  body: RequestBody | null;
  aborted = false;
  headSent = false;
  onAborted: Exchange["onAborted"] = null;
  onDrain: (() => void) | null = null;
  /** Its neighbours, while it is in `Unwatched`. */
  older: NativeExchange | null = null;
  newer: NativeExchange | null = null;
  /** Until the response is handed over. */
  #request: Request | null;
  /** The same, until the engine's callback returns: while it knows the address. */
  #known: Request | null;
  /** Null until it is looked up, which costs a microsecond. */
  #peer: Peer | null = null;
  /** The response, from when it is handed over until the engine's callback returns with it. */
  #given: Response | null = null;
  #isAnswered = false;
  /** Hands the response to the engine when its callback has returned. */
  #answer: Answer | null = null;
  readonly #engine: NativeEngine;
  /** Null until the response streams. */
  #response: ResponseStream | null = null;
  /** What it streams, until the first of its body: the engine sends the head with that. */
  #begun: Response | null = null;

  constructor(id: ExchangeId, request: Request, engine: NativeEngine) {
    this.id = id;
    this.#request = request;
    this.#known = request;
    this.#engine = engine;
    this.receivedAt = engine.clock.now();
    this.method = request.method;
    const url = request.url;
    this.path = url === "*" ? url : url.slice(url.indexOf("/", 8));
    const fields: string[] = [];
    let authority = "";
    const headers = request.headers.toJSON();
    for (const name in headers) {
      const value = String(headers[name]);
      if (name === "host") authority = value;
      fields.push(name, value);
    }
    this.fields = fields;
    this.authority = authority;
    this.localPort = engine.port;
    this.body =
      request.body === null ? null : new NativeBody(request, contentLength(fields), () => this.lost());
  }

  get remoteAddress(): string {
    return this.#lookUp().address;
  }

  get remotePort(): number {
    return this.#lookUp().port;
  }

  get protocol(): "HTTP/3" {
    return "HTTP/3";
  }

  get scheme(): "https" {
    return "https";
  }

  /** The engine tells neither session nor stream. */
  get session(): string {
    return "";
  }

  get sendsInterim(): boolean {
    return false;
  }

  get sendsTrailers(): boolean {
    return false;
  }

  get stream(): number {
    return this.id;
  }

  get malformed(): null {
    return null;
  }

  get sink(): Sink {
    return this;
  }

  /**
   * The engine has a body for each request whose method allows one. Where none is announced it is soon known whether there is one:
   * with what seems to be one, but for its length, Fastify answers DELETE with 415.
   *
   * A client that waits to be told to send its body is told by the engine itself, before the callback: a response that comes in the
   * same turn is lost now and then, and the stream reset.
   * @returns null where the request may be answered at once
   */
  answerable(): Promise<unknown> | null {
    const { body, fields } = this;
    const turn = fieldValue(fields, "expect") === undefined ? null : new Promise(setImmediate);
    if (!(body instanceof NativeBody) || body.length !== undefined) return turn;
    const known = body.isNone().then((isNone) => {
      if (isNone) this.body = null;
    });
    return turn === null ? known : Promise.all([known, turn]);
  }

  /**
   * For the engine's callback to return: the response where there is one already, which spares a promise and a turn of the
   * event loop.
   */
  answered(): Response | Promise<Response> {
    const given = this.#given;
    this.#given = null;
    if (this.#request !== null) {
      this.#engine.unwatched.add(this);
      // When the engine has let go of the request it is no longer known.
      this.#lookUp();
    }
    this.#known = null;
    if (given !== null) return given;
    const promise = this.#engine.promise();
    this.#answer = this.#engine.answer;
    return promise;
  }

  #give(response: Response): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    if (this.#answer === null) this.#given = response;
    else this.#answer(response);
    this.#answer = null;
  }

  #lookUp(): Peer {
    if (this.#peer === null) {
      const found = this.#known && this.#engine.server.requestIP(this.#known);
      this.#peer = found === null ? NO_PEER : { address: plainAddress(found.address), port: found.port };
    }
    return this.#peer;
  }

  /** Has the engine tell when the client goes away, and not end what is merely slow. */
  watch(): void {
    if (this.#request === null) return;
    this.#engine.prolong(this.#request);
    const { signal } = this.#request;
    if (signal.aborted) this.lost();
    else signal.addEventListener("abort", () => this.lost());
  }

  /** The client has gone, or has reset the stream. */
  lost(): void {
    if (this.aborted || this.#request === null) return;
    this.aborted = true;
    this.#release();
    this.#response?.discard();
    this.onAborted?.(this);
    this.onDrain?.();
  }

  respond(head: ResponseHead, body: Uint8Array | string | null): void {
    this.headSent = true;
    this.#release();
    this.#engine.lastEnd = this.#engine.clock.now();
    const content = body === null && this.method === "HEAD" ? unsentBody(head) : contentOf(head, body);
    this.#give(new Response(content, this.#engine.inits.of(head)));
  }

  inform(): boolean {
    return false;
  }

  async file(head: ResponseHead, body: FileBody): Promise<void> {
    const { handle, size } = await openMeant(body);
    try {
      if (this.aborted) return;
      if (!this.#engineSends(head.status, body, size)) {
        await sendOpened(this, head, body, handle);
        return;
      }
      this.headSent = true;
      this.#give(new Response(Bun.file(handle.fd), this.#engine.inits.of(head)));
      await this.#engine.sending.sent(this);
      if (!this.aborted && (await handle.stat()).size < size) throw changed(body);
    } finally {
      await handle.close();
    }
  }

  /**
   * A whole file is the engine's: it keeps the content-length, which it drops from a body that streams. It is given by
   * its descriptor, for by its path it would be named in a content-disposition. Parts are not: of a descriptor it reads
   * them from the wrong place, and with status 200 it calls them 206; and of a whole file with status 200 it makes its
   * own 206 where the request has a Range, whatever If-Range or the handler says.
   */
  #engineSends(status: number, body: FileBody, size: number): boolean {
    const [piece, another] = body.pieces;
    if (piece === undefined || another !== undefined || piece.length !== size || size <= WHOLE_BYTES)
      return false;
    return status !== 200 || fieldValue(this.fields, "range") === undefined;
  }

  /**
   * True when the engine has let go of the request, which it does when it has taken the last of the response, or its
   * client has gone: then it no longer knows the client's address.
   */
  checkSent(): boolean {
    if (this.#request === null) return true;
    if (this.#engine.server.requestIP(this.#request) !== null) return false;
    if (this.#request.signal.aborted) {
      this.lost();
      return true;
    }
    this.#release();
    this.#engine.lastEnd = this.#engine.clock.now();
    return true;
  }

  head(head: ResponseHead): void {
    this.headSent = true;
    this.#response = new ResponseStream(
      fieldValue(head.fields, "content-type")?.startsWith("text/event-stream") ?? false,
      () => this.onDrain?.(),
      () => this.lost(),
      this.#engine.abandoned,
    );
    const content = this.method === "HEAD" ? unsentBody(head) : this.#response.readable;
    this.#begun = new Response(content, this.#engine.inits.of(head));
    if (this.method === "HEAD") this.#begin();
  }

  data(chunk: Uint8Array): boolean {
    if (this.aborted || this.#response === null) return true;
    this.#begin();
    return this.#response.push(chunk);
  }

  end(): void {
    this.#release();
    this.#engine.lastEnd = this.#engine.clock.now();
    this.#begin();
    this.#response?.end();
  }

  abort(): void {
    this.#release();
    const isUnsent = this.#response === null || this.#begun !== null;
    if (isUnsent) this.#give(new Response(null, { status: 500 }));
    else this.#response?.abandon();
  }

  #begin(): void {
    if (this.#begun === null) return;
    this.#give(this.#begun);
    this.#begun = null;
  }

  /** The client's leaving no longer matters. */
  #release(): void {
    this.#request = null;
    this.#engine.unwatched.remove(this);
  }
}

/**
 * Of a text without a content-type, or with an empty one, the engine would say that it is plain, and of bytes that they are a file to
 * be saved, which a browser then does. Of a stream it says nothing, and keeps the content-length of a short one.
 */
function contentOf(
  head: ResponseHead,
  body: Uint8Array | string | null,
): Uint8Array | string | ReadableStream<Uint8Array> | null {
  if (body === null || body.length === 0 || fieldValue(head.fields, "content-type")) return body;
  return new ReadableStream({
    start(controller) {
      controller.enqueue(toBytes(body));
      controller.close();
    },
  });
}

/** For HEAD. Of nothing the engine would say that its length is 0, where no length is known; of a generator it does not. */
function unsentBody(head: ResponseHead): AsyncIterable<Uint8Array> | null {
  const isKnown = contentLength(head.fields) !== undefined || head.status === 204 || head.status === 304;
  return isKnown ? null : nothing();
}

async function* nothing(): AsyncGenerator<Uint8Array> {}
