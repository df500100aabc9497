/** The body of a response that comes piece by piece, through the writer of a stream of `node:quic`. */
import type { QuicStream } from "node:quic";

/** Bytes of a response that the engine holds for one stream. */
const HIGH_WATER = 256 * 1024;
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
    if (trailers !== null) this.#stream.onwanttrailers = () => this.#stream.sendTrailers(trailers);
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
