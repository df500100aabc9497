/** A task worker's end of the link to one client: what it was told, and what it was asked. */
import type { Socket } from "node:net";
import type { Parts } from "../clone/parts.ts";
import { type LinkOwner, TaskLink } from "./link.ts";
import { type Message, MessageError, MessageType, TASK_WIRE_VERSION } from "./messages.ts";

export interface ClientLinkOwner {
  greeted(clientId: string): void;
  message(message: Message): void;
  closed(error: Error | null): void;
}

export class ClientLink {
  clientId = "";
  /** Tasks of which the client does not know yet that the queue has them. */
  readonly arriving = new Set<number>();
  /** Tasks that are in this process's memory and have not begun. */
  readonly waiting = new Set<number>();
  /** The load that the client was told last. */
  reported = 0;
  readonly #isDurable: boolean;
  readonly #link: TaskLink;
  readonly #owner: ClientLinkOwner;

  /**
   * @param isDurable what is accepted waits in a queue that outlives this process
   * @param load of now
   */
  constructor(socket: Socket, isDurable: boolean, load: number, owner: ClientLinkOwner) {
    this.#isDurable = isDurable;
    this.#owner = owner;
    const own: LinkOwner = {
      message: (message) => this.#receive(message),
      closed: (error) => owner.closed(error),
    };
    this.#link = new TaskLink(socket, own, setImmediate);
    this.reported = load;
    this.#link.send(MessageType.hello, 0, (head) => {
      head.u8(TASK_WIRE_VERSION);
      head.u32(load);
    });
  }

  /** The queue has it. */
  accept(call: number, load: number): void {
    if (!this.arriving.delete(call)) return;
    if (!this.#isDurable) this.waiting.add(call);
    this.report(MessageType.accepted, call, load);
  }

  /** It is about to run. */
  begin(call: number, load: number): void {
    this.accept(call, load);
    this.waiting.delete(call);
    this.report(MessageType.begun, call, load);
  }

  /** The system has what was said when this returns. */
  flush(): void {
    this.#link.flush();
  }

  /** Says something of a task, and how much there is to do here. */
  report(type: MessageType, call: number, load: number, parts: Parts = []): void {
    this.reported = load;
    this.#link.send(type, call, (head) => head.u32(load), parts);
  }

  /** @param why of `Refusal`; @param text for people */
  refuse(call: number, load: number, why: number, text = ""): void {
    this.reported = load;
    this.#link.send(MessageType.refused, call, (head) => {
      head.u32(load);
      head.u8(why);
      head.raw(Buffer.from(text));
    });
  }

  /** There is no such task. */
  lost(call: number): void {
    this.#link.send(MessageType.lost, call);
  }

  end(): Promise<void> {
    return this.#link.end();
  }

  #receive(message: Message): void {
    if (this.clientId !== "") {
      this.#owner.message(message);
      return;
    }
    if (message.type !== MessageType.hello) throw new MessageError("the first message is not a hello");
    const version = message.head.u8();
    if (version !== TASK_WIRE_VERSION) throw new MessageError(`the client speaks version ${version}`);
    this.clientId = message.head.text();
    this.#owner.greeted(this.clientId);
  }
}
