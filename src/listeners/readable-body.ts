/** A request's body over a `node:stream`: no more of it is taken than is read, so that the rest stays with the client. */
import type { Readable } from "node:stream";
import { BodyLostError, type Fields, type RequestBody } from "../exchange.ts";
import { collect } from "../http/body.ts";

/** Bytes that wait to be read before the client is held back. */
const HIGH_WATER = 128 * 1024;

/** What has to stop and go on for the body to do so: the stream itself, or its socket. */
export interface Flow {
  pause(): unknown;
  resume(): unknown;
}

export class ReadableBody implements RequestBody {
  readonly length: number | undefined;
  trailers: Fields = [];
  readonly #flow: Flow;
  readonly #readTrailers: () => Fields;
  #queue: Uint8Array[] = [];
  #waiting = 0;
  #paused = false;
  #wake: (() => void) | null = null;
  #state: "open" | "ended" | "cancelled" = "open";
  #error: Error | null = null;

  /** @param trailers read when the stream has ended */
  constructor(stream: Readable, length: number | undefined, flow: Flow, trailers: () => Fields) {
    this.length = length;
    this.#flow = flow;
    this.#readTrailers = trailers;
    stream.on("data", (chunk: Buffer) => this.#take(chunk));
    stream.on("end", () => {
      this.#state = "ended";
      this.trailers = this.#readTrailers();
      this.#notify();
    });
    stream.on("error", (error) => this.#fail(error));
    stream.on("close", () => this.#fail());
  }

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      const chunk = this.#queue.shift();
      if (chunk !== undefined) {
        this.#waiting -= chunk.length;
        if (this.#paused && this.#waiting < HIGH_WATER / 2) this.#resume();
        return chunk;
      }
      if (this.#state !== "open") return null;
      if (this.#error !== null) throw this.#error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  readAll(): Promise<Uint8Array> {
    return collect(this);
  }

  cancel(): void {
    this.#state = "cancelled";
    this.#queue = [];
    this.#resume();
    this.#notify();
  }

  #take(chunk: Buffer): void {
    if (this.#state === "cancelled") return;
    this.#queue.push(chunk);
    this.#waiting += chunk.length;
    if (this.#waiting >= HIGH_WATER) {
      this.#paused = true;
      // Each time: where it is the socket, Bun lets that go on when the request begins to flow, which may be after this.
      this.#flow.pause();
    }
    this.#notify();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#flow.resume();
  }

  #fail(cause?: Error): void {
    this.#error ??= new BodyLostError("the client went away", { cause });
    this.#notify();
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = null;
  }
}
