/** One socket between a client of task workers and one of them: what is said in one turn leaves in one write. */
import type { Socket } from "node:net";
import type { Parts } from "../clone/parts.ts";
import { FrameError, type FrameWriter } from "../wire/frames.ts";
import { type Closable, Link } from "../wire/link.ts";
import { type Message, MessageError, MessageReader, type MessageType, MessageWriter } from "./messages.ts";

export interface LinkOwner extends Closable {
  message(message: Message): void;
}

export class TaskLink extends Link {
  readonly #owner: LinkOwner;
  readonly #reader = new MessageReader();
  readonly #writer = new MessageWriter();

  constructor(socket: Socket, owner: LinkOwner, schedule: (flush: () => void) => void) {
    super(socket, owner, schedule);
    this.#owner = owner;
  }

  /** After the link has closed it goes nowhere. @param write the head */
  send(
    type: MessageType,
    call: number,
    write: ((head: FrameWriter) => void) | null = null,
    parts: Parts = [],
  ): void {
    if (this.isClosed) return;
    this.#writer.message(type, call, write, parts);
    this.schedule();
  }

  protected override write(): void {
    if (this.#writer.isEmpty) return;
    for (const chunk of this.#writer.take()) this.socket.write(chunk);
  }

  protected override read(chunk: Buffer): void {
    this.#reader.push(chunk, (message) => {
      if (!this.isClosed) this.#owner.message(message);
    });
  }

  protected override isViolation(error: unknown): error is MessageError | FrameError {
    return error instanceof MessageError || error instanceof FrameError;
  }

  protected override cutShort(): Error | null {
    return this.#reader.between ? null : new MessageError("the link ended inside a message");
  }
}
