/**
 * A request and its response on a stream of `node:quic` as an exchange. What a request has only now and then (a body, a
 * response that streams, trailers) is made when it is needed.
 */
import type { QuicStream } from "node:quic";
import { now } from "../../clock.ts";
import type {
  Exchange,
  ExchangeId,
  Fields,
  FileBody,
  RequestBody,
  ResponseHead,
  Sink,
} from "../../exchange.ts";
import { sendFile } from "../../files/send.ts";
import { fieldValue, type RequestSection } from "../../http/fields.ts";
import { forbidsBody } from "../../http/semantics.ts";
import { type BodyOwner, QuicBody, type Reading } from "./body.ts";
import type { QuicConnection } from "./connection.ts";
import { interimHeadersOf, type QuicHead, type QuicHeads, trailersToSend } from "./heads.ts";
import type { Outbox } from "./outbox.ts";
import { breakOff, Http3Error } from "./reset.ts";
import { type ResponseOwner, StreamingResponse } from "./response.ts";
import type { Turns } from "./turns.ts";

/** What the engine's streams have beside their types. */
type Stoppable = QuicStream & { stopSending(code: bigint): void };
/** What the exchanges of one listener share. */
export interface QuicServices {
  readonly outbox: Outbox<QuicExchange>;
  readonly heads: QuicHeads;
  /** The trailer sections that have come. */
  readonly trailers: WeakMap<QuicStream, Fields>;
  log(line: string): void;
}

export class QuicExchange implements Exchange, Sink, BodyOwner, ResponseOwner {
  readonly id: ExchangeId;
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly fields: Fields;
  readonly malformed: string | null;
  readonly receivedAt: number;
  readonly stream: number;
  /** Set before anybody else sees the exchange. */
  body: RequestBody | null = null;
  aborted = false;
  headSent = false;
  onAborted: Exchange["onAborted"] = null;
  onDrain: (() => void) | null = null;
  readonly #connection: QuicConnection;
  readonly #services: QuicServices;
  readonly #stream: QuicStream;
  /** The last of the response was handed over, or it was cut off: nothing more is owed to the client. */
  #over = false;
  #streaming: StreamingResponse | null = null;
  /** The engine has the last of the response. */
  #sent = false;
  /** No more of the request's body is wanted. */
  #stopped = false;

  constructor(
    id: ExchangeId,
    stream: QuicStream,
    section: RequestSection,
    connection: QuicConnection,
    services: QuicServices,
  ) {
    this.id = id;
    this.#stream = stream;
    this.#connection = connection;
    this.#services = services;
    this.receivedAt = now();
    this.stream = Number(stream.id);
    this.method = section.method;
    this.path = section.path;
    this.authority = section.authority;
    this.fields = section.fields;
    this.malformed = section.malformed;
    const closed = () => this.#closed();
    stream.closed.then(closed, closed);
  }

  get protocol(): "HTTP/3" {
    return "HTTP/3";
  }
  get scheme(): "https" {
    return "https";
  }
  get session(): string {
    return this.#connection.id;
  }
  get remoteAddress(): string {
    return this.#connection.remoteAddress;
  }
  get remotePort(): number {
    return this.#connection.remotePort;
  }
  get localPort(): number {
    return this.#connection.localPort;
  }
  get sendsInterim(): boolean {
    return true;
  }
  get sendsTrailers(): boolean {
    return true;
  }
  get maxHeaderBytes(): number | undefined {
    return this.#connection.maxFieldSectionSize;
  }
  get sink(): Sink {
    return this;
  }
  get trailerTurns(): Turns {
    return this.#connection.trailerTurns;
  }
  get trailers(): Fields {
    return this.#services.trailers.get(this.#stream) ?? [];
  }

  /** The request has a body, of which the first was asked for. */
  receive(length: number | undefined, reading: Reading): void {
    this.body = new QuicBody(length, reading, this, this.#connection.bodies);
  }

  respond(head: ResponseHead, body: Uint8Array | null): void {
    this.headSent = true;
    this.#services.outbox.add({ exchange: this, head, body });
  }

  /** Sends what `respond` was given. */
  send(head: ResponseHead, body: Uint8Array | null): void {
    if (this.#isGone()) return;
    this.#over = true;
    this.#attempt(() => {
      this.#sendHead(head, body === null);
      if (body !== null) this.#stream.setBody(body);
      this.#wasSent();
    });
  }

  /**
   * The same in two steps, the body first: the engine cannot send that, and says so by calling `blocked`; see
   * outbox.ts. False where it takes no body any more, or would not call.
   */
  sendBodyFirst(body: Uint8Array, blocked: () => void): boolean {
    if (this.#isGone() || this.#connection.isStuck) return false;
    this.#stream.onblocked = blocked;
    return this.#attempt(() => this.#stream.setBody(body));
  }

  sendHeadLast(head: ResponseHead): void {
    if (this.#isGone()) return;
    this.#over = true;
    this.#attempt(() => {
      this.#sendHead(head, false);
      this.#wasSent();
    });
  }

  notCalled(): void {
    this.#connection.stuck();
  }

  inform(head: ResponseHead): boolean {
    if (this.#isGone()) return false;
    // Of the section behind one that waits for the congestion window the engine makes DATA, for which clients break the
    // connection off. Alone it does not wait; 100 is behind it when the client has sent its body.
    if (head.status !== 100 && this.#connection.open > 1) return false;
    return this.#attempt(() => this.#stream.sendInformationalHeaders(interimHeadersOf(head)));
  }

  file(head: ResponseHead, body: FileBody): Promise<void> {
    return sendFile(this, head, body);
  }

  head(head: ResponseHead): void {
    this.headSent = true;
    if (this.#isGone()) return;
    const ends = forbidsBody(this.method, head.status);
    const sent = this.#attempt(() => this.#sendHead(head, ends));
    if (sent && !ends) this.#streaming = new StreamingResponse(this.#stream, this);
  }

  data(chunk: Uint8Array): boolean {
    return this.#streaming === null || this.#isGone() || this.#streaming.push(chunk);
  }

  end(trailers: Fields | null): void {
    if (this.#isGone()) return;
    this.#over = true;
    const streaming = this.#streaming;
    if (streaming === null) this.#wasSent();
    else this.#attempt(() => streaming.end(trailers === null ? null : trailersToSend(trailers)));
  }

  drained(): void {
    this.onDrain?.();
  }

  finished(): void {
    this.#wasSent();
  }

  abort(): void {
    this.#over = true;
    breakOff(this.#stream, Http3Error.internalError);
  }

  /** A malformed message is a stream error, and gets no answer (RFC 9114 §4.1.2). */
  refuse(): void {
    this.#over = true;
    breakOff(this.#stream, Http3Error.messageError);
  }

  /** Behind the response: a client that is told before drops it, perhaps, or breaks the connection off (RFC 9114 §4.1). */
  stopSending(): void {
    this.#stopped = true;
    if (this.#sent) this.#stopReceiving();
  }

  cannotKeep(error: Error): void {
    this.#services.log(`${this.method} ${this.path} ${this.session}:${this.stream}: ${error.message}`);
    breakOff(this.#stream, Http3Error.excessiveLoad);
  }

  /** What has no end can't be answered (RFC 9114 §4.1). A response that was handed over before goes on to its own. */
  brokenOff(): void {
    if (this.#over) this.#loseBody();
    else breakOff(this.#stream, Http3Error.requestIncomplete);
  }

  wanted(): void {
    if (fieldValue(this.fields, "expect")?.toLowerCase() !== "100-continue") return;
    // A client that has begun waits for nothing (RFC 9110 §10.1.1); what came with the head is here at the end of the turn.
    setImmediate(() => {
      if (this.headSent || (this.body instanceof QuicBody && this.body.hasBegun)) return;
      this.inform({ status: 100, fields: [] });
    });
  }

  #wasSent(): void {
    this.#sent = true;
    if (this.#stopped) this.#stopReceiving();
  }

  #stopReceiving(): void {
    if (!this.#stream.destroyed) (this.#stream as Stoppable).stopSending(BigInt(Http3Error.noError));
  }

  #sendHead(head: ResponseHead, ends: boolean): void {
    const made: QuicHead = this.#services.heads.of(head);
    if (made.priority !== null) this.#prioritize(made.priority);
    this.#stream.sendHeaders(made.headers, ends ? TERMINAL : undefined);
  }

  #prioritize({ level, incremental }: NonNullable<QuicHead["priority"]>): void {
    const asked = this.#stream.priority;
    this.#stream.setPriority({
      level: level ?? asked?.level ?? "default",
      incremental: incremental ?? asked?.incremental ?? false,
    });
  }

  /** Does what the engine may refuse by throwing, such as a second line of a field that it thinks has one. */
  #attempt(send: () => unknown): boolean {
    try {
      send();
      return true;
    } catch (error) {
      if (!this.#stream.destroyed) {
        this.#services.log(
          `${this.method} ${this.path} ${this.session}:${this.stream}: the response cannot be sent: ${(error as Error).message}`,
        );
      }
      this.#over = true;
      breakOff(this.#stream, Http3Error.internalError);
      return false;
    }
  }

  #isGone(): boolean {
    return this.aborted || this.#over || this.#stream.destroyed;
  }

  #loseBody(): void {
    if (this.body instanceof QuicBody) this.body.lost();
  }

  #closed(): void {
    this.#connection.streamClosed();
    this.#services.outbox.gone(this);
    this.#loseBody();
    if (this.#over || this.aborted) return;
    this.aborted = true;
    this.onAborted?.(this);
    this.onDrain?.();
  }
}

const TERMINAL = { terminal: true };
