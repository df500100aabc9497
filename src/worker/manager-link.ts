/** A worker's or task worker's end of the IPC channel to the manager: what both kinds ask of it, and are told. */
import type { Parts } from "../clone/parts.ts";
import {
  type FromTaskWorker,
  type FromWorker,
  type MessageSender,
  type ServerStats,
  type ToTaskWorker,
  type ToWorker,
  tellManager,
} from "../manager/messages.ts";
import { ReloadError } from "../manager/reload-error.ts";
import type { ResolvedTasks } from "../options.ts";
import type { ServerAccess } from "../server-access.ts";
import type { TableOperation, TableResult } from "../sharing/operation.ts";
import { TableError } from "../sharing/table-error.ts";
import { TaskClient } from "../tasks/client.ts";

/** Somebody has broadcast a message. */
export type MessageListener = (parts: Parts, from: MessageSender) => void;

interface AskedOperation {
  readonly operation: TableOperation;
  readonly answer: PromiseWithResolvers<unknown>;
}

export class ManagerLink<To extends ToWorker | ToTaskWorker> implements ServerAccess {
  readonly tasks: TaskClient | null;
  readonly #message: MessageListener;
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #tableCalls = new Map<number, readonly AskedOperation[]>();
  /** Of this turn of the event loop: they leave together. */
  #operations: AskedOperation[] = [];
  /** Broadcasts that the system has not taken yet. */
  readonly #sending = new Set<Promise<void>>();
  #lastCall = 0;

  /** @param tasks null where there are no task workers */
  constructor(tasks: ResolvedTasks | null, message: MessageListener, log: (line: string) => void) {
    this.tasks = tasks && new TaskClient(tasks, log);
    this.#message = message;
  }

  /**
   * Says hello to the manager, and from then on passes on what it says to this kind of process.
   * @param orphaned the manager has gone, and the process is about to
   */
  open(told: (message: To) => void, orphaned: () => void = () => {}): void {
    // The manager hears the signals; a terminal's Ctrl-C, or `systemctl kill`, reaches every process.
    process.on("SIGINT", () => {});
    process.on("SIGTERM", () => {});
    process.on("SIGHUP", () => {});
    process.on("SIGUSR1", () => {});
    process.on("SIGUSR2", () => {});
    process.on("disconnect", () => {
      // A task worker may be stuck, and the manager is no more there to end it.
      this.tasks?.killWorkers();
      orphaned();
      process.exit(1);
    });
    process.on("message", (message: To) => {
      if (!this.#told(message)) told(message);
    });
    this.send({ type: "hello" });
  }

  send(message: FromWorker | FromTaskWorker): void {
    tellManager(message);
  }

  /** The process ends: the manager is told why, for it could not start. */
  fail(reason: string): void {
    tellManager({ type: "failed", reason }, () => process.exit(1));
  }

  stats(): Promise<ServerStats> {
    return this.#ask("stats") as Promise<ServerStats>;
  }

  async reload(): Promise<void> {
    await this.#ask("reload");
  }

  broadcast(parts: Parts): void {
    const sent = Promise.withResolvers<void>();
    this.#sending.add(sent.promise);
    tellManager({ type: "broadcast", parts }, () => {
      this.#sending.delete(sent.promise);
      sent.resolve();
    });
  }

  operate(operation: TableOperation): Promise<unknown> {
    const answer = Promise.withResolvers<unknown>();
    if (this.#operations.push({ operation, answer }) === 1) setImmediate(() => this.#flush());
    return answer.promise;
  }

  /** Resolves when tasks that were handed over are in a queue, what was asked of tables is done, and what was broadcast has left. */
  async settled(): Promise<void> {
    await this.tasks?.settled();
    this.#flush();
    await Promise.all(this.#sending);
    const asked = [...this.#tableCalls.values()].flat();
    await Promise.allSettled(asked.map(({ answer }) => answer.promise));
  }

  /** @returns whether it was for either kind of process */
  #told(message: ToWorker | ToTaskWorker): boolean {
    switch (message.type) {
      case "answer":
        this.#calls.get(message.call)?.resolve(message.value);
        this.#calls.delete(message.call);
        return true;
      case "refusal":
        this.#calls.get(message.call)?.reject(new ReloadError(message.reason));
        this.#calls.delete(message.call);
        return true;
      case "taskWorkers":
        this.tasks?.employ(message.used, message.retired, message.gone);
        return true;
      case "message":
        this.#message(message.parts, message.from);
        return true;
      case "tableAnswer":
        this.#operated(message.call, message.results);
        return true;
      default:
        return false;
    }
  }

  #ask(what: "stats" | "reload"): Promise<unknown> {
    const call = ++this.#lastCall;
    const answer = Promise.withResolvers<unknown>();
    this.#calls.set(call, answer);
    this.send({ type: "ask", call, what });
    return answer.promise;
  }

  #flush(): void {
    const operations = this.#operations;
    if (operations.length === 0) return;
    this.#operations = [];
    const call = ++this.#lastCall;
    this.#tableCalls.set(call, operations);
    this.send({ type: "table", call, operations: operations.map(({ operation }) => operation) });
  }

  #operated(call: number, results: readonly TableResult[]): void {
    const operations = this.#tableCalls.get(call) ?? [];
    this.#tableCalls.delete(call);
    for (const [index, { answer }] of operations.entries()) {
      const result = results[index] as TableResult;
      if ("error" in result) answer.reject(new TableError(result.error, result.code));
      else answer.resolve(result.value);
    }
  }
}
