/**
 * Credit for the bytes of a body in one direction of one exchange. The sender spends it, the receiver returns it as
 * the bytes are consumed; so what lies between a client and a handler is bounded, whatever the body's size.
 */
import { FrameError } from "./frames.ts";

/** Bytes a sender may have under way before the first credit comes back. */
export const WINDOW_BYTES = 256 * 1024;

export class SendWindow {
  #credit = WINDOW_BYTES;

  /** Bytes that may be sent now. */
  get credit(): number {
    return this.#credit;
  }

  spend(bytes: number): void {
    this.#credit -= bytes;
  }

  /** Throws a FrameError when the peer returns more than it was sent. */
  refill(bytes: number): void {
    this.#credit += bytes;
    if (this.#credit > WINDOW_BYTES) throw new FrameError(`${bytes} bytes of credit were never spent`);
  }
}

export class ReceiveWindow {
  #open = WINDOW_BYTES;
  #consumed = 0;

  /** Throws a FrameError when the peer sends more than its credit. */
  receive(bytes: number): void {
    this.#open -= bytes;
    if (this.#open < 0) throw new FrameError(`a body overran its credit by ${-this.#open} bytes`);
  }

  /** Notes what was consumed; answers how much credit to return now: nothing, until half a window is due. */
  consume(bytes: number): number {
    this.#consumed += bytes;
    if (this.#consumed < WINDOW_BYTES / 2) return 0;
    const due = this.#consumed;
    this.#consumed = 0;
    this.#open += due;
    return due;
  }
}
