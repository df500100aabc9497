/** What the clients built on Node's streams have in common: sending a body, and reading one piece by piece. */
import type { Readable, Writable } from "node:stream";
import { CancelledError, chunksOf, type RequestContent } from "./client.ts";

/** Bytes read ahead of whoever consumes a response. */
const READ_AHEAD = 65_536;

/** Resolves when the stream takes more, or never will. */
function roomIn(stream: Writable): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const go = () => {
    stream.off("drain", go).off("close", go).off("error", go);
    resolve();
  };
  stream.on("drain", go).on("close", go).on("error", go);
  return promise;
}

/**
 * Writes the whole content, at the pace of the stream; `allowance` may hold a piece of so many bytes back. A stream
 * that closes meanwhile ends it: whether that was an error is for the reader of the response to say.
 */
export async function upload(
  stream: Writable,
  content: RequestContent,
  allowance: (bytes: number) => Promise<void> = async () => {},
): Promise<void> {
  try {
    for await (const chunk of chunksOf(content)) {
      await allowance(chunk.length);
      if (stream.destroyed) return;
      if (!stream.write(chunk)) await roomIn(stream);
      if (stream.destroyed) return;
    }
    stream.end();
  } catch (error) {
    stream.destroy(error instanceof Error ? error : new Error(String(error)));
  }
}

/**
 * A response body as it comes, held back while nobody asks for it. Node's own async iterator would do, but in Bun it
 * takes an HTTP/2 stream that ended before the first read for one that was cut short.
 */
export class IncomingBody {
  readonly #stream: Readable;
  readonly #signal: AbortSignal | undefined;
  readonly #chunks: Uint8Array[] = [];
  #buffered = 0;
  #state: "open" | "ended" | Error = "open";
  #changed = Promise.withResolvers<void>();

  constructor(stream: Readable, signal: AbortSignal | undefined) {
    this.#stream = stream;
    this.#signal = signal;
    stream.on("data", (chunk: Uint8Array) => {
      this.#chunks.push(chunk);
      this.#buffered += chunk.length;
      if (this.#buffered >= READ_AHEAD) stream.pause();
      this.#tell();
    });
    stream.on("end", () => this.#settle("ended"));
    stream.on("error", (error: Error) => this.#settle(error));
    stream.on("aborted", () => this.#settle(new Error("the response was cut short")));
    stream.on("close", () => this.#settle(new Error("closed before the end of the response")));
  }

  #settle(state: "ended" | Error): void {
    if (this.#state === "open") this.#state = state;
    this.#tell();
  }

  #tell(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  async *chunks(): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      if (this.#signal?.aborted) throw new CancelledError();
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#buffered -= chunk.length;
        yield chunk;
      } else if (this.#state === "ended") {
        return;
      } else if (this.#state !== "open") {
        throw this.#state;
      } else {
        this.#stream.resume();
        await this.#changed.promise;
      }
    }
  }
}
