/** The body of a response that comes piece by piece, through the writer of a stream of `node:quic`. */
import type { QuicStream } from "node:quic";
import type { Turns } from "./turns.ts";

/** Bytes of a response that the engine holds for one stream. */
const HIGH_WATER = 256 * 1024;
/**
 * Milliseconds between looks whether the engine has taken the whole of a body: each is twice the one before, since a client
 * may not read for long, and has many streams.
 */
const MIN_TAKEN_CHECK_INTERVAL = 1;
const MAX_TAKEN_CHECK_INTERVAL = 128;
/**
 * Milliseconds that the engine has to ask for trailers. For those of a response that fills its stream's window to the last
 * byte it asks when the client has read of it: all others would wait for that.
 */
const ASKED_WITHIN = 1000;
/** What `node:stream/iter` calls `ondrain`; Bun has no such module yet, and its writers have this. */
const DRAINABLE: unique symbol = Symbol.for("Stream.drainableProtocol") as never;

interface Writer {
  /** Bytes that are welcome; null where the stream takes none any more. */
  readonly desiredSize: number | null;
  writeSync(chunk: Uint8Array): boolean;
  endSync(): number;
  /** Null where there is nothing to wait for. */
  [DRAINABLE](): Promise<unknown> | null;
}

export interface ResponseOwner {
  /** Of the connection: one response's trailers are sent at a time. */
  readonly trailerTurns: Turns;
  /** A response that took no more does so again. */
  drained(): void;
  /** The last of it is with the engine. */
  finished(): void;
}

/** A response body that comes piece by piece: at most HIGH_WATER of it lies in the engine, and one piece here. */
export class StreamingResponse {
  readonly #writer: Writer;
  readonly #stream: QuicStream;
  readonly #owner: ResponseOwner;
  #queue: Uint8Array[] = [];
  #waiting = false;
  #ending = false;
  #trailers: Record<string, string | string[]> | null = null;

  constructor(stream: QuicStream, owner: ResponseOwner) {
    stream.highWaterMark = HIGH_WATER;
    this.#stream = stream;
    this.#writer = stream.writer as unknown as Writer;
    this.#owner = owner;
  }

  /** False where the next has to wait. */
  push(chunk: Uint8Array): boolean {
    this.#queue.push(chunk);
    return this.#flush();
  }

  end(trailers: Record<string, string | string[]> | null): void {
    this.#ending = true;
    this.#trailers = trailers;
    this.#flush();
  }

  /** True where more is welcome. */
  #flush(): boolean {
    if (this.#waiting) return false;
    while (this.#queue.length > 0 && this.#writer.desiredSize !== 0) {
      const chunk = this.#queue.shift() as Uint8Array;
      // Of a writer whose stream has gone nothing is wanted: that is told by the stream's end.
      if (!this.#writer.writeSync(chunk)) return true;
    }
    if (this.#ending && this.#queue.length === 0) {
      this.#finish();
      return true;
    }
    return this.#writer.desiredSize !== 0 || !this.#wait();
  }

  #finish(): void {
    const trailers = this.#trailers;
    if (trailers === null) this.#end();
    else this.#finishWith(trailers, MIN_TAKEN_CHECK_INTERVAL);
  }

  /**
   * Trailers that come while the engine waits for the congestion window with the last of the body become part of the body:
   * lsquic's DATA frame grows over them. It asks for them in the same breath where the end is known by then. Told of the
   * end when it has taken all of the body, it asks when it can send, which is enough for the rest of the body where no
   * other stream is served before.
   */
  #finishWith(trailers: Record<string, string | string[]>, interval: number): void {
    const { desiredSize } = this.#writer;
    // The stream has gone.
    if (desiredSize === null) return;
    if (desiredSize < HIGH_WATER) {
      const longer = Math.min(interval * 2, MAX_TAKEN_CHECK_INTERVAL);
      setTimeout(() => this.#finishWith(trailers, longer), interval);
      return;
    }
    const { trailerTurns } = this.#owner;
    trailerTurns.take(() => {
      if (this.#stream.destroyed) {
        trailerTurns.next();
        return;
      }
      const { promise: asked, resolve } = Promise.withResolvers<void>();
      const patience = setTimeout(resolve, ASKED_WITHIN);
      const next = () => {
        clearTimeout(patience);
        trailerTurns.next();
      };
      Promise.race([asked, this.#stream.closed]).then(next, next);
      this.#stream.onwanttrailers = () => {
        resolve();
        this.#stream.sendTrailers(trailers);
      };
      this.#stream.setPriority({ level: "high" });
      this.#end();
    });
  }

  #end(): void {
    this.#writer.endSync();
    this.#owner.finished();
  }

  /** False where there is nothing to wait for: the stream has gone, or there is room already. */
  #wait(): boolean {
    const drained = this.#writer[DRAINABLE]();
    if (drained === null) return false;
    this.#waiting = true;
    const go = () => {
      this.#waiting = false;
      if (this.#flush()) this.#owner.drained();
    };
    drained.then(go, go);
    return true;
  }
}
