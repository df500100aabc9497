/** A task worker as its client sees it: the link to it, what it was sent, and how busy it is. */
import { connect } from "node:net";
import type { FrameWriter } from "../wire/frames.ts";
import type { Call } from "./call.ts";
import { type LinkOwner, TaskLink } from "./link.ts";
import { type Message, MessageError, MessageType, TASK_WIRE_VERSION } from "./messages.ts";

/** Where a task worker is. */
export interface TaskWorkerAddress {
  /** From 1; the same for the process that takes its place. */
  readonly id: number;
  readonly pid: number;
  /** The unix socket on which it listens. */
  readonly socket: string;
}

export interface RemoteOwner {
  /** The task worker has said hello: it takes tasks. */
  greeted(worker: RemoteTaskWorker): void;
  message(worker: RemoteTaskWorker, message: Message): void;
  /** Told once for each link. @param wasGreeted it was one; else there was nobody */
  closed(worker: RemoteTaskWorker, error: Error | null, wasGreeted: boolean): void;
}

export class RemoteTaskWorker {
  readonly address: TaskWorkerAddress;
  /** It gets no more tasks. */
  isRetired = false;
  isGreeted = false;
  /** What it has from this client and has not ended. */
  readonly calls = new Map<number, Call>();
  /** Those of them that wait there, and were not asked back. */
  readonly waiting = new Map<number, Call>();
  /** Those that were asked back from it, and those that were asked back for it. */
  readonly going = new Set<Call>();
  readonly coming = new Set<Call>();
  /** Tasks that it last said to have, and those that it was sent since. */
  load = 0;
  readonly #clientId: string;
  readonly #owner: RemoteOwner;
  /** Sent, and not answered. */
  #unanswered = 0;
  #link: TaskLink | null = null;

  constructor(address: TaskWorkerAddress, clientId: string, owner: RemoteOwner) {
    this.address = address;
    this.#clientId = clientId;
    this.#owner = owner;
  }

  get isLinked(): boolean {
    return this.#link !== null;
  }

  /** What it has when all that was asked back has come. */
  get expectedLoad(): number {
    return this.load - this.going.size + this.coming.size;
  }

  /** For people. */
  get name(): string {
    return `task worker ${this.address.id} (${this.address.pid})`;
  }

  connect(): void {
    const socket = connect(this.address.socket);
    const owner: LinkOwner = {
      message: (message) => this.#receive(message),
      closed: (error) => {
        const wasGreeted = this.isGreeted;
        this.isGreeted = false;
        this.#link = null;
        this.load = 0;
        this.#unanswered = 0;
        this.#owner.closed(this, error, wasGreeted);
      },
    };
    const link = new TaskLink(socket, owner, queueMicrotask);
    this.#link = link;
    link.send(MessageType.hello, 0, (head) => {
      head.u8(TASK_WIRE_VERSION);
      head.text(this.#clientId);
    });
  }

  sendTask(call: Call): void {
    const { number, isAwaited, options, attempt, data } = call;
    this.calls.set(number, call);
    this.#unanswered++;
    this.load++;
    this.#link?.send(
      MessageType.task,
      number,
      (head) => {
        head.u8(isAwaited ? 1 : 0);
        head.u32(options.timeout);
        head.u16(attempt);
        head.u16(options.attempts);
      },
      data ?? [],
    );
  }

  send(type: MessageType, call: number, write: ((head: FrameWriter) => void) | null = null): void {
    this.#link?.send(type, call, write);
  }

  /** It has given its first answer to a task that it was sent. */
  answered(): void {
    this.#unanswered--;
  }

  /** @param load as it says */
  reports(load: number): void {
    this.load = load + this.#unanswered;
  }

  forget(call: Call): void {
    this.calls.delete(call.number);
    this.waiting.delete(call.number);
  }

  end(): Promise<void> {
    return this.#link?.end() ?? Promise.resolve();
  }

  #receive(message: Message): void {
    if (this.isGreeted) {
      this.#owner.message(this, message);
      return;
    }
    if (message.type !== MessageType.hello) throw new MessageError("the first message is not a hello");
    const version = message.head.u8();
    if (version !== TASK_WIRE_VERSION) throw new MessageError(`the task worker speaks version ${version}`);
    this.load = message.head.u32();
    this.isGreeted = true;
    this.#owner.greeted(this);
  }
}
