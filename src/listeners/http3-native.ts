/**
 * HTTP/3 by the engine inside Bun (`Bun.serve`, lsquic). The only file that knows it. Built for speed: what a request
 * does not need is not made. What this engine cannot do is written in docs/architecture.md.
 */
import { now } from "../clock.ts";
import {
  BodyLostError,
  type Exchange,
  type ExchangeId,
  type Fields,
  type FileBody,
  type RequestBody,
  type ResponseHead,
  type Sink,
} from "../exchange.ts";
import { changed, openMeant, sendOpened, WHOLE_BYTES } from "../files/send.ts";
import { toBytes } from "../http/body.ts";
import { contentLength, fieldValue } from "../http/fields.ts";
import type { SeenConnections } from "./connection-limits.ts";
import { type Certificate, type ListenerHost, type ListenerOptions, plainAddress } from "./listener.ts";

const MAX_IDLE_SECONDS = 255;
/** Most exchanges are over sooner, and are spared an AbortSignal. Milliseconds. */
const WATCH_AFTER = 100;
/** Milliseconds. */
const DRAIN_CHECK_INTERVAL = 20;
/**
 * The engine calls a response done when it has taken the last of it, with megabytes perhaps still to be sent, and tells
 * nothing of what its client has received. So it is given this long after the last response. Milliseconds.
 */
const LINGER = 1000;

/** Milliseconds: how often it is asked whether the engine has sent a file. It does not say. */
const SENT_CHECK_INTERVAL = 20;

type NativeServer = Bun.Server<undefined>;
type Answer = (response: Response) => void;

/** A client's. */
interface Peer {
  readonly address: string;
  readonly port: number;
}

const NO_PEER: Peer = { address: "", port: 0 };

/** A UDP socket, and the connections that came by it. Its certificate is the one that it began with. */
export class NativeEngine {
  readonly port: number;
  readonly inits = new ResponseInits();
  readonly unwatched = new Unwatched();
  readonly sending = new Sending();
  /** Responses that were left without their end. */
  readonly abandoned = new Set<ResponseStream>();
  readonly clock = new TurnClock();
  readonly server: NativeServer;
  /** Resolves what `promise` gave last. */
  answer: Answer = () => {};
  // One for all requests: an executor for each would be one more closure to make, and to collect.
  readonly #executor = (resolve: Answer) => {
    this.answer = resolve;
  };
  /** When the engine was last handed the end of a response, in milliseconds since the Unix epoch. */
  lastEnd = 0;

  constructor(
    options: ListenerOptions,
    { cert, key }: Certificate,
    host: ListenerHost,
    seen: SeenConnections | null,
  ) {
    this.server = Bun.serve({
      hostname: options.host,
      port: options.port,
      reusePort: options.reusePort,
      http1: false,
      http3: true,
      tls: { cert, key },
      development: false,
      idleTimeout: Math.min(MAX_IDLE_SECONDS, Math.ceil(options.keepAliveTimeout / 1000)),
      // The reactor counts the body itself, so that every protocol answers the same.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      fetch: (request) => {
        const exchange = new NativeExchange(host.nextId(), request, this);
        if (seen?.sees(exchange.remoteAddress, exchange.remotePort, exchange.receivedAt) === false) {
          host.turnAway(exchange);
        } else host.accept(exchange);
        return exchange.answered();
      },
      error: () => new Response(null, { status: 500 }),
    });
    this.port = this.server.port as number;
  }

  promise(): Promise<Response> {
    return new Promise(this.#executor);
  }

  /** Takes no more connections, tells those that are open to come to an end (GOAWAY); resolves when none is left. */
  async drain(): Promise<void> {
    const { abandoned, server } = this;
    const stopped = server.stop(false);
    let checks: NodeJS.Timeout | undefined;
    // Responses that will never end must not keep the server from its end, by which their clients learn of it.
    const onlyAbandonedLeft = new Promise<void>((resolve) => {
      checks = setInterval(() => {
        if (abandoned.size > 0 && server.pendingRequests <= abandoned.size) resolve();
      }, DRAIN_CHECK_INTERVAL);
    });
    await Promise.race([stopped, onlyAbandonedLeft]);
    clearInterval(checks);
    const left = this.lastEnd + LINGER - this.clock.now();
    if (left <= 0) return;
    await new Promise((resolve) => {
      setTimeout(resolve, left);
    });
  }

  /** Closes everything at once; after `drain` too. */
  close(): Promise<void> {
    return this.server.stop(true);
  }
}

/** One reading of the clock for all that one turn of the event loop brings. */
class TurnClock {
  #now = 0;
  readonly #expire = () => {
    this.#now = 0;
  };

  /** Milliseconds since the Unix epoch, with a fraction. */
  now(): number {
    if (this.#now === 0) {
      this.#now = now();
      setImmediate(this.#expire);
    }
    return this.#now;
  }
}

/** What the engine takes for a response head, made once for one that repeats. */
class ResponseInits {
  /** By identity: a head that comes by the wire again is the same object. One made in this process is only like the last. */
  readonly #made = new WeakMap<ResponseHead, ResponseInit>();
  #last: ResponseHead = { status: 0, fields: [] };
  #lastInit: ResponseInit = {};

  of(head: ResponseHead): ResponseInit {
    if (head !== this.#last && !isAlike(head, this.#last)) {
      this.#lastInit = this.#find(head);
      this.#last = head;
    }
    return this.#lastInit;
  }

  #find(head: ResponseHead): ResponseInit {
    let init = this.#made.get(head);
    if (init === undefined) {
      const headers = new Headers();
      const { fields } = head;
      for (let i = 0; i < fields.length; i += 2) headers.append(fields[i] as string, fields[i + 1] as string);
      init = { status: head.status, headers };
      this.#made.set(head, init);
    }
    return init;
  }
}

function isAlike(a: ResponseHead, b: ResponseHead): boolean {
  const { length } = a.fields;
  if (a.status !== b.status || length !== b.fields.length) return false;
  for (let i = 0; i < length; i++) if (a.fields[i] !== b.fields[i]) return false;
  return true;
}

/**
 * The exchanges that are not yet told when their client goes away, oldest first: an AbortSignal a request costs the
 * reactor a tenth of its speed, and most exchanges are over within milliseconds. They are linked through themselves,
 * so that one which is over is kept by nothing: young garbage is free, and old garbage is not.
 */
class Unwatched {
  #oldest: NativeExchange | null = null;
  #newest: NativeExchange | null = null;
  #timer: NodeJS.Timeout | null = null;

  add(exchange: NativeExchange): void {
    exchange.older = this.#newest;
    if (this.#newest === null) this.#oldest = exchange;
    else this.#newest.newer = exchange;
    this.#newest = exchange;
    this.#timer ??= setTimeout(() => this.#watch(), WATCH_AFTER);
  }

  remove(exchange: NativeExchange): void {
    const { older, newer } = exchange;
    if (older !== null) older.newer = newer;
    else if (this.#oldest === exchange) this.#oldest = newer;
    else return;
    if (newer !== null) newer.older = older;
    else this.#newest = older;
    exchange.older = null;
    exchange.newer = null;
  }

  #watch(): void {
    this.#timer = null;
    const arrived = now() - WATCH_AFTER;
    while (this.#oldest !== null && this.#oldest.receivedAt <= arrived) {
      const exchange = this.#oldest;
      this.remove(exchange);
      exchange.watch();
    }
    if (this.#oldest !== null) this.#timer = setTimeout(() => this.#watch(), WATCH_AFTER);
  }
}

/**
 * The exchanges whose file the engine is sending. One whose client has left stays until the next check, too: the engine
 * may be reading when it learns of that, and the descriptor must not be another file's by then.
 */
class Sending {
  readonly #told = new Map<NativeExchange, () => void>();
  #timer: NodeJS.Timeout | null = null;

  /** Resolves when the engine has let go of the exchange. */
  sent(exchange: NativeExchange): Promise<void> {
    this.#timer ??= setInterval(() => this.#check(), SENT_CHECK_INTERVAL);
    return new Promise((resolve) => {
      this.#told.set(exchange, resolve);
    });
  }

  #check(): void {
    for (const [exchange, tell] of this.#told) {
      if (!exchange.checkSent()) continue;
      this.#told.delete(exchange);
      tell();
    }
    if (this.#told.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}

// What every request has is set in the constructor, and nothing else: a request costs the reactor a dozen microseconds
// in all, and fields that are only for streams would be some of them.
class NativeExchange implements Exchange, Sink {
  readonly id: ExchangeId;
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly fields: Fields;
  readonly receivedAt: number;
  readonly localPort: number;
  readonly body: RequestBody | null;
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
    // The idle timeout counts while a handler works, too. None at all would keep what a vanished client has left for good.
    this.#engine.server.timeout(this.#request, MAX_IDLE_SECONDS);
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
    this.#give(new Response(content, this.#engine.inits.of(head)));
  }

  data(chunk: Uint8Array): boolean {
    return this.aborted || this.#response === null || this.#response.push(chunk);
  }

  end(): void {
    this.#release();
    this.#engine.lastEnd = this.#engine.clock.now();
    this.#response?.end();
  }

  abort(): void {
    this.#release();
    if (this.#response !== null) this.#response.abandon();
    else this.#give(new Response(null, { status: 500 }));
  }

  /** The client's leaving no longer matters. */
  #release(): void {
    this.#request = null;
    this.#engine.unwatched.remove(this);
  }
}

/** Of a text without a content-type the engine would say that it is plain. */
function contentOf(head: ResponseHead, body: Uint8Array | string | null): Uint8Array | string | null {
  return typeof body === "string" && fieldValue(head.fields, "content-type") === undefined
    ? toBytes(body)
    : body;
}

/** For HEAD. Of nothing the engine would say that its length is 0, where no length is known; of a generator it does not. */
function unsentBody(head: ResponseHead): AsyncIterable<Uint8Array> | null {
  const isKnown = contentLength(head.fields) !== undefined || head.status === 204 || head.status === 304;
  return isKnown ? null : nothing();
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** The body of a response that comes piece by piece, pulled by the engine as its client takes it. */
class ResponseStream {
  readonly readable: ReadableStream<Uint8Array>;
  readonly #mayEndAnywhere: boolean;
  readonly #abandoned: Set<ResponseStream>;
  readonly #drained: () => void;
  #controller: ReadableStreamDefaultController<Uint8Array> | null = null;
  #queue: Uint8Array[] = [];
  /** Set while the engine waits for a chunk. */
  #pulled: (() => void) | null = null;
  #state: "open" | "ended" | "abandoned" | "over" = "open";

  constructor(
    mayEndAnywhere: boolean,
    drained: () => void,
    lost: () => void,
    abandoned: Set<ResponseStream>,
  ) {
    this.#mayEndAnywhere = mayEndAnywhere;
    this.#drained = drained;
    this.#abandoned = abandoned;
    const cancel = () => {
      abandoned.delete(this);
      lost();
    };
    this.readable = new ReadableStream(
      { pull: (controller) => this.#pull(controller), cancel },
      { highWaterMark: 0 },
    );
  }

  /** False where the chunk has to wait for its turn. */
  push(chunk: Uint8Array): boolean {
    if (this.#pulled === null) {
      this.#queue.push(chunk);
      return false;
    }
    this.#controller?.enqueue(chunk);
    this.#release();
    return true;
  }

  end(): void {
    this.#state = "ended";
    if (this.#pulled === null) return;
    this.#close();
    this.#release();
  }

  /**
   * Ends short. The engine cannot reset a stream: all that ends a body, an error too, ends it as if it were whole, and
   * without the content-length that could tell. So the body is left without its end, and its client's own timeout or
   * the connection's end tells the truth; what was handed over before still goes out. An event stream may end anywhere (HTML, "server-sent events"), and its
   * client then connects again.
   */
  abandon(): void {
    if (this.#mayEndAnywhere) {
      this.end();
      return;
    }
    this.#state = "abandoned";
    this.#abandoned.add(this);
  }

  /** Nobody will read what is left. */
  discard(): void {
    this.#state = "over";
    this.#queue = [];
    this.#release();
  }

  #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> | undefined {
    this.#controller = controller;
    if (this.#state === "over") return new Promise(() => {});
    const chunk = this.#queue.shift();
    if (chunk !== undefined) {
      controller.enqueue(chunk);
      if (this.#queue.length === 0) this.#drained();
      return;
    }
    if (this.#state === "ended") {
      this.#close();
      return;
    }
    return new Promise((resolve) => {
      this.#pulled = resolve;
    });
  }

  #close(): void {
    this.#state = "over";
    this.#controller?.close();
  }

  #release(): void {
    this.#pulled?.();
    this.#pulled = null;
  }
}

class NativeBody implements RequestBody {
  readonly length: number | undefined;
  /** The engine drops them. */
  readonly trailers: Fields = [];
  readonly #request: Request;
  #reader: { read(): Promise<{ value?: Uint8Array }>; cancel(): Promise<void> } | null = null;

  readonly #onLost: () => void;

  /** @param onLost told when the client has gone in the middle of its body */
  constructor(request: Request, length: number | undefined, onLost: () => void) {
    this.#request = request;
    this.length = length;
    this.#onLost = onLost;
  }

  async read(): Promise<Uint8Array | null> {
    this.#reader ??= (this.#request.body as NonNullable<Request["body"]>).getReader();
    try {
      return (await this.#reader.read()).value ?? null;
    } catch (error) {
      throw this.#lost(error);
    }
  }

  readAll(): Promise<Uint8Array> {
    return this.#request.bytes().catch((error: unknown) => {
      throw this.#lost(error);
    });
  }

  cancel(): void {
    // A client that has gone makes this fail, and then there is nothing left to cancel.
    this.#reader?.cancel().catch(() => {});
  }

  #lost(cause: unknown): BodyLostError {
    this.#onLost();
    return new BodyLostError("the client went away", { cause });
  }
}
