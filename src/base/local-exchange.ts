/** An exchange whose client's socket is in this very process: the handler answers through the listener's own sink. */
import {
  BodyLostError,
  type Exchange,
  type Fields,
  type FileBody,
  type RequestBody,
  type RequestHead,
  type ResponseHead,
} from "../exchange.ts";
import type { FileOwner } from "../files/file-answers.ts";
import { collect } from "../http/body.ts";
import type { FlightState } from "../reactor/flight.ts";
import { WINDOW_BYTES } from "../wire/window.ts";
import { HandlerExchange } from "../worker/handler-exchange.ts";

/** Bytes of a body that are taken though nobody reads them: as many as would be on their way to a worker. */
const DISCARDED_BYTES = WINDOW_BYTES;
/** The same in milliseconds: one that never ends would keep its stream open. */
const DISCARDED_FOR = 1000;

export interface LocalOwner {
  /** Bytes of a request's body. */
  readonly maxBodyBytes: number;
  /** The response is a file's: the handler is done with the exchange. */
  sendFile(exchange: LocalExchange, head: ResponseHead, body: FileBody): void;
  /** The last of the response was handed over. */
  completed(exchange: LocalExchange): void;
  /** The handler gave the exchange up. */
  broken(exchange: LocalExchange, reason: string): void;
  /** The request is not what it promised to be. */
  fail(exchange: LocalExchange, status: 400 | 413, reason: string): void;
}

export class LocalExchange extends HandlerExchange implements FileOwner {
  /** The listener's. */
  readonly exchange: Exchange;
  readonly body: LocalBody | null;
  /** Nothing more is owed to the client. */
  over = false;
  /** It is in its owner's registry. */
  isRegistered = false;
  /** The handler has it. */
  isRunning = false;
  readonly #owner: LocalOwner;
  /** The handler has nothing more to say. */
  #answered = false;

  /** @param head the exchange's own, or what trusted proxies make of it */
  constructor(exchange: Exchange, head: RequestHead, owner: LocalOwner) {
    super(exchange.id, head);
    this.exchange = exchange;
    this.#owner = owner;
    this.body = exchange.body === null ? null : new LocalBody(exchange.body, this, owner);
  }

  get state(): FlightState {
    if (this.headSent) return "responding";
    return this.isRunning ? "dispatched" : "queued";
  }

  responding(): void {
    this.headSent = true;
  }

  respond(head: ResponseHead, body: Uint8Array | string | null): void {
    if (this.#answered) return;
    this.headSent = true;
    this.exchange.sink.respond(head, body);
    this.#complete();
  }

  inform(head: ResponseHead): boolean {
    return !this.#answered && this.sendsInterim && this.exchange.sink.inform(head);
  }

  /** Resolves at once: from there on the response is its owner's. */
  file(head: ResponseHead, body: FileBody): Promise<void> {
    if (!this.#answered) {
      this.#answer();
      this.#owner.sendFile(this, head, body);
    }
    return Promise.resolve();
  }

  head(head: ResponseHead): void {
    if (this.#answered) return;
    this.headSent = true;
    const { sink } = this.exchange;
    sink.onDrain = () => this.drained();
    sink.head(head);
  }

  data(chunk: Uint8Array): boolean {
    return this.#answered || chunk.length === 0 || this.exchange.sink.data(chunk);
  }

  end(trailers: Fields | null): void {
    if (this.#answered) return;
    this.exchange.sink.end(trailers);
    this.#complete();
  }

  abort(reason: string): void {
    if (this.#answered) return;
    this.exchange.sink.abort(reason);
    this.#answer();
    this.#owner.broken(this, reason);
  }

  /** The client has gone, or the owner has ended the exchange. */
  abandon(reason: string): void {
    // What becomes of a file is no concern of the handler's any more.
    if (this.#answered) return;
    this.aborted = true;
    this.body?.fail(reason);
    this.#answer();
    const { onDrain } = this;
    this.onAborted?.(this);
    onDrain?.();
  }

  #complete(): void {
    this.#answer();
    this.#owner.completed(this);
  }

  #answer(): void {
    if (this.#answered) return;
    this.#answered = true;
    this.body?.cancel();
    this.onOver?.();
  }
}

/** A request's body, held to its limit and to its length. */
class LocalBody implements RequestBody {
  readonly #body: RequestBody;
  readonly #exchange: LocalExchange;
  readonly #owner: LocalOwner;
  #total = 0;
  #hasEnded = false;
  #failure: Error | null = null;
  /** The read that is under way, and what ends the wait for it. */
  #reading: Promise<unknown> | null = null;
  #waiting: ((failure: Error) => void) | null = null;
  /** Once, whoever cancels: there is one read at a time. */
  #discarding: Promise<void> | null = null;

  constructor(body: RequestBody, exchange: LocalExchange, owner: LocalOwner) {
    this.#body = body;
    this.#exchange = exchange;
    this.#owner = owner;
  }

  get length(): number | undefined {
    return this.#body.length;
  }

  get trailers(): Fields {
    return this.#body.trailers;
  }

  read(): Promise<Uint8Array | null> {
    // Whoever has read all of it is at its end, though the exchange be over.
    if (this.#failure !== null && (this.#hasEnded || this.#total === this.length))
      return Promise.resolve(null);
    return this.#unlessFailed(
      () => this.#body.read(),
      (chunk) => {
        if (chunk !== null) this.#count(chunk.length);
        else {
          this.#checkLength();
          this.#hasEnded = true;
        }
        return chunk;
      },
    );
  }

  readAll(): Promise<Uint8Array> {
    // Of unknown length it may be over the limit, which the engine does not know.
    if (this.length === undefined) return collect(this);
    return this.#unlessFailed(
      () => this.#body.readAll(),
      (bytes) => {
        this.#count(bytes.length);
        this.#checkLength();
        return bytes;
      },
    );
  }

  cancel(): void {
    this.fail("the exchange is over");
    this.#discarding ??= this.#discard();
  }

  fail(reason: string): void {
    this.#failure ??= new BodyLostError(reason);
    this.#waiting?.(this.#failure);
  }

  /** What was read; or the failure of the body, as soon as there is one. */
  async #unlessFailed<Read>(start: () => Promise<Read>, take: (read: Read) => Read): Promise<Read> {
    if (this.#failure !== null) throw this.#failure;
    const read = start();
    this.#reading = read;
    const value = await new Promise<Read>((resolve, reject) => {
      this.#waiting = reject;
      read.then(resolve, reject);
    });
    this.#reading = null;
    this.#waiting = null;
    return take(value);
  }

  /** What is on its way is taken: a client that is told to stop may not look at the answer. */
  async #discard(): Promise<void> {
    const patience = setTimeout(() => this.#body.cancel(), DISCARDED_FOR);
    try {
      // The handler's last may be under way.
      await this.#reading;
      for (let left = DISCARDED_BYTES; left > 0; ) {
        const chunk = await this.#body.read();
        if (chunk === null) return;
        left -= chunk.length;
      }
      this.#body.cancel();
    } catch {
      // The client has gone, and nothing of the body is left to take.
    } finally {
      clearTimeout(patience);
    }
  }

  #count(bytes: number): void {
    this.#total += bytes;
    if (this.#total <= this.#owner.maxBodyBytes) return;
    this.#reject(413, `the body is over ${this.#owner.maxBodyBytes} bytes`);
  }

  #checkLength(): void {
    const { length } = this;
    if (length === undefined || this.#total === length) return;
    this.#reject(400, `the body has ${this.#total} bytes, not ${length}`);
  }

  #reject(status: 400 | 413, reason: string): never {
    this.#owner.fail(this.#exchange, status, reason);
    throw new BodyLostError(reason);
  }
}
