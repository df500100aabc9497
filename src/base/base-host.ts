/**
 * Takes exchanges from the listeners of this process and runs the handler on them, in place: what reactor, wire and worker do
 * in the mode `process`, without the isolation. No process handling.
 */
import { now } from "../clock.ts";
import {
  type Exchange,
  type ExchangeId,
  type FailureStatus,
  type FileBody,
  type ResponseHead,
  requestOf,
} from "../exchange.ts";
import { FileAnswers, fileFailure } from "../files/file-answers.ts";
import { type ExchangeHandler, run } from "../handler/run.ts";
import { refusalOf } from "../http/fields.ts";
import type { TrustedProxies } from "../http/proxy.ts";
import { answerFailure, refuse } from "../http/semantics.ts";
import type { ListenerHost } from "../listeners/listener.ts";
import { type Outcome, Registry } from "../reactor/registry.ts";
import { type QueueLimits, WaitingQueue } from "../reactor/waiting-queue.ts";
import { compressing } from "../worker/compressing-exchange.ts";
import type { HandlerSettings } from "../worker/handler-exchange.ts";
import type { ConnectionListener } from "../worker/worker.ts";
import { LocalExchange, type LocalOwner } from "./local-exchange.ts";

export interface BaseLimits extends QueueLimits {
  readonly maxHeaderBytes: number;
  readonly maxBodyBytes: number;
  /** Milliseconds until a response must have begun; 0 for no limit. */
  readonly requestTimeout: number;
  /** Exchanges that are run at one time. */
  readonly maxExchanges: number;
  /** The same; 0 for no limit. */
  readonly concurrency: number;
}

export interface BaseEvents {
  /** The handler was given so many requests as it was told to; it goes on. */
  spent(): void;
  readonly connections: ConnectionListener;
  log(line: string): void;
}

/**
 * Milliseconds after which no more handlers are run in one turn of the event loop. The native engine of HTTP/3 brings at once all
 * that it has read, and sends what is answered when that is over; which costs it up to half a millisecond.
 */
const TURN = 10;

export class BaseHost implements ListenerHost, LocalOwner {
  readonly registry = new Registry<LocalExchange>();
  files = new FileAnswers(null);
  /** Requests that the handler was given. */
  requests = 0;
  readonly tellConnection: ListenerHost["tellConnection"];
  readonly #handler: ExchangeHandler;
  readonly #Exchange: typeof LocalExchange;
  readonly #proxies: TrustedProxies | null;
  readonly #limits: BaseLimits;
  readonly #mostRunning: number;
  readonly #queue: WaitingQueue<LocalExchange>;
  readonly #maxRequests: number;
  readonly #events: BaseEvents;
  /** Exchanges that the handler has. */
  #running = 0;
  #isRunningQueued = false;
  /** When its requests came, and when the first of them was run. */
  readonly #turn = { at: 0, began: 0 };
  /** What has come in a turn that was used up, and behind it, in order. */
  readonly #postponed: LocalExchange[] = [];
  #draining = false;
  #onIdle: (() => void) | null = null;
  /** One for all exchanges, which saves each a closure. */
  readonly #clientLeft = (exchange: Exchange) => {
    const local = this.registry.get(exchange.id);
    if (local === undefined) return;
    this.#end(local, "aborted");
    local.abandon("the client left");
  };

  /** @param maxRequests after which `spent` is told; 0 for never */
  constructor(
    handler: ExchangeHandler,
    settings: HandlerSettings,
    limits: BaseLimits,
    maxRequests: number,
    events: BaseEvents,
  ) {
    this.#handler = handler;
    this.#Exchange =
      settings.compression === null ? LocalExchange : compressing(LocalExchange, settings.compression);
    this.#proxies = settings.proxies;
    this.#limits = limits;
    this.#mostRunning = Math.min(limits.maxExchanges, limits.concurrency || Number.POSITIVE_INFINITY);
    this.#queue = new WaitingQueue(limits);
    this.#maxRequests = maxRequests;
    this.#events = events;
    const { connections } = events;
    this.tellConnection =
      connections.events.size === 0
        ? null
        : (event) => {
            if (connections.events.has(event.name)) connections.told(event);
          };
  }

  /** Exchanges that wait. */
  get queued(): number {
    return this.#queue.length;
  }

  get maxBodyBytes(): number {
    return this.#limits.maxBodyBytes;
  }

  log(line: string): void {
    this.#events.log(line);
  }

  nextId(): ExchangeId {
    return this.registry.nextId();
  }

  accept(exchange: Exchange): void {
    const refusal =
      exchange.malformed === null
        ? refusalOf(exchange, exchange.body !== null, this.#limits)
        : { status: 400 as const, reason: exchange.malformed };
    if (refusal !== null) this.#refuse(exchange, refusal.status, refusal.reason);
    else if (this.#draining) this.#refuse(exchange, 503, "the server is shutting down");
    else {
      exchange.proceed?.();
      if (this.files.mayHave(exchange.path)) void this.#serveFile(this.#localOf(exchange));
      else this.#admit(this.#localOf(exchange));
    }
  }

  turnAway(exchange: Exchange): void {
    this.#refuse(exchange, 503, "there are too many connections");
  }

  /** Takes no new exchange; resolves when none is in flight. */
  drain(): Promise<void> {
    this.#draining = true;
    if (this.registry.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }

  /** Ends what is still in flight. */
  close(): void {
    for (const local of this.registry.flights()) this.fail(local, 503, "the server has shut down");
  }

  /**
   * Answers 504 for what is overdue.
   * @param now milliseconds since the Unix epoch
   */
  expire(now: number): void {
    const { requestTimeout } = this.#limits;
    if (requestTimeout === 0) return;
    for (const local of this.registry.flights()) {
      if (now - local.receivedAt < requestTimeout || local.state === "responding") continue;
      this.log(`504 ${requestOf(local)}: no response within ${requestTimeout} ms`);
      this.fail(local, 504, "requestTimeout");
    }
  }

  sendFile(local: LocalExchange, head: ResponseHead, body: FileBody): void {
    this.#register(local);
    this.#letGo(local);
    this.files.send(local, head, body).then(
      () => this.completed(local),
      (error: unknown) => this.#fileFailed(local, error),
    );
  }

  completed(local: LocalExchange): void {
    this.#end(local, "completed");
  }

  broken(local: LocalExchange, reason: string): void {
    this.log(`${requestOf(local)}: the response ended short: ${reason}`);
    this.#end(local, "failed");
  }

  #end(local: LocalExchange, outcome: Outcome): void {
    if (local.over) return;
    local.over = true;
    if (local.isRegistered) this.registry.remove(local, outcome);
    else this.registry.count(local.protocol, outcome);
    local.exchange.onAborted = null;
    if (this.#queue.length > 0) this.#queue.withdraw(local);
    this.#letGo(local);
    if (this.registry.size === 0) this.#onIdle?.();
  }

  fail(local: LocalExchange, status: FailureStatus, reason: string, outcome: Outcome = "failed"): void {
    if (local.over) return;
    const { exchange } = local;
    const { headSent } = exchange.sink;
    this.#end(local, outcome);
    local.abandon(reason);
    if (headSent) exchange.sink.abort(reason);
    else answerFailure(exchange, status, status < 500 ? reason : null);
  }

  #localOf(exchange: Exchange): LocalExchange {
    return new this.#Exchange(exchange, this.#proxies?.clientOf(exchange) ?? exchange, this);
  }

  #admit(local: LocalExchange): void {
    if (this.#postponed.length === 0 && this.#hasTime(local.receivedAt)) {
      this.#runOrWait(local);
      return;
    }
    this.#register(local);
    if (this.#postponed.push(local) === 1) setImmediate(() => this.#runPostponed());
  }

  /** @param at when the request came: the same for all that one turn brings */
  #hasTime(at: number): boolean {
    const turn = this.#turn;
    const time = now();
    if (turn.at !== at) {
      turn.at = at;
      turn.began = time;
    }
    return time - turn.began < TURN;
  }

  #runPostponed(): void {
    const end = now() + TURN;
    while (this.#postponed.length > 0 && now() < end) {
      const local = this.#postponed[0] as LocalExchange;
      if (!local.over) this.#runOrWait(local);
      this.#postponed.shift();
    }
    if (this.#postponed.length > 0) setImmediate(() => this.#runPostponed());
  }

  #runOrWait(local: LocalExchange): void {
    if (this.#running < this.#mostRunning) {
      this.#run(local);
      return;
    }
    this.#register(local);
    if (!this.#queue.add(local, now())) this.fail(local, 503, "the queue is full", "rejected");
  }

  /** The handler is done with it, if it had it: there may be room for another. */
  #letGo(local: LocalExchange): void {
    if (!local.isRunning) return;
    local.isRunning = false;
    this.#running--;
    if (this.#queue.length > 0) this.#runQueued();
  }

  #runQueued(): void {
    // Of those that are over when their handler returns: the loop that runs them goes on.
    if (this.#isRunningQueued) return;
    this.#isRunningQueued = true;
    try {
      for (const local of this.#queue) {
        if (this.#running >= this.#mostRunning) return;
        this.#queue.depart(local);
        this.#run(local);
      }
    } finally {
      this.#isRunningQueued = false;
    }
  }

  /** Most are over when their handler returns, and need not be registered. */
  #run(local: LocalExchange): void {
    local.isRunning = true;
    this.#running++;
    run(local, this.#handler, this.#events.log);
    if (++this.requests === this.#maxRequests) this.#events.spent();
    if (!local.over) this.#register(local);
  }

  #register(local: LocalExchange): void {
    if (local.isRegistered) return;
    local.isRegistered = true;
    this.registry.add(local);
    local.exchange.onAborted = this.#clientLeft;
    // Its client left while the handler was running.
    if (local.exchange.aborted) this.#clientLeft(local.exchange);
  }

  async #serveFile(local: LocalExchange): Promise<void> {
    this.#register(local);
    try {
      if (await this.files.answer(local)) this.completed(local);
      else this.#admit(local);
    } catch (error) {
      this.#fileFailed(local, error);
    }
  }

  #fileFailed(local: LocalExchange, error: unknown): void {
    if (local.over) return;
    const { status, reason } = fileFailure(error);
    this.log(`${requestOf(local)}: ${reason}`);
    this.fail(local, status, "the file cannot be sent");
  }

  #refuse(exchange: Exchange, status: FailureStatus, reason: string): void {
    this.registry.count(exchange.protocol, "rejected");
    refuse(exchange, status, reason);
  }
}
