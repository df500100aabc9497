/** What processes of a server share through the manager: messages to all of them, and tables. */
import { now } from "../clock.ts";
import type { Parts } from "../clone/parts.ts";
import type { TableOperation } from "../sharing/operation.ts";
import { TableError } from "../sharing/table-error.ts";
import { TableStore } from "../sharing/table-store.ts";
import type { FromProcess, MessageSender, ToProcess } from "./messages.ts";

type SharingMessage = Extract<FromProcess, { type: "broadcast" | "table" }>;

/** A process that takes part. */
export interface Participant {
  send(message: ToProcess): void;
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
    for (const process of this.#processes()) {
      if (this.has(process)) process.send({ type: "message", from, parts });
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
