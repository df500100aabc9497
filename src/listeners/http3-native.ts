/**
 * HTTP/3 by the engine inside Bun (`Bun.serve`, lsquic). The only file that knows it. Built for speed: what a request
 * does not need is not made. What this engine cannot do is written in docs/architecture.md.
 */
import type { Exchange, ExchangeId, Fields, RequestBody, ResponseHead, Sink } from "../exchange.ts";
import { contentLength } from "../http/fields.ts";
import type { Listener, ListenerHost, ListenerOptions } from "./listener.ts";

const MAX_IDLE_SECONDS = 255;
/** Most exchanges are over sooner, and are spared an AbortSignal. Milliseconds. */
const WATCH_AFTER = 10;

type NativeServer = Bun.Server<undefined>;

export function listenHttp3Native(options: ListenerOptions, host: ListenerHost): Listener {
  const { tls } = options;
  if (tls === null) throw new TypeError("HTTP/3 needs TLS (RFC 9114 §3.1)");
  const inits = new WeakMap<ResponseHead, ResponseInit>();
  const watch = new Watch();
  const server: NativeServer = Bun.serve({
    hostname: options.host,
    port: options.port,
    reusePort: options.reusePort,
    http1: false,
    http3: true,
    tls,
    development: false,
    idleTimeout: Math.min(MAX_IDLE_SECONDS, Math.ceil(options.keepAliveTimeout / 1000)),
    // The reactor counts the body itself, so that every protocol answers the same.
    maxRequestBodySize: Number.MAX_SAFE_INTEGER,
    fetch(request, server) {
      return new Promise<Response>((resolve, reject) => {
        const exchange = new NativeExchange(host.nextId(), request, server, inits, resolve, reject);
        watch.add(exchange, request);
        host.accept(exchange);
      });
    },
    error: () => new Response(null, { status: 500 }),
  });
  return {
    port: server.port as number,
    protocols: ["HTTP/3"],
    drain() {},
    async close() {
      await server.stop(true);
    },
  };
}

/**
 * Has exchanges told when their client goes away, once they are a few milliseconds old: an AbortSignal a request costs
 * the reactor a tenth of its speed.
 */
class Watch {
  #fresh: { exchange: NativeExchange; request: Request }[] = [];

  add(exchange: NativeExchange, request: Request): void {
    if (this.#fresh.push({ exchange, request }) === 1) setTimeout(() => this.#watch(), WATCH_AFTER);
  }

  #watch(): void {
    const fresh = this.#fresh;
    this.#fresh = [];
    for (const { exchange, request } of fresh) {
      if (exchange.ended) continue;
      if (request.signal.aborted) exchange.lost();
      else request.signal.addEventListener("abort", () => exchange.lost());
    }
  }
}

class NativeExchange implements Exchange, Sink {
  readonly protocol = "HTTP/3";
  readonly scheme = "https";
  /** The engine tells neither session nor stream. */
  readonly session = "";
  readonly receivedAt = performance.timeOrigin + performance.now();
  readonly id: ExchangeId;
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly fields: Fields;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localPort: number;
  readonly body: RequestBody | null;
  readonly malformed = null;
  aborted = false;
  onAborted: (() => void) | null = null;
  onDrain: (() => void) | null = null;
  headSent = false;

  /** What was made of a response head: one that repeats is the same object. */
  readonly #inits: WeakMap<ResponseHead, ResponseInit>;
  readonly #resolve: (response: Response) => void;
  readonly #reject: (error: Error) => void;
  #controller: ReadableStreamDefaultController<Uint8Array> | null = null;
  #queue: Uint8Array[] = [];
  #pulled: (() => void) | null = null;
  #ended = false;

  constructor(
    id: ExchangeId,
    request: Request,
    server: NativeServer,
    inits: WeakMap<ResponseHead, ResponseInit>,
    resolve: (response: Response) => void,
    reject: (error: Error) => void,
  ) {
    this.id = id;
    this.#inits = inits;
    this.#resolve = resolve;
    this.#reject = reject;
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
    const peer = server.requestIP(request);
    this.remoteAddress = peer?.address ?? "";
    this.remotePort = peer?.port ?? 0;
    this.localPort = server.port as number;
    this.body = request.body === null ? null : new NativeBody(request, contentLength(fields));
    // The engine's idle timeout would end a request whose handler is merely slow.
    server.timeout(request, 0);
  }

  /** Nothing more is owed to the client. */
  get ended(): boolean {
    return this.#ended;
  }

  get stream(): number {
    return this.id;
  }

  get sink(): Sink {
    return this;
  }

  respond(head: ResponseHead, body: Uint8Array | null): void {
    this.headSent = true;
    this.#ended = true;
    this.#resolve(new Response(body, this.#init(head)));
  }

  inform(): boolean {
    return false;
  }

  head(head: ResponseHead): void {
    this.headSent = true;
    const stream = new ReadableStream<Uint8Array>(
      {
        pull: (controller) => this.#pull(controller),
        cancel: () => this.lost(),
      },
      { highWaterMark: 0 },
    );
    this.#resolve(new Response(stream, this.#init(head)));
  }

  data(chunk: Uint8Array): boolean {
    if (this.aborted) return true;
    const pulled = this.#pulled;
    if (pulled === null) {
      this.#queue.push(chunk);
      return false;
    }
    this.#pulled = null;
    this.#controller?.enqueue(chunk);
    pulled();
    return true;
  }

  end(): void {
    this.#ended = true;
    const pulled = this.#pulled;
    if (pulled === null) return;
    this.#pulled = null;
    this.#controller?.close();
    pulled();
  }

  abort(reason: string): void {
    this.#ended = true;
    const error = new Error(reason);
    if (this.#controller === null) this.#reject(error);
    else this.#controller.error(error);
    this.#pulled?.();
    this.#pulled = null;
  }

  #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> | undefined {
    this.#controller = controller;
    const chunk = this.#queue.shift();
    if (chunk !== undefined) {
      controller.enqueue(chunk);
      if (this.#queue.length === 0) this.onDrain?.();
      return;
    }
    if (this.#ended) {
      controller.close();
      return;
    }
    return new Promise((resolve) => {
      this.#pulled = resolve;
    });
  }

  /** The client has gone, or has reset the stream. */
  lost(): void {
    if (this.aborted || this.#ended) return;
    this.aborted = true;
    this.#queue = [];
    this.#pulled?.();
    this.#pulled = null;
    this.onAborted?.();
    this.onDrain?.();
  }

  #init(head: ResponseHead): ResponseInit {
    let init = this.#inits.get(head);
    if (init === undefined) {
      const headers = new Headers();
      const { fields } = head;
      for (let i = 0; i < fields.length; i += 2) headers.append(fields[i] as string, fields[i + 1] as string);
      init = { status: head.status, headers };
      this.#inits.set(head, init);
    }
    return init;
  }
}

class NativeBody implements RequestBody {
  readonly length: number | undefined;
  readonly #request: Request;
  #reader: { read(): Promise<{ value?: Uint8Array }>; cancel(): Promise<void> } | null = null;

  constructor(request: Request, length: number | undefined) {
    this.#request = request;
    this.length = length;
  }

  async read(): Promise<Uint8Array | null> {
    this.#reader ??= (this.#request.body as NonNullable<Request["body"]>).getReader();
    const { value } = await this.#reader.read();
    return value ?? null;
  }

  readAll(): Promise<Uint8Array> {
    return this.#request.bytes();
  }

  cancel(): void {
    // A client that has gone makes this fail, and then there is nothing left to cancel.
    this.#reader?.cancel().catch(() => {});
  }
}
