/**
 * One socket between a reactor and a worker: frames made in one turn leave in one write, and frames that arrive go to
 * the channel's owner. It knows sockets and frames, and nothing of exchanges or HTTP.
 */
import type { Socket } from "node:net";
import { type Frame, FrameError, FrameReader, FrameWriter } from "./frames.ts";
import { type Closable, Link } from "./link.ts";

/** A larger batch is written at once, so that the other side can begin. Bytes. */
const BATCH_BYTES = 256 * 1024;
/** Milliseconds that a turn may take until what is complete in it leaves at once. */
const LONG_TURN = 1;
const SPARE_BUFFERS = 4;
const SPARE_BYTES = 512 * 1024;

export interface ChannelOwner extends Closable {
  frame(frame: Frame): void;
}

export class Channel extends Link {
  readonly #reader = new FrameReader();
  readonly #writer = new FrameWriter();
  readonly #spare: Buffer[] = [];
  readonly #told: (frame: Frame) => void;
  /** When something was last read, or sent in haste: `performance.now()`. */
  #movedAt = 0;

  constructor(socket: Socket, owner: ChannelOwner, schedule: (flush: () => void) => void) {
    super(socket, owner, schedule);
    this.#told = (frame) => {
      if (!this.isClosed) owner.frame(frame);
    };
  }

  /** The writer to make frames with; they leave at the next flush. After the channel has closed they go nowhere. */
  get writer(): FrameWriter {
    if (this.isClosed) this.#writer.discard();
    else if (!this.schedule() && this.#writer.length > BATCH_BYTES) this.write();
    return this.#writer;
  }

  /** Something is complete that somebody waits for: where the owner takes long for what was read together, it leaves before the rest. */
  hasten(): void {
    const at = performance.now();
    if (at - this.#movedAt < LONG_TURN) return;
    this.#movedAt = at;
    this.flush();
  }

  protected override write(): void {
    if (this.#writer.length === 0) return;
    const batch = this.#writer.take(this.#spare.pop());
    this.socket.write(batch, () => {
      const buffer = Buffer.from(batch.buffer);
      if (this.#spare.length < SPARE_BUFFERS && buffer.length <= SPARE_BYTES) this.#spare.push(buffer);
    });
  }

  protected override read(chunk: Buffer): void {
    this.#movedAt = performance.now();
    this.#reader.push(chunk, this.#told);
  }

  protected override isViolation(error: unknown): error is FrameError {
    return error instanceof FrameError;
  }

  protected override cutShort(): Error | null {
    return this.#reader.between ? null : new FrameError("the channel ended inside a frame");
  }
}
