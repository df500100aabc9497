/**
 * The loop that joins listeners and workers: takes exchanges, checks and registers them, hands them to a worker, and
 * ends them as docs/architecture.md ("What happens when") says. No process handling, no sockets of its own.
 */
import type { Socket } from "node:net";
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
import { type HeadLimits, refusalOf } from "../http/fields.ts";
import { answerFailure, isIdempotent, refuse } from "../http/semantics.ts";
import type { ListenerHost } from "../listeners/listener.ts";
import { FrameError } from "../wire/frames.ts";
import { type Doing, doingOf } from "../wire/progress.ts";
import { ConnectionDesk } from "./connection-desk.ts";
import type { DispatchPolicy } from "./dispatch-policy.ts";
import { Dispatcher, type DispatchLimits } from "./dispatcher.ts";
import { Flight } from "./flight.ts";
import { type Outcome, Registry } from "./registry.ts";
import { stuckAfter } from "./stuck.ts";
import { type LinkOwner, WorkerLink } from "./worker-link.ts";

export interface ReactorLimits extends HeadLimits, DispatchLimits {
  /** Milliseconds until a response must have begun; 0 for no limit. */
  readonly requestTimeout: number;
  /** Exchanges that one worker may have at a time; 0 for no limit. */
  readonly concurrency: number;
}

/** What a reactor is told once. */
export interface ReactorSettings {
  readonly limits: ReactorLimits;
  readonly policy: DispatchPolicy<WorkerLink>;
  /** Where the workers note what they run. */
  readonly runDirectory: string;
  /** Told of a worker that has said nothing for `requestTimeout`. */
  stuck(pid: number): void;
  /** A worker has broken the rules of the wire, and its channel is closed. */
  broken(pid: number): void;
  log(line: string): void;
}

/** What the manager has said of a worker process: give it exchanges, or no more of them. */
type Employment = "used" | "retired";

/** A body of at most this many declared bytes goes to the worker in one frame with its head. */
const WHOLE_BODY_BYTES = 16 * 1024;
/**
 * Workers that may die with a request until it gets 502. One that ends by itself may do so for this very request. One
 * that is killed while it runs the request most likely was killed from outside, but memory that the request took, or a
 * fault in native code, looks the same. One that is killed while it does something else was not ended by it.
 */
const MAX_DEATHS = { byItself: 1, running: 3, besides: 10 };

export class Reactor implements ListenerHost, LinkOwner {
  readonly registry = new Registry<Flight>();
  readonly connections = new ConnectionDesk<WorkerLink>((link) => this.#dispatcher.workers.includes(link));
  files = new FileAnswers(null);
  /** Response frames that came after their exchange had gone. */
  droppedFrames = 0;
  readonly #settings: ReactorSettings;
  readonly #limits: ReactorLimits;
  readonly #dispatcher: Dispatcher<Flight, WorkerLink>;
  readonly #links = new Set<WorkerLink>();
  /** By process id. */
  readonly #employed = new Map<number, Employment>();
  /** Process ids of workers that were found stuck. */
  readonly #stuck = new Set<number>();
  #draining = false;
  /** There is no worker, and none can be started for now. */
  #unserved = false;
  #onIdle: (() => void) | null = null;
  /** One for all exchanges, which saves each a closure. */
  readonly #clientLeft = (exchange: Exchange) => {
    const flight = this.registry.get(exchange.id);
    if (flight === undefined) return;
    flight.link?.sendAbort(flight, "the client left");
    this.#remove(flight, "aborted");
  };

  constructor(settings: ReactorSettings) {
    this.#settings = settings;
    this.#limits = settings.limits;
    this.#dispatcher = new Dispatcher(settings.limits, settings.policy, ({ exchange }) => exchange);
  }

  get tellConnection() {
    return this.connections.tell;
  }

  get queued(): number {
    return this.#dispatcher.queued;
  }

  /** Milliseconds that a request which came now would wait in the queue. */
  get expectedWait(): number {
    return this.#dispatcher.expectedWait(now());
  }

  log(line: string): void {
    this.#settings.log(line);
  }

  nextId(): ExchangeId {
    return this.registry.nextId();
  }

  /** A worker has connected. */
  attach(socket: Socket): void {
    const concurrency = this.#limits.concurrency || Number.POSITIVE_INFINITY;
    this.#links.add(new WorkerLink(socket, concurrency, this));
  }

  /** From now on these workers, by their process ids, get the exchanges, and those are told that no more will come. */
  employ(used: readonly number[], retired: readonly number[]): void {
    for (const pid of used) this.#employed.set(pid, "used");
    for (const pid of retired) this.#employed.set(pid, "retired");
    for (const link of this.#links) this.#employ(link);
    this.#unserved = false;
    this.#dispatchQueued();
  }

  /** There is no worker and there will be none for a while: what waits, and what comes, gets 503 at once. */
  leaveUnserved(): void {
    this.#unserved = true;
    for (const flight of this.#dispatcher.withdrawAll())
      this.#fail(flight, 503, "there is no worker", "rejected");
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
    exchange.proceed?.();
    const flight = new Flight(exchange);
    this.registry.add(flight);
    exchange.onAborted = this.#clientLeft;
    if (this.files.mayHave(exchange.path)) void this.#serveFile(flight);
    else this.#admit(flight);
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

  /** Ends the workers, where there is nobody else to do it. */
  killWorkers(): void {
    for (const { pid } of this.#links) {
      if (pid === 0) continue;
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended by itself, and its channel's end has not been read yet.
      }
    }
  }

  /** Resets what is still in flight. */
  giveUp(): void {
    for (const flight of this.registry.flights()) this.#fail(flight, 503, "the server has shut down");
  }

  /** Closes every channel, behind what was last said in it. */
  close(): void {
    for (const link of [...this.#links]) {
      link.flush();
      link.destroy();
    }
  }

  /**
   * Answers 504 for what is overdue, and finds the workers that are stuck.
   * @param now milliseconds since the Unix epoch
   */
  expire(now: number): void {
    const { requestTimeout } = this.#limits;
    if (requestTimeout > 0) {
      for (const flight of this.registry.flights()) {
        if (now - flight.since >= requestTimeout && flight.state !== "responding") this.#expire(flight, now);
      }
    }
    for (const link of this.#links) this.#checkStuck(link, now);
  }

  /** Nothing went on for so many milliseconds, up to now: no handler had them, and no worker. */
  stoodStill(milliseconds: number, now: number): void {
    for (const flight of this.registry.flights()) flight.since = Math.min(now, flight.since + milliseconds);
    for (const link of this.#links) link.stoodStill(milliseconds, now);
  }

  linked(link: WorkerLink): void {
    this.#employ(link);
    this.#dispatchQueued();
  }

  caughtUp(): void {
    this.#dispatchQueued();
  }

  unlinked(link: WorkerLink, error: Error | null): void {
    this.#links.delete(link);
    this.connections.leave(link);
    this.#dispatcher.removeWorker(link);
    this.#employed.delete(link.pid);
    // Without `requestTimeout` nobody kills it for that.
    const wasStuck = this.#stuck.delete(link.pid) && this.#limits.requestTimeout > 0;
    if (error !== null) this.log(`the channel to worker ${link.workerId} broke: ${error.message}`);
    // It would live on without one, and never get another request.
    if (error instanceof FrameError && link.pid !== 0) this.#settings.broken(link.pid);
    const flights = this.registry.flights().filter((flight) => flight.link === link);
    if (flights.length === 0) return;
    const doing = doingOf(this.#settings.runDirectory, link.pid);
    for (const flight of flights) {
      if (flight.responseEnded) this.#releaseLink(flight);
      else this.#workerDied(flight, doing, wasStuck);
    }
    this.#dispatchQueued();
  }

  flightOf(link: WorkerLink, id: ExchangeId): Flight | undefined {
    const flight = this.registry.get(id);
    return flight?.link === link ? flight : undefined;
  }

  sendFile(flight: Flight, head: ResponseHead, body: FileBody): void {
    this.#releaseLink(flight);
    this.#dispatchQueued();
    // A client that first sends all it has must not wait for a worker that has answered.
    flight.bodyDropped = true;
    if (flight.wholeBody === null) flight.exchange.body?.cancel();
    flight.wake?.();
    this.files.send(flight, head, body).then(
      () => this.#fileSent(flight),
      (error: unknown) => this.#fileFailed(flight, error),
    );
  }

  completed(flight: Flight): void {
    this.#remove(flight, "completed");
  }

  broken(flight: Flight, reason: string): void {
    this.log(`${requestOf(flight.exchange)}: the response ended short: ${reason}`);
    this.#fail(flight, 500, reason);
  }

  brokenOff(flight: Flight, reason: string): void {
    this.log(`${requestOf(flight.exchange)}: the response ended short: ${reason}`);
    this.#remove(flight, "failed");
    flight.exchange.sink.abort(reason);
  }

  watches(link: WorkerLink, mask: number): void {
    this.connections.listen(link, mask);
  }

  connectionAsked(link: WorkerLink, call: number, id: string): void {
    link.sendConnection(call, this.connections.find(id));
  }

  dropped(): void {
    this.droppedFrames++;
  }

  /** On to a worker: at once, or with the whole of a small body. */
  #admit(flight: Flight): void {
    const length = flight.exchange.body?.length;
    if (length !== undefined && length <= WHOLE_BODY_BYTES) this.#collect(flight);
    else this.#dispatch(flight, flight.exchange.receivedAt);
  }

  /** Answers with the file that the path names, or hands the exchange on to a worker. */
  async #serveFile(flight: Flight): Promise<void> {
    try {
      if (await this.files.answer(flight)) this.#fileSent(flight);
      else this.#admit(flight);
    } catch (error) {
      this.#fileFailed(flight, error);
    }
  }

  #fileSent(flight: Flight): void {
    if (!flight.over) this.completed(flight);
  }

  /** A file that could not be sent: before its first byte a status, after it a reset. */
  #fileFailed(flight: Flight, error: unknown): void {
    if (flight.over) return;
    const { status, reason } = fileFailure(error);
    this.log(`${requestOf(flight.exchange)}: ${reason}`);
    this.#fail(flight, status, "the file cannot be sent");
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
    this.#dispatch(flight, now());
  }

  #employ(link: WorkerLink): void {
    if (link.workerId === 0) return;
    switch (this.#employed.get(link.pid)) {
      case "used":
        if (!this.#dispatcher.workers.includes(link)) this.#dispatcher.addWorker(link);
        return;
      case "retired":
        if (link.retired) return;
        this.#dispatcher.removeWorker(link);
        link.retire();
    }
  }

  /** @param now milliseconds since the Unix epoch */
  #dispatch(flight: Flight, now: number): void {
    const link = this.#dispatcher.acquire(flight, now);
    if (link !== null) this.#send(flight, link, now);
    else if (this.#unserved) this.#fail(flight, 503, "there is no worker", "rejected");
    else if (!this.#dispatcher.enqueue(flight, now)) this.#fail(flight, 503, "the queue is full", "rejected");
  }

  #dispatchQueued(): void {
    if (this.#dispatcher.queued === 0) return;
    const at = now();
    for (let next = this.#dispatcher.next(at); next !== null; next = this.#dispatcher.next(at)) {
      this.#send(next.item, next.worker, at);
    }
  }

  #send(flight: Flight, link: WorkerLink, now: number): void {
    flight.link = link;
    flight.state = "dispatched";
    link.inFlight++;
    link.send(flight);
    link.ping(now);
    // Its worker is asleep: it wakes up while the engine sends its acknowledgements. One that is busy comes to what is gathered.
    if (link.inFlight === 1) link.flush();
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
      for (let chunk = await body.read(); chunk !== null && !isOver(flight); chunk = await body.read()) {
        flight.bodyConsumed = true;
        total += chunk.length;
        if (total > this.#limits.maxBodyBytes) {
          this.#fail(flight, 413, `the body is over ${this.#limits.maxBodyBytes} bytes`);
          return;
        }
        for (let sent = 0; sent < chunk.length && !isOver(flight); ) {
          const bytes = flight.link?.sendData(flight, chunk, sent) ?? 0;
          sent += bytes;
          if (bytes === 0) await woken(flight);
        }
      }
    } catch {
      // The client left in the middle of its body, which `onAborted` tells.
      return;
    }
    if (isOver(flight)) return;
    if (body.length !== undefined && total !== body.length) {
      this.#fail(flight, 400, `the body has ${total} bytes, not ${body.length}`);
      return;
    }
    // Without a worker, which has died, the end goes with the head to the next.
    if (total === 0) flight.wholeBody = new Uint8Array(0);
    flight.link?.sendEnd(flight);
  }

  #expire(flight: Flight, now: number): void {
    const { exchange, link } = flight;
    let why = "";
    if (link?.isLate(now)) {
      const doing = doingOf(this.#settings.runDirectory, link.pid);
      const isAnothers = typeof doing === "object" ? doing.ran !== exchange.id : doing === "another";
      // This one runs again when its worker has been killed.
      if (isAnothers) return;
      if (typeof doing === "object") why = ", for its handler does not let go of its worker";
    }
    this.log(`504 ${requestOf(exchange)}: no response within ${this.#limits.requestTimeout} ms${why}`);
    this.#fail(flight, 504, "requestTimeout");
  }

  #checkStuck(link: WorkerLink, now: number): void {
    const { requestTimeout } = this.#limits;
    const limit = stuckAfter(requestTimeout);
    // A worker may get stuck behind its last PONG, and not be sent anything since.
    if (link.inFlight > 0) link.ping(now);
    if (link.silence(now) < limit) {
      // It goes on again, and is told of the next time, too; one that was found stuck by `requestTimeout` is being killed.
      if (requestTimeout === 0) this.#stuck.delete(link.pid);
      return;
    }
    if (this.#stuck.has(link.pid)) return;
    this.#stuck.add(link.pid);
    if (requestTimeout > 0) {
      this.#settings.stuck(link.pid);
      return;
    }
    const doing = doingOf(this.#settings.runDirectory, link.pid);
    const flight = typeof doing === "object" ? this.registry.get(doing.ran) : undefined;
    const what = flight === undefined ? "" : `, since it runs ${requestOf(flight.exchange)}`;
    const advice = "it gets no requests until it does; with requestTimeout it would be replaced";
    this.log(`worker ${link.workerId} has not answered for ${limit / 1000} s${what}: ${advice}`);
  }

  /** @param doing what the worker did when it died */
  #workerDied(flight: Flight, doing: Doing, wasStuck: boolean): void {
    const { exchange } = flight;
    const ranIt = typeof doing === "object" && doing.ran === exchange.id;
    if (ranIt && wasStuck) {
      this.log(`504 ${requestOf(exchange)}: its handler did not let go of its worker, which was killed`);
      this.#fail(flight, 504, "requestTimeout");
      return;
    }
    const endedByItself = doing === "leaving" || doing === "unknown";
    const maxDeaths = MAX_DEATHS[endedByItself ? "byItself" : ranIt ? "running" : "besides"];
    flight.deaths++;
    const again =
      flight.state === "dispatched" &&
      isIdempotent(exchange.method) &&
      !flight.bodyConsumed &&
      flight.deaths <= maxDeaths;
    if (!again) {
      const end = flight.state === "responding" ? "reset" : "502";
      this.log(`${end} ${requestOf(exchange)}: its worker died`);
      this.#fail(flight, 502, "the worker died");
      return;
    }
    this.#releaseLink(flight);
    flight.state = "queued";
    const at = now();
    flight.since = at;
    this.#dispatch(flight, at);
  }

  /** Ends an exchange that its handler will not end: with a status where none was sent, else by a reset. */
  #fail(flight: Flight, status: FailureStatus, reason: string, outcome: Outcome = "failed"): void {
    const { exchange, link } = flight;
    link?.sendAbort(flight, reason);
    this.#remove(flight, outcome);
    if (exchange.sink.headSent) exchange.sink.abort(reason);
    else answerFailure(exchange, status, status < 500 ? reason : null);
  }

  #refuse(exchange: Exchange, status: FailureStatus, reason: string): void {
    this.registry.count(exchange.protocol, "rejected");
    refuse(exchange, status, reason);
  }

  #remove(flight: Flight, outcome: Outcome): void {
    flight.over = true;
    flight.exchange.onAborted = null;
    this.registry.remove(flight, outcome);
    if (flight.exchange.body !== null && flight.wholeBody === null) flight.exchange.body.cancel();
    flight.wake?.();
    if (flight.link === null) this.#dispatcher.withdraw(flight);
    else this.#releaseLink(flight);
    this.#dispatchQueued();
    if (this.registry.size === 0) this.#onIdle?.();
  }

  #releaseLink(flight: Flight): void {
    if (flight.link === null) return;
    flight.link.inFlight--;
    flight.link = null;
    this.#dispatcher.release();
  }
}

/** Nobody takes the request's body any more. */
function isOver(flight: Flight): boolean {
  return flight.over || flight.bodyDropped;
}

function woken(flight: Flight): Promise<void> {
  return new Promise((resolve) => {
    flight.wake = () => {
      flight.wake = null;
      resolve();
    };
  });
}
