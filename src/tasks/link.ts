/** One socket between a client of task workers and one of them: what is said in one turn leaves in one write. */
import type { Socket } from "node:net";
import type { Parts } from "../clone/parts.ts";
import { FrameError, type FrameWriter } from "../wire/frames.ts";
import { type Message, MessageError, MessageReader, type MessageType, MessageWriter } from "./messages.ts";

export interface LinkOwner {
  message(message: Message): void;
  /** Told once. @param error what broke the link; null where the peer closed it between two messages */
  closed(error: Error | null): void;
}

export class TaskLink {
  readonly #socket: Socket;
  readonly #owner: LinkOwner;
  readonly #schedule: (flush: () => void) => void;
  readonly #reader = new MessageReader();
  readonly #writer = new MessageWriter();
  readonly #flush = () => this.flush();
  #scheduled = false;
  #closed = false;

  /**
   * @param schedule when a batch is written: `setImmediate` gathers what a whole turn of the event loop makes,
   * `queueMicrotask` what one call causes
   */
  constructor(socket: Socket, owner: LinkOwner, schedule: (flush: () => void) => void) {
    this.#socket = socket;
    this.#owner = owner;
    this.#schedule = schedule;
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    // 'close' follows; what the error was only tells how the peer went away.
    socket.on("error", (error) => this.destroy(error));
    socket.on("close", () => {
      this.destroy(this.#reader.between ? null : new MessageError("the link ended inside a message"));
    });
  }

  /** After the link has closed it goes nowhere. @param write the head */
  send(
    type: MessageType,
    call: number,
    write: ((head: FrameWriter) => void) | null = null,
    parts: Parts = [],
  ): void {
    if (this.#closed) return;
    this.#writer.message(type, call, write, parts);
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#schedule(this.#flush);
  }

  /** Writes what was gathered; the system has it then, as far as it takes it. */
  flush(): void {
    this.#scheduled = false;
    if (this.#closed || this.#writer.isEmpty) return;
    for (const chunk of this.#writer.take()) this.#socket.write(chunk);
  }

  /** Closes when what was gathered has been handed to the system, and resolves then. */
  end(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.flush();
    return new Promise((resolve) => {
      this.#socket.once("close", () => resolve());
      this.#socket.end(() => this.destroy());
    });
  }

  destroy(error: Error | null = null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.destroy();
    this.#owner.closed(error);
  }

  #read(chunk: Buffer): void {
    try {
      this.#reader.push(chunk, (message) => {
        if (!this.#closed) this.#owner.message(message);
      });
    } catch (error) {
      if (!(error instanceof MessageError || error instanceof FrameError)) throw error;
      this.destroy(error);
    }
  }
}
