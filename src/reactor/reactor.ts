/**
 * The loop that joins listeners and workers: takes exchanges, checks and registers them, hands them to a worker, and
 * ends them as docs/architecture.md ("What happens when") says. No process handling, no sockets of its own.
 */
import type { Socket } from "node:net";
import { type Exchange, type ExchangeId, type FailureStatus, nameOf } from "../exchange.ts";
import { type HeadLimits, refusalOf } from "../http/fields.ts";
import { failureResponse, isIdempotent } from "../http/semantics.ts";
import type { ListenerHost } from "../listeners/listener.ts";
import { Dispatcher, type DispatchLimits } from "./dispatcher.ts";
import { Flight } from "./flight.ts";
import { type Outcome, Registry } from "./registry.ts";
import { type LinkOwner, WorkerLink } from "./worker-link.ts";

export interface ReactorLimits extends HeadLimits, DispatchLimits {
  /** Milliseconds until a response must have begun; 0 for no limit. */
  readonly requestTimeout: number;
}

/** A body of at most this many declared bytes goes to the worker in one frame with its head. */
const WHOLE_BODY_BYTES = 16 * 1024;

export class Reactor implements ListenerHost, LinkOwner {
  readonly registry = new Registry();
  /** Response frames that came after their exchange had gone. */
  droppedFrames = 0;
  readonly #limits: ReactorLimits;
  readonly #log: (line: string) => void;
  /** Told which workers have let a request become overdue. */
  readonly #overdue: (workerId: number) => void;
  readonly #dispatcher: Dispatcher<Flight, WorkerLink>;
  readonly #links = new Set<WorkerLink>();
  #draining = false;
  #onIdle: (() => void) | null = null;
  /** One for all exchanges, which saves each a closure. */
  readonly #clientLeft = (exchange: Exchange) => {
    const flight = this.registry.get(exchange.id);
    if (flight === undefined) return;
    flight.link?.sendAbort(flight, "the client left");
    this.#remove(flight, "aborted");
  };

  constructor(limits: ReactorLimits, log: (line: string) => void, overdue: (workerId: number) => void) {
    this.#limits = limits;
    this.#log = log;
    this.#overdue = overdue;
    this.#dispatcher = new Dispatcher(limits);
  }

  get queued(): number {
    return this.#dispatcher.queued;
  }

  log(line: string): void {
    this.#log(line);
  }

  nextId(): ExchangeId {
    return this.registry.nextId();
  }

  /** A worker has connected. */
  attach(socket: Socket): void {
    this.#links.add(new WorkerLink(socket, this));
  }

  accept(exchange: Exchange): void {
    if (exchange.malformed !== null) {
      this.#refuse(exchange, 400, exchange.malformed);
      return;
    }
    const refusal = refusalOf(exchange, exchange.body !== null, this.#limits);
    if (refusal !== null) {
      this.#refuse(exchange, refusal.status, refusal.reason);
      return;
    }
    if (this.#draining) {
      this.#refuse(exchange, 503, "the server is shutting down");
      return;
    }
    const flight = new Flight(exchange);
    this.registry.add(flight);
    exchange.onAborted = this.#clientLeft;
    const length = exchange.body?.length;
    if (length !== undefined && length <= WHOLE_BODY_BYTES) this.#collect(flight);
    else this.#dispatch(flight);
  }

  /** Takes no new exchange; resolves when none is in flight. */
  drain(): Promise<void> {
    this.#draining = true;
    if (this.registry.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }

  /** Ends the workers, where there is nobody else to do it. */
  killWorkers(): void {
    for (const { pid } of this.#links) {
      if (pid !== 0) process.kill(pid, "SIGKILL");
    }
  }

  /** Closes every channel; what is still in flight is reset. */
  close(): void {
    for (const flight of this.registry.flights()) this.#fail(flight, 503, "the server has shut down");
    for (const link of [...this.#links]) link.destroy();
  }

  /**
   * Answers 504 for what is overdue.
   * @param now milliseconds since the Unix epoch
   */
  expire(now: number): void {
    const late = new Set<number>();
    for (const flight of this.registry.flights()) {
      const { exchange, state, link } = flight;
      if (now - exchange.receivedAt < this.#limits.requestTimeout || state === "responding") continue;
      if (link !== null) late.add(link.workerId);
      this.#log(`504 ${describe(exchange)}: no response within ${this.#limits.requestTimeout} ms`);
      this.#fail(flight, 504, "requestTimeout");
    }
    for (const workerId of late) this.#overdue(workerId);
  }

  linked(link: WorkerLink): void {
    this.#dispatcher.addWorker(link);
    this.#dispatchQueued();
  }

  unlinked(link: WorkerLink, error: Error | null): void {
    this.#links.delete(link);
    this.#dispatcher.removeWorker(link);
    if (error !== null) this.#log(`the channel to worker ${link.workerId} broke: ${error.message}`);
    for (const flight of this.registry.flights()) {
      if (flight.link === link) this.#workerDied(flight);
    }
    this.#dispatchQueued();
  }

  flightOf(link: WorkerLink, id: ExchangeId): Flight | undefined {
    const flight = this.registry.get(id);
    return flight?.link === link ? flight : undefined;
  }

  completed(flight: Flight): void {
    this.#remove(flight, "completed");
  }

  broken(flight: Flight, reason: string): void {
    this.#log(`${describe(flight.exchange)}: the response ended short: ${reason}`);
    this.#fail(flight, 500, reason);
  }

  dropped(): void {
    this.droppedFrames++;
  }

  async #collect(flight: Flight): Promise<void> {
    const { body } = flight.exchange;
    if (body === null) return;
    let bytes: Uint8Array;
    try {
      bytes = await body.readAll();
    } catch {
      // The client left in the middle of its body, which `onAborted` tells.
      return;
    }
    if (flight.over) return;
    if (bytes.length !== body.length) {
      this.#fail(flight, 400, `the body has ${bytes.length} bytes, not ${body.length}`, "rejected");
      return;
    }
    flight.wholeBody = bytes;
    this.#dispatch(flight);
  }

  #dispatch(flight: Flight): void {
    const link = this.#dispatcher.acquire();
    if (link !== null) this.#send(flight, link);
    else if (!this.#dispatcher.enqueue(flight)) this.#fail(flight, 503, "the queue is full", "rejected");
  }

  #dispatchQueued(): void {
    for (let next = this.#dispatcher.next(); next !== null; next = this.#dispatcher.next()) {
      this.#send(next.item, next.worker);
    }
  }

  #send(flight: Flight, link: WorkerLink): void {
    flight.link = link;
    flight.state = "dispatched";
    link.inFlight++;
    link.send(flight);
    if (flight.exchange.body === null || flight.wholeBody !== null) return;
    if (flight.pumping) flight.wake?.();
    else void this.#pump(flight);
  }

  /** Moves the request's body to the worker as fast as it consumes it. */
  async #pump(flight: Flight): Promise<void> {
    const { body } = flight.exchange;
    if (body === null) return;
    flight.pumping = true;
    let total = 0;
    try {
      for (let chunk = await body.read(); chunk !== null && !flight.over; chunk = await body.read()) {
        flight.bodyConsumed = true;
        total += chunk.length;
        if (total > this.#limits.maxBodyBytes) {
          this.#fail(flight, 413, `the body is over ${this.#limits.maxBodyBytes} bytes`);
          return;
        }
        for (let sent = 0; sent < chunk.length && !flight.over; ) {
          const bytes = flight.link?.sendData(flight, chunk, sent) ?? 0;
          sent += bytes;
          if (bytes === 0) await woken(flight);
        }
      }
    } catch {
      // The client left in the middle of its body, which `onAborted` tells.
      return;
    }
    if (flight.over) return;
    if (body.length !== undefined && total !== body.length) {
      this.#fail(flight, 400, `the body has ${total} bytes, not ${body.length}`);
      return;
    }
    // Without a worker, which has died, the end goes with the head to the next.
    if (total === 0) flight.wholeBody = new Uint8Array(0);
    flight.link?.sendEnd(flight);
  }

  #workerDied(flight: Flight): void {
    const { exchange } = flight;
    const again =
      flight.state === "dispatched" &&
      isIdempotent(exchange.method) &&
      !flight.bodyConsumed &&
      !flight.ranBefore;
    if (!again) {
      const end = flight.state === "responding" ? "reset" : "502";
      this.#log(`${end} ${describe(exchange)}: its worker died`);
      this.#fail(flight, 502, "the worker died");
      return;
    }
    this.#releaseLink(flight);
    flight.ranBefore = true;
    flight.state = "queued";
    this.#dispatch(flight);
  }

  /** Ends an exchange that its handler will not end: with a status where none was sent, else by a reset. */
  #fail(flight: Flight, status: FailureStatus, reason: string, outcome: Outcome = "failed"): void {
    const { exchange, state, link } = flight;
    link?.sendAbort(flight, reason);
    this.#remove(flight, outcome);
    if (state === "responding") exchange.sink.abort(reason);
    else answer(exchange, status, status < 500 ? reason : null);
  }

  #refuse(exchange: Exchange, status: FailureStatus, reason: string): void {
    this.registry.countRejected(exchange.protocol);
    answer(exchange, status, reason);
    exchange.body?.cancel();
  }

  #remove(flight: Flight, outcome: Outcome): void {
    flight.over = true;
    flight.exchange.onAborted = null;
    this.registry.remove(flight, outcome);
    if (flight.exchange.body !== null && flight.wholeBody === null) flight.exchange.body.cancel();
    flight.wake?.();
    if (flight.link === null) this.#dispatcher.withdraw(flight);
    else this.#releaseLink(flight);
    if (this.#dispatcher.queued > 0) this.#dispatchQueued();
    if (this.registry.size === 0) this.#onIdle?.();
  }

  #releaseLink(flight: Flight): void {
    if (flight.link === null) return;
    flight.link.inFlight--;
    flight.link = null;
    this.#dispatcher.release();
  }
}

function woken(flight: Flight): Promise<void> {
  return new Promise((resolve) => {
    flight.wake = () => {
      flight.wake = null;
      resolve();
    };
  });
}

function answer(exchange: Exchange, status: FailureStatus, reason: string | null): void {
  const { head, body } = failureResponse(exchange.method, status, reason);
  exchange.sink.respond(head, body);
}

function describe(exchange: Exchange): string {
  return `${exchange.method} ${exchange.path} ${nameOf(exchange)}`;
}
