/**
 * The loop that joins listeners and workers: takes exchanges, checks and registers them, hands them to a worker, and
 * ends them as docs/architecture.md ("What happens when") says. No process handling, no sockets of its own.
 */
import type { Socket } from "node:net";
import {
  type Exchange,
  type ExchangeId,
  type FailureStatus,
  type FileBody,
  nameOf,
  type ResponseHead,
} from "../exchange.ts";
import type { FileError } from "../files/open.ts";
import type { StaticFiles } from "../files/static.ts";
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
/** Files that one reactor sends at a time. One more is answered with 503: descriptors must be left for connections. */
const MAX_FILES_OPEN = 2000;
/** The file was just replaced. */
const REPLACED = new Set(["ESTALE", "ENOENT"]);
const FILE_ATTEMPTS = 5;
/** What may be different a moment later, too: too many files are open. */
const TRY_AGAIN = new Set([...REPLACED, "EMFILE", "ENFILE"]);

export class Reactor implements ListenerHost, LinkOwner {
  readonly registry = new Registry();
  /** Files that are answered here; null where there are none. */
  files: StaticFiles | null = null;
  /** Response frames that came after their exchange had gone. */
  droppedFrames = 0;
  readonly #limits: ReactorLimits;
  readonly #log: (line: string) => void;
  /** Told which workers have let a request become overdue. */
  readonly #overdue: (workerId: number) => void;
  readonly #dispatcher: Dispatcher<Flight, WorkerLink>;
  readonly #links = new Set<WorkerLink>();
  #filesOpen = 0;
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
    if (this.files?.mayHave(exchange.path)) void this.#serveFile(flight, this.files);
    else this.#admit(flight);
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

  sendFile(flight: Flight, head: ResponseHead, body: FileBody): void {
    this.#releaseLink(flight);
    if (this.#dispatcher.queued > 0) this.#dispatchQueued();
    // A client that first sends all it has must not wait for a worker that has answered.
    flight.bodyDropped = true;
    if (flight.wholeBody === null) flight.exchange.body?.cancel();
    flight.wake?.();
    this.#sendFile(flight, head, body).catch((error: unknown) => this.#fileFailed(flight, error));
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

  /** On to a worker: at once, or with the whole of a small body. */
  #admit(flight: Flight): void {
    const length = flight.exchange.body?.length;
    if (length !== undefined && length <= WHOLE_BODY_BYTES) this.#collect(flight);
    else this.#dispatch(flight);
  }

  async #sendFile(flight: Flight, head: ResponseHead, body: FileBody): Promise<void> {
    if (this.#filesOpen >= MAX_FILES_OPEN) {
      this.#fail(flight, 503, "too many files are open", "rejected");
      return;
    }
    flight.state = "responding";
    this.#filesOpen++;
    try {
      await flight.exchange.sink.file(head, body);
    } finally {
      this.#filesOpen--;
    }
    if (!flight.over) this.completed(flight);
  }

  /** Answers with the file that the path names, or hands the exchange on to a worker. */
  async #serveFile(flight: Flight, files: StaticFiles): Promise<void> {
    const { exchange } = flight;
    for (let attempt = 1; ; attempt++) {
      try {
        const found = await files.answer(exchange);
        if (flight.over) return;
        if (found === null) {
          flight.state = "queued";
          this.#admit(flight);
          return;
        }
        const { head, body } = found;
        if (body !== null && !(body instanceof Uint8Array)) {
          await this.#sendFile(flight, head, body);
          return;
        }
        flight.state = "responding";
        exchange.sink.respond(head, body);
        this.completed(flight);
        return;
      } catch (error) {
        // It was replaced since it was looked at: the new one is as good.
        const replaced = REPLACED.has((error as FileError).code) && !exchange.sink.headSent;
        if (flight.over || !replaced || attempt === FILE_ATTEMPTS) {
          this.#fileFailed(flight, error);
          return;
        }
      }
    }
  }

  /** A file that could not be sent: before its first byte a status, after it a reset. */
  #fileFailed(flight: Flight, error: unknown): void {
    if (flight.over) return;
    const { code, message, stack } = error as FileError;
    this.#log(`${describe(flight.exchange)}: ${code === undefined ? stack : message}`);
    this.#fail(flight, TRY_AGAIN.has(code) ? 503 : 500, "the file cannot be sent");
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
    const { exchange, link } = flight;
    link?.sendAbort(flight, reason);
    this.#remove(flight, outcome);
    if (exchange.sink.headSent) exchange.sink.abort(reason);
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

function answer(exchange: Exchange, status: FailureStatus, reason: string | null): void {
  const { head, body } = failureResponse(exchange.method, status, reason);
  exchange.sink.respond(head, body);
}

function describe(exchange: Exchange): string {
  return `${exchange.method} ${exchange.path} ${nameOf(exchange)}`;
}
