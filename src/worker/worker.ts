/** A worker's loop: takes exchanges from every reactor's channel and runs the handler on them. No process handling. */
import type { Socket } from "node:net";
import type { ExchangeId } from "../exchange.ts";
import { type ExchangeHandler, run } from "../handler/run.ts";
import type { ContentCoding } from "../http/content-coding.ts";
import type { TrustedProxies } from "../http/proxy.ts";
import { Channel, type ChannelOwner } from "../wire/channel.ts";
import { type Frame, FrameError, FrameType, WIRE_VERSION } from "../wire/frames.ts";
import { readRequestHead, readTrailers } from "../wire/heads.ts";
import { ChannelExchange } from "./channel-exchange.ts";
import { CompressingExchange } from "./compressing-exchange.ts";

/** What lies between a channel and the handler. */
export interface WorkerSettings {
  /** Null where responses leave as they are given. */
  readonly compression: ContentCoding | null;
  /** Null where no proxy is trusted. */
  readonly proxies: TrustedProxies | null;
}

export class Worker {
  readonly #id: number;
  readonly #handler: ExchangeHandler;
  readonly #settings: WorkerSettings;
  readonly #log: (line: string) => void;
  readonly #links = new Set<ReactorLink>();
  #requests = 0;

  constructor(id: number, handler: ExchangeHandler, settings: WorkerSettings, log: (line: string) => void) {
    this.#id = id;
    this.#handler = handler;
    this.#settings = settings;
    this.#log = log;
  }

  /** Resolves when the reactor behind the socket has said hello. */
  attach(socket: Socket): Promise<void> {
    return new Promise((resolve, reject) => {
      const link = new ReactorLink(socket, this.#id, this.#settings, {
        greeted: resolve,
        request: (exchange) => {
          this.#requests++;
          run(exchange, this.#handler, this.#log);
        },
        closed: (error) => {
          this.#links.delete(link);
          if (error !== null) this.#log(`the channel to a reactor broke: ${error.message}`);
          reject(error ?? new Error("the reactor closed its channel before it said hello"));
        },
      });
      this.#links.add(link);
    });
  }

  /** Exchanges that the handler has and has not ended, and those received since the worker started. */
  counts(): { inFlight: number; requests: number } {
    let inFlight = 0;
    for (const link of this.#links) inFlight += link.inFlight;
    return { inFlight, requests: this.#requests };
  }

  /** Closes every channel; handlers that still run are told that their client is gone. */
  close(): void {
    for (const link of [...this.#links]) link.destroy();
  }
}

interface LinkEvents {
  greeted(): void;
  request(exchange: ChannelExchange): void;
  closed(error: Error | null): void;
}

/** The worker's end of the channel to one reactor. */
class ReactorLink implements ChannelOwner {
  readonly #channel: Channel;
  readonly #settings: WorkerSettings;
  readonly #events: LinkEvents;
  readonly #exchanges = new Map<ExchangeId, ChannelExchange>();
  readonly #over = (exchange: ChannelExchange) => {
    this.#exchanges.delete(exchange.id);
  };
  #greeted = false;

  constructor(socket: Socket, workerId: number, settings: WorkerSettings, events: LinkEvents) {
    this.#settings = settings;
    this.#events = events;
    this.#channel = new Channel(socket, this, queueMicrotask);
    this.#channel.writer.hello({ version: WIRE_VERSION, workerId, pid: process.pid });
  }

  get inFlight(): number {
    return this.#exchanges.size;
  }

  destroy(): void {
    this.#channel.destroy();
  }

  closed(error: Error | null): void {
    for (const exchange of [...this.#exchanges.values()]) exchange.abandon("the reactor has gone");
    this.#events.closed(error);
  }

  frame(frame: Frame): void {
    const { type, id, payload } = frame;
    if (!this.#greeted) {
      if (type !== FrameType.hello) throw new FrameError("the first frame is not a hello");
      const { version } = payload.hello();
      if (version !== WIRE_VERSION) throw new FrameError(`the reactor speaks wire version ${version}`);
      this.#greeted = true;
      this.#events.greeted();
      return;
    }
    if (type === FrameType.request) {
      const { compression, proxies } = this.#settings;
      const received = readRequestHead(payload);
      const head = proxies === null ? received : proxies.clientOf(received);
      const hasBody = !frame.end || payload.left > 0;
      const exchange =
        compression === null
          ? new ChannelExchange(id, head, hasBody, this.#channel, this.#over)
          : new CompressingExchange(id, head, hasBody, this.#channel, this.#over, compression);
      this.#exchanges.set(id, exchange);
      if (hasBody && (frame.end || payload.left > 0)) exchange.body?.receive(payload.rest(), frame.end);
      this.#events.request(exchange);
      return;
    }
    // An exchange may have ended here while its reactor still spoke of it.
    const exchange = this.#exchanges.get(id);
    switch (type) {
      case FrameType.data:
        exchange?.body?.receive(payload.rest(), frame.end);
        return;
      case FrameType.trailers:
        exchange?.body?.receiveTrailers(readTrailers(payload));
        return;
      case FrameType.credit:
        exchange?.credit(payload.u32());
        return;
      case FrameType.abort:
        exchange?.abandon(payload.latin1());
        return;
      default:
        throw new FrameError(`a reactor sends no frame of type ${type}`);
    }
  }
}
