/** The reactor's end of the channel to one worker: requests go out, and what comes back finds its exchange's sink. */
import type { Socket } from "node:net";
import type { ConnectionEvent, ConnectionInfo } from "../connection.ts";
import type { ExchangeId, Fields, FileBody, ResponseHead } from "../exchange.ts";
import { Channel, type ChannelOwner } from "../wire/channel.ts";
import { readQuestion, writeAnswer, writeEvent } from "../wire/connections.ts";
import { readFile } from "../wire/files.ts";
import { DATA_BYTES, type Frame, FrameError, FrameType, WIRE_VERSION } from "../wire/frames.ts";
import { ResponseHeads, readTrailers, writeRequest, writeTrailers } from "../wire/heads.ts";
import type { Candidate } from "./dispatch-policy.ts";
import type { Flight } from "./flight.ts";

const NO_FIELDS: Fields = [];
/** A worker that has not answered a PING within it is busy with what it has, or stuck. Milliseconds. */
const LATE_AFTER = 20;

export interface LinkOwner {
  /** The worker has said hello. */
  linked(link: WorkerLink): void;
  /** The worker was late, and has answered. */
  caughtUp(): void;
  unlinked(link: WorkerLink, error: Error | null): void;
  /** The flight that this link has under an id; undefined where it is gone, or is another worker's. */
  flightOf(link: WorkerLink, id: ExchangeId): Flight | undefined;
  /** The response is a file's, for the owner to send: the worker is done with it. */
  sendFile(flight: Flight, head: ResponseHead, body: FileBody): void;
  /** The last of the response has been handed to the client's side. */
  completed(flight: Flight): void;
  /** What the worker answered cannot be sent. */
  broken(flight: Flight, reason: string): void;
  /** The handler ends the response short, before its head perhaps. */
  brokenOff(flight: Flight, reason: string): void;
  /** The worker listens to what happens to connections: see wire/connections.ts. */
  watches(link: WorkerLink, mask: number): void;
  /** The worker asks how a connection is. */
  connectionAsked(link: WorkerLink, call: number, id: string): void;
  /** A response frame came for an exchange that is gone: the client left while the worker was busy. */
  dropped(): void;
}

export class WorkerLink implements ChannelOwner, Candidate {
  workerId = 0;
  /** The worker's process id. */
  pid = 0;
  /** Exchanges that the worker has and has not ended. */
  inFlight = 0;
  readonly #owner: LinkOwner;
  readonly #channel: Channel;
  readonly #heads = new ResponseHeads();
  readonly #concurrency: number;
  #greeted = false;
  /** When the PING was sent that is under way; 0 where none is. Milliseconds. */
  #pingedAt = 0;
  #wasLate = false;
  #retired = false;

  /** @param concurrency exchanges that the worker may have at a time */
  constructor(socket: Socket, concurrency: number, owner: LinkOwner) {
    this.#owner = owner;
    this.#concurrency = concurrency;
    this.#channel = new Channel(socket, this, setImmediate);
    this.#channel.writer.hello({ version: WIRE_VERSION, workerId: 0, pid: process.pid });
  }

  takes(now: number): boolean {
    return this.inFlight < this.#concurrency && !this.isLate(now);
  }

  /** The worker is busy with what it has, or stuck. */
  isLate(now: number): boolean {
    if (this.silence(now) <= LATE_AFTER) return false;
    this.#wasLate = true;
    return true;
  }

  /** Milliseconds for which the worker has not answered the PING that is under way; 0 where none is. */
  silence(now: number): number {
    return this.#pingedAt === 0 ? 0 : now - this.#pingedAt;
  }

  /** It could not answer for so many milliseconds, up to now. */
  stoodStill(milliseconds: number, now: number): void {
    if (this.#pingedAt !== 0) this.#pingedAt = Math.min(now, this.#pingedAt + milliseconds);
  }

  /** Asks how far the worker has come, unless that is being asked. */
  ping(now: number): void {
    if (this.#pingedAt !== 0) return;
    this.#pingedAt = now;
    this.#channel.writer.signal(FrameType.ping);
  }

  /** Sends what was gathered, without waiting for the end of the turn. */
  flush(): void {
    this.#channel.flush();
  }

  /** The worker was told that no more requests will come. */
  get retired(): boolean {
    return this.#retired;
  }

  retire(): void {
    this.#retired = true;
    this.#channel.writer.signal(FrameType.goaway);
  }

  /** Sends the head, and with it a body that is whole. */
  send(flight: Flight): void {
    const { exchange, wholeBody } = flight;
    const whole = exchange.body === null || wholeBody !== null;
    const trailers = whole && exchange.body !== null ? exchange.body.trailers : NO_FIELDS;
    writeRequest(this.#channel.writer, exchange.id, exchange, wholeBody, whole && trailers.length === 0);
    if (trailers.length > 0) writeTrailers(this.#channel.writer, exchange.id, trailers);
  }

  /** Sends a piece of the body, as far as credit goes; returns the bytes sent. */
  sendData(flight: Flight, chunk: Uint8Array, offset: number): number {
    const bytes = Math.min(chunk.length - offset, flight.sendWindow.credit, DATA_BYTES);
    if (bytes > 0) {
      this.#channel.writer.data(flight.exchange.id, chunk.subarray(offset, offset + bytes), false);
      flight.sendWindow.spend(bytes);
    }
    return bytes;
  }

  sendEnd(flight: Flight): void {
    const { id, body } = flight.exchange;
    const trailers = body?.trailers ?? NO_FIELDS;
    if (trailers.length === 0) this.#channel.writer.data(id, null, true);
    else writeTrailers(this.#channel.writer, id, trailers);
  }

  /** Tells the worker that its answer is no longer wanted. */
  sendAbort(flight: Flight, reason: string): void {
    this.#channel.writer.abort(flight.exchange.id, reason);
  }

  /** Notes bytes that the client has taken, and returns their credit in time. */
  consumed(flight: Flight, bytes: number): void {
    const due = flight.receiveWindow.consume(bytes);
    if (due > 0) this.#channel.writer.credit(flight.exchange.id, due);
  }

  sendEvent(event: ConnectionEvent): void {
    writeEvent(this.#channel.writer, event);
  }

  sendConnection(call: number, info: ConnectionInfo | null): void {
    writeAnswer(this.#channel.writer, call, info);
  }

  destroy(): void {
    this.#channel.destroy();
  }

  closed(error: Error | null): void {
    this.#owner.unlinked(this, error);
  }

  frame(frame: Frame): void {
    const { type, id, payload } = frame;
    if (!this.#greeted) {
      this.#greet(frame);
      return;
    }
    if (type === FrameType.pong) {
      this.#pingedAt = 0;
      if (!this.#wasLate) return;
      this.#wasLate = false;
      this.#owner.caughtUp();
      return;
    }
    if (type === FrameType.watch) {
      this.#owner.watches(this, payload.u8());
      return;
    }
    if (type === FrameType.connection) {
      this.#owner.connectionAsked(this, id, readQuestion(payload));
      return;
    }
    const flight = this.#owner.flightOf(this, id);
    if (flight === undefined) {
      if (type !== FrameType.credit) this.#owner.dropped();
      return;
    }
    try {
      this.#answer(flight, frame);
    } catch (error) {
      if (error instanceof FrameError) throw error;
      // What its engine will not send is the fault of this response: the frames behind it are others'.
      if (!flight.over) this.#owner.broken(flight, `the engine refused it: ${(error as Error).message}`);
    }
  }

  #answer(flight: Flight, { type, end, payload }: Frame): void {
    const { sink } = flight.exchange;
    switch (type) {
      case FrameType.response: {
        if (flight.state === "responding") throw new FrameError("a response began twice");
        const head = this.#heads.read(payload);
        flight.state = "responding";
        if (end) {
          sink.respond(head, payload.left === 0 ? null : payload.rest());
          this.#owner.completed(flight);
          return;
        }
        sink.onDrain = () => this.#drained(flight);
        sink.head(head);
        if (payload.left > 0) this.#data(flight, payload.rest());
        return;
      }
      case FrameType.data:
        if (flight.state !== "responding" || flight.responseEnded)
          throw new FrameError("data without a head");
        if (payload.left > 0) this.#data(flight, payload.rest());
        if (end) this.#ended(flight);
        return;
      case FrameType.trailers:
        if (flight.state !== "responding" || flight.responseEnded)
          throw new FrameError("trailers without a head");
        flight.trailers = readTrailers(payload);
        this.#ended(flight);
        return;
      case FrameType.file:
        if (flight.state === "responding") throw new FrameError("a response began twice");
        this.#owner.sendFile(flight, this.#heads.read(payload), readFile(payload));
        return;
      case FrameType.inform:
        sink.inform(this.#heads.read(payload));
        return;
      case FrameType.credit:
        flight.sendWindow.refill(payload.u32());
        flight.wake?.();
        return;
      case FrameType.abort:
        this.#owner.brokenOff(flight, payload.latin1());
        return;
      default:
        throw new FrameError(`a worker sends no frame of type ${type}`);
    }
  }

  #greet(frame: Frame): void {
    if (frame.type !== FrameType.hello) throw new FrameError("the first frame is not a hello");
    const hello = frame.payload.hello();
    if (hello.version !== WIRE_VERSION) {
      throw new FrameError(`the worker speaks wire version ${hello.version}, not ${WIRE_VERSION}`);
    }
    this.#greeted = true;
    this.workerId = hello.workerId;
    this.pid = hello.pid;
    this.#owner.linked(this);
  }

  #data(flight: Flight, chunk: Uint8Array): void {
    flight.receiveWindow.receive(chunk.length);
    if (flight.exchange.sink.data(chunk) && flight.unconsumed === 0) this.consumed(flight, chunk.length);
    else flight.unconsumed += chunk.length;
  }

  #drained(flight: Flight): void {
    const bytes = flight.unconsumed;
    if (flight.over || bytes === 0) return;
    flight.unconsumed = 0;
    if (flight.responseEnded) this.#finish(flight);
    else this.consumed(flight, bytes);
  }

  #ended(flight: Flight): void {
    flight.responseEnded = true;
    if (flight.unconsumed === 0) this.#finish(flight);
  }

  #finish(flight: Flight): void {
    flight.exchange.sink.end(flight.trailers);
    this.#owner.completed(flight);
  }
}
