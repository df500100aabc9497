/** What processes of a server share through the manager: messages to all of them, and tables. */
import { now } from "../clock.ts";
import { type Parts, sizeOf } from "../clone/parts.ts";
import type { TableOperation } from "../sharing/operation.ts";
import { TableError } from "../sharing/table-error.ts";
import { TableStore } from "../sharing/table-store.ts";
import type { FromProcess, MessageSender, ToProcess } from "./messages.ts";

type SharingMessage = Extract<FromProcess, { type: "broadcast" | "table" }>;

/** Bytes that a message takes in the manager beside its own, as long as it is not sent: measured. */
const MESSAGE_OVERHEAD = 512;
/** Bytes of messages that may wait in the manager for a process that takes none of them for so many milliseconds. */
const MAX_WAITING_BYTES = 64 * 1024 * 1024;
const SILENT_FOR = 1000;

/** A process that takes part. */
export interface Participant {
  /** @param bytes of a message that may be large */
  send(message: ToProcess, bytes?: number): void;
}

/** Why a process that does not answer is to be ended though it may take its time; null where it is not. */
export function floodOf(process: { waitingFor(milliseconds: number): number }): string | null {
  const bytes = process.waitingFor(SILENT_FOR);
  return bytes > MAX_WAITING_BYTES
    ? `has stopped answering, and ${bytes} bytes of messages wait for it`
    : null;
}

export class Sharing {
  readonly #store = new TableStore();
  readonly #processes: () => readonly Participant[];
  /** Those that listen. */
  readonly #participants = new WeakSet<Participant>();

  /** @param processes that have not ended */
  constructor(processes: () => readonly Participant[]) {
    this.#processes = processes;
  }

  /** The process has said hello. */
  join(participant: Participant): void {
    this.#participants.add(participant);
  }

  has(participant: Participant): boolean {
    return this.#participants.has(participant);
  }

  broadcast(parts: Parts, from: MessageSender): void {
    const bytes = sizeOf(parts) + MESSAGE_OVERHEAD;
    for (const process of this.#processes()) {
      if (this.has(process)) process.send({ type: "message", from, parts }, bytes);
    }
  }

  /** The manager's own operations. @throws TableError (as a rejection) */
  async operate(operation: TableOperation): Promise<unknown> {
    const result = this.#store.run(operation, now());
    if ("error" in result) throw new TableError(result.error, result.code);
    return result.value;
  }

  heard(participant: Participant, from: MessageSender, message: SharingMessage): void {
    if (message.type === "broadcast") {
      this.broadcast(message.parts, from);
      return;
    }
    const at = now();
    const results = message.operations.map((operation) => this.#store.run(operation, at));
    participant.send({ type: "tableAnswer", call: message.call, results });
  }
}
