/** A request's body over a `node:stream`: pulled chunk by chunk, so that what is not read stays with the client. */
import type { Readable } from "node:stream";
import { BodyLostError, type RequestBody } from "../exchange.ts";
import { collect } from "../http/body.ts";

export class ReadableBody implements RequestBody {
  readonly length: number | undefined;
  readonly #stream: Readable;
  #wake: (() => void) | null = null;
  #ended = false;
  #error: Error | null = null;

  constructor(stream: Readable, length: number | undefined) {
    this.#stream = stream;
    this.length = length;
    stream.on("readable", () => this.#notify());
    stream.on("end", () => {
      this.#ended = true;
      this.#notify();
    });
    stream.on("error", (error) => this.#fail(new BodyLostError("the client went away", { cause: error })));
    stream.on("close", () => this.#fail(new BodyLostError("the client went away")));
  }

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      const chunk: Buffer | null = this.#stream.read();
      if (chunk !== null) return chunk;
      if (this.#ended) return null;
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
    this.#stream.removeAllListeners("readable");
    this.#stream.resume();
  }

  #fail(error: Error): void {
    if (!this.#ended) this.#error ??= error;
    this.#notify();
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = null;
  }
}
