/** A worker's loop: takes exchanges from every reactor's channel and runs the handler on them. No process handling. */
import type { Socket } from "node:net";
import type { ConnectionEvent, ConnectionEventName, ConnectionInfo } from "../connection.ts";
import type { ExchangeId } from "../exchange.ts";
import { type ExchangeHandler, run } from "../handler/run.ts";
import type { TrustedProxies } from "../http/proxy.ts";
import { Channel, type ChannelOwner } from "../wire/channel.ts";
import { maskOf, readAnswer, readEvent, writeQuestion, writeWatch } from "../wire/connections.ts";
import { type Frame, FrameError, FrameType, WIRE_VERSION } from "../wire/frames.ts";
import { readRequestHead, readTrailers } from "../wire/heads.ts";
import type { Progress } from "../wire/progress.ts";
import { ChannelExchange } from "./channel-exchange.ts";
import { compressing } from "./compressing-exchange.ts";
import type { HandlerSettings } from "./handler-exchange.ts";

/** What the user's code is told of connections. */
export interface ConnectionListener {
  readonly events: ReadonlySet<ConnectionEventName>;
  told(event: ConnectionEvent): void;
}

export interface WorkerEvents {
  /** The worker has taken so many requests as it was told to; it goes on. */
  spent(): void;
  /** Every reactor has said that no more requests will come, and those that had come are over. */
  retired(): void;
  readonly connections: ConnectionListener;
  log(line: string): void;
}

export class Worker {
  readonly #id: number;
  readonly #handler: ExchangeHandler;
  readonly #proxies: TrustedProxies | null;
  readonly #Exchange: typeof ChannelExchange;
  readonly #events: WorkerEvents;
  readonly #maxRequests: number;
  readonly #progress: Progress | null;
  readonly #links = new Set<ReactorLink>();
  #requests = 0;
  #isRetiring = false;
  #isRetired = false;

  /**
   * @param maxRequests after which `spent` is told; 0 for never
   * @param progress where it is noted what runs
   */
  constructor(
    id: number,
    handler: ExchangeHandler,
    settings: HandlerSettings,
    maxRequests: number,
    progress: Progress | null,
    events: WorkerEvents,
  ) {
    this.#id = id;
    this.#handler = handler;
    this.#proxies = settings.proxies;
    this.#Exchange =
      settings.compression === null ? ChannelExchange : compressing(ChannelExchange, settings.compression);
    this.#maxRequests = maxRequests;
    this.#progress = progress;
    this.#events = events;
  }

  /** Resolves when the reactor behind the socket has said hello. */
  attach(socket: Socket): Promise<void> {
    return new Promise((resolve, reject) => {
      let isGreeted = false;
      const link = new ReactorLink(socket, this.#id, this.#proxies, this.#Exchange, {
        connections: this.#events.connections,
        greeted: () => {
          isGreeted = true;
          resolve();
        },
        request: (exchange) => {
          this.#progress?.begin(link.reactorPid, exchange.id);
          run(exchange, this.#handler, this.#events.log);
          this.#progress?.end();
          if (++this.#requests === this.#maxRequests) this.#events.spent();
        },
        rested: () => {
          this.#isRetiring = true;
          this.#checkRetired();
        },
        closed: (error) => {
          this.#links.delete(link);
          // Before the hello whoever attaches it is told, and knows whether it matters.
          if (error !== null && isGreeted)
            this.#events.log(`the channel to a reactor broke: ${error.message}`);
          if (this.#isRetiring) this.#checkRetired();
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

  /** How a connection is, by the reactor that has it; null where none has. */
  connection(id: string): Promise<ConnectionInfo | null> {
    const asked = [...this.#links].map((link) => link.connection(id));
    return new Promise((resolve) => {
      for (const answer of asked) void answer.then((info) => info !== null && resolve(info));
      void Promise.all(asked).then(() => resolve(null));
    });
  }

  /**
   * Closes every channel, when what they hold has been sent; handlers that still run are told that their client is gone.
   * Resolves when that is done.
   */
  async close(): Promise<void> {
    await Promise.all([...this.#links].map((link) => link.end()));
  }

  #checkRetired(): void {
    for (const link of this.#links) if (!link.isRetired || link.inFlight > 0) return;
    if (this.#isRetired) return;
    this.#isRetired = true;
    this.#events.retired();
  }
}

interface LinkEvents {
  readonly connections: ConnectionListener;
  greeted(): void;
  request(exchange: ChannelExchange): void;
  /** No more requests will come, and none is in flight. */
  rested(): void;
  closed(error: Error | null): void;
}

/** The worker's end of the channel to one reactor. */
class ReactorLink implements ChannelOwner {
  readonly #channel: Channel;
  readonly #proxies: TrustedProxies | null;
  readonly #Exchange: typeof ChannelExchange;
  readonly #events: LinkEvents;
  readonly #exchanges = new Map<ExchangeId, ChannelExchange>();
  readonly #calls = new Map<number, (info: ConnectionInfo | null) => void>();
  #lastCall = 0;
  readonly #over = (exchange: ChannelExchange) => {
    this.#exchanges.delete(exchange.id);
    this.#channel.hasten();
    this.#checkRest();
  };
  #greeted = false;
  reactorPid = 0;
  /** No more requests will come over this channel. */
  isRetired = false;

  constructor(
    socket: Socket,
    workerId: number,
    proxies: TrustedProxies | null,
    Exchange: typeof ChannelExchange,
    events: LinkEvents,
  ) {
    this.#proxies = proxies;
    this.#Exchange = Exchange;
    this.#events = events;
    this.#channel = new Channel(socket, this, queueMicrotask);
    this.#channel.writer.hello({ version: WIRE_VERSION, workerId, pid: process.pid });
  }

  get inFlight(): number {
    return this.#exchanges.size;
  }

  connection(id: string): Promise<ConnectionInfo | null> {
    const call = ++this.#lastCall;
    return new Promise((resolve) => {
      this.#calls.set(call, resolve);
      writeQuestion(this.#channel.writer, call, id);
    });
  }

  end(): Promise<void> {
    return this.#channel.end();
  }

  closed(error: Error | null): void {
    for (const answer of this.#calls.values()) answer(null);
    for (const exchange of [...this.#exchanges.values()]) exchange.abandon("the reactor has gone");
    this.#events.closed(error);
  }

  frame(frame: Frame): void {
    const { type, id, payload } = frame;
    if (!this.#greeted) {
      if (type !== FrameType.hello) throw new FrameError("the first frame is not a hello");
      const { version, pid } = payload.hello();
      this.reactorPid = pid;
      if (version !== WIRE_VERSION) throw new FrameError(`the reactor speaks wire version ${version}`);
      this.#greeted = true;
      const { events } = this.#events.connections;
      if (events.size > 0) writeWatch(this.#channel.writer, maskOf(events));
      this.#events.greeted();
      return;
    }
    if (type === FrameType.request) {
      const received = readRequestHead(payload);
      const head = this.#proxies === null ? received : this.#proxies.clientOf(received);
      const hasBody = !frame.end || payload.left > 0;
      const exchange = new this.#Exchange(id, head, hasBody, this.#channel, this.#over);
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
      case FrameType.ping:
        this.#channel.writer.signal(FrameType.pong);
        return;
      case FrameType.goaway:
        this.isRetired = true;
        this.#checkRest();
        return;
      case FrameType.event:
        this.#events.connections.told(readEvent(payload));
        return;
      case FrameType.connection:
        this.#calls.get(id)?.(readAnswer(payload));
        this.#calls.delete(id);
        return;
      default:
        throw new FrameError(`a reactor sends no frame of type ${type}`);
    }
  }

  #checkRest(): void {
    if (this.isRetired && this.#exchanges.size === 0) this.#events.rested();
  }
}
