/**
 * The engine inside Bun (`Bun.serve`, lsquic): a UDP socket, and the connections that came by it. Built for speed: what a
 * request does not need is not made. This folder alone knows it; what it cannot do is written in docs/architecture.md.
 */
import { now } from "../../clock.ts";
import type { SeenConnections } from "../connection-limits.ts";
import type { Certificate, ListenerHost, ListenerOptions } from "../listener.ts";
import { NativeExchange } from "./exchange.ts";
import { ResponseInits } from "./response-inits.ts";
import type { ResponseStream } from "./response-stream.ts";
import { Sending } from "./sending.ts";
import { Unwatched } from "./unwatched.ts";

/** Its longest timeout. */
const MAX_IDLE_SECONDS = 255;
/** Milliseconds. */
const DRAIN_CHECK_INTERVAL = 20;
/**
 * The engine calls a response done when it has taken the last of it, with megabytes perhaps still to be sent, and tells
 * nothing of what its client has received. So it is given this long after the last response. Milliseconds.
 */
const LINGER = 1000;

/** Hands a response over. */
export type Answer = (response: Response) => void;

/** Its certificate is the one that it began with. */
export class NativeEngine {
  readonly port: number;
  readonly inits = new ResponseInits();
  readonly unwatched = new Unwatched();
  readonly sending = new Sending();
  /** Responses that were left without their end. */
  readonly abandoned = new Set<ResponseStream>();
  readonly clock = new TurnClock();
  readonly server: Bun.Server<undefined>;
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
        if (seen?.sees(exchange.remoteAddress, exchange.remotePort) === false) {
          host.turnAway(exchange);
        } else {
          const answerable = exchange.answerable();
          if (answerable === null) host.accept(exchange);
          else answerable.then(() => host.accept(exchange));
        }
        return exchange.answered();
      },
      error: () => new Response(null, { status: 500 }),
    });
    this.port = this.server.port as number;
  }

  promise(): Promise<Response> {
    return new Promise(this.#executor);
  }

  /** Has it give a request as long as it can: its idle timeout counts while a handler works, too. */
  prolong(request: Request): void {
    // None at all would keep what a vanished client has left for good.
    this.server.timeout(request, MAX_IDLE_SECONDS);
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
