/**
 * One socket between a reactor and a worker: frames made in one turn leave in one write, and frames that arrive go to
 * the channel's owner. It knows sockets and frames, and nothing of exchanges or HTTP.
 */
import type { Socket } from "node:net";
import { type Frame, FrameError, FrameReader, FrameWriter } from "./frames.ts";

/** A larger batch is written at once, so that the other side can begin. Bytes. */
const BATCH_BYTES = 256 * 1024;
const SPARE_BUFFERS = 4;
const SPARE_BYTES = 512 * 1024;

export interface ChannelOwner {
  frame(frame: Frame): void;
  /** Told once. `error` is what broke the channel: null where the peer closed it between two frames. */
  closed(error: Error | null): void;
}

export class Channel {
  readonly #socket: Socket;
  readonly #owner: ChannelOwner;
  readonly #schedule: (flush: () => void) => void;
  readonly #reader = new FrameReader();
  readonly #writer = new FrameWriter();
  readonly #spare: Buffer[] = [];
  readonly #flush = () => this.flush();
  #scheduled = false;
  #closed = false;

  /**
   * @param schedule when a batch is written: `setImmediate` gathers what a whole turn of the event loop makes,
   * `queueMicrotask` what one read causes.
   */
  constructor(socket: Socket, owner: ChannelOwner, schedule: (flush: () => void) => void) {
    this.#socket = socket;
    this.#owner = owner;
    this.#schedule = schedule;
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    // 'close' follows; what the error was only tells how the peer went away.
    socket.on("error", (error) => this.destroy(error));
    socket.on("close", () => {
      this.destroy(this.#reader.between ? null : new FrameError("the channel ended inside a frame"));
    });
  }

  /** The writer to make frames with; they leave at the next flush. After the channel has closed they go nowhere. */
  get writer(): FrameWriter {
    if (this.#closed) {
      this.#writer.discard();
    } else if (!this.#scheduled) {
      this.#scheduled = true;
      this.#schedule(this.#flush);
    } else if (this.#writer.length > BATCH_BYTES) {
      this.#write();
    }
    return this.#writer;
  }

  /** Writes what was gathered. */
  flush(): void {
    this.#scheduled = false;
    this.#write();
  }

  #write(): void {
    if (this.#writer.length === 0 || this.#closed) return;
    const batch = this.#writer.take(this.#spare.pop());
    this.#socket.write(batch, () => {
      const buffer = Buffer.from(batch.buffer);
      if (this.#spare.length < SPARE_BUFFERS && buffer.length <= SPARE_BYTES) this.#spare.push(buffer);
    });
  }

  /** Closes when what was gathered has been handed to the system, and resolves then. The owner is told. */
  end(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.flush();
    return new Promise((resolve) => {
      this.#socket.once("close", () => resolve());
      this.#socket.end(() => this.destroy());
    });
  }

  /** Closes at once. The owner is told, with the reason. */
  destroy(error: Error | null = null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.destroy();
    this.#owner.closed(error);
  }

  #read(chunk: Buffer): void {
    try {
      this.#reader.push(chunk, (frame) => {
        if (!this.#closed) this.#owner.frame(frame);
      });
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.destroy(error);
    }
  }
}
