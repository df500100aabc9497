/**
 * One socket between two processes of a server: what is made in one turn leaves in one write, and what arrives goes to
 * the owner piece by piece, until the peer breaks a rule. It knows sockets, and nothing of what they carry.
 */
import type { Socket } from "node:net";

/** Milliseconds for which a peer is waited for that has been told everything and does not close. */
const PEER_CLOSES_WITHIN = 5000;

export interface Closable {
  /** Told once. `error` is what broke the link: null where the peer closed it between two pieces. */
  closed(error: Error | null): void;
}

export abstract class Link {
  protected readonly socket: Socket;
  readonly #owner: Closable;
  readonly #schedule: (flush: () => void) => void;
  readonly #flush = () => this.flush();
  #scheduled = false;
  #closed = false;

  /**
   * @param schedule when a batch is written: `setImmediate` gathers what a whole turn of the event loop makes,
   * `queueMicrotask` what one read or call causes
   */
  constructor(socket: Socket, owner: Closable, schedule: (flush: () => void) => void) {
    this.socket = socket;
    this.#owner = owner;
    this.#schedule = schedule;
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    // 'close' follows; what the error was only tells how the peer went away.
    socket.on("error", (error) => this.destroy(error));
    socket.on("close", () => this.destroy(this.cutShort()));
  }

  protected get isClosed(): boolean {
    return this.#closed;
  }

  /** Has what is gathered from now on leave in time. @returns false where it was already about to */
  protected schedule(): boolean {
    if (this.#scheduled) return false;
    this.#scheduled = true;
    this.#schedule(this.#flush);
    return true;
  }

  /** Writes what was gathered; the system has it then, as far as it takes it. */
  flush(): void {
    this.#scheduled = false;
    if (!this.#closed) this.write();
  }

  /**
   * Closes when what was gathered has been handed to the system, and the owner is told. Resolves when the peer has read it and
   * closed as well: if there were no socket any more, what the peer writes meanwhile would fail, and take what it has not read.
   */
  end(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.flush();
    return new Promise((resolve) => {
      const late = setTimeout(() => this.socket.destroy(), PEER_CLOSES_WITHIN);
      this.socket.once("close", () => {
        clearTimeout(late);
        resolve();
      });
      this.socket.end(() => this.#close(null));
    });
  }

  /** Closes at once. The owner is told, with the reason. */
  destroy(error: Error | null = null): void {
    if (this.#closed) return;
    this.socket.destroy();
    this.#close(error);
  }

  #close(error: Error | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#owner.closed(error);
  }

  #read(chunk: Buffer): void {
    try {
      this.read(chunk);
    } catch (error) {
      if (!this.isViolation(error)) throw error;
      this.destroy(error);
    }
  }

  /** Writes what was gathered, if anything was. */
  protected abstract write(): void;
  /** Tells the owner of what the chunk completes. Throws where the peer broke a rule, and where the owner does. */
  protected abstract read(chunk: Buffer): void;
  protected abstract isViolation(error: unknown): error is Error;
  /** The socket closes now: an error where that is in the middle of a piece. */
  protected abstract cutShort(): Error | null;
}
