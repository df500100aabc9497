/**
 * Hands tasks over: keeps each until it is known what became of it, picks the task worker that has the least to do, and sends a
 * task elsewhere whose task worker went away before it began. A worker has one, and so have a task worker and the manager.
 * There is no connection before the first task.
 */
import { randomBytes } from "node:crypto";
import { decode, encode } from "../clone/clone.ts";
import { checkSize, type Parts } from "../clone/parts.ts";
import type { ResolvedTasks } from "../options.ts";
import { balance, leastBusy } from "./balance.ts";
import { Call, taskId } from "./call.ts";
import { resolveTaskOptions } from "./call-options.ts";
import { revived, TaskError, TaskLostError, TaskQueueFullError, TaskTimeoutError } from "./errors.ts";
import { MAX_TASK_BYTES, type Message, MessageError, MessageType, Refusal } from "./messages.ts";
import { type RemoteOwner, RemoteTaskWorker, type TaskWorkerAddress } from "./remote.ts";
import type { TaskOptions } from "./task.ts";

/** Tasks that one AWAITING asks about. */
const AWAITING_NUMBERS = 10_000;

export class TaskClient implements RemoteOwner {
  readonly #options: ResolvedTasks;
  readonly #isDurable: boolean;
  /** As many as all queues together take: what is more would only be refused there. */
  readonly #maxPending: number;
  readonly #log: (line: string) => void;
  readonly #id = randomBytes(6).toString("hex");
  readonly #workers = new Map<number, RemoteTaskWorker>();
  /** Whatever has not ended, by its number. */
  readonly #calls = new Map<number, Call>();
  /** Those that wait for a task worker. */
  readonly #unsent = new Set<Call>();
  #lastNumber = 0;
  /** Calls that no queue has yet. */
  #pending = 0;
  #rested: PromiseWithResolvers<void> | null = null;
  #isUsed = false;
  /** Where the next search for a task worker begins. */
  #turn = 0;

  constructor(options: ResolvedTasks, log: (line: string) => void) {
    this.#options = options;
    this.#isDurable = options.durable !== null;
    const { workers, concurrency, maxQueue } = options;
    this.#maxPending = workers * concurrency + (this.#isDurable ? 1 : workers) * maxQueue;
    this.#log = log;
  }

  /** These task workers take tasks from now on, and those no more, and those are gone, by process id. */
  employ(used: readonly TaskWorkerAddress[], retired: readonly number[], gone: readonly number[]): void {
    for (const pid of [...retired, ...gone]) {
      const worker = this.#workers.get(pid);
      if (worker !== undefined) worker.isRetired = true;
    }
    for (const pid of gone) {
      // Else it is forgotten when the last that it said has been read.
      if (this.#workers.get(pid)?.isLinked === false) this.#workers.delete(pid);
    }
    for (const address of used) {
      if (this.#workers.has(address.pid)) continue;
      const worker = new RemoteTaskWorker(address, this.#id, this);
      this.#workers.set(address.pid, worker);
      if (this.#isUsed) worker.connect();
    }
  }

  /** Resolves with the result. */
  async task(data: unknown, options?: TaskOptions): Promise<unknown> {
    return this.#hand(data, options, "task");
  }

  /** Resolves when a queue has the task. */
  async defer(data: unknown, options?: TaskOptions): Promise<void> {
    await this.#hand(data, options, "defer");
  }

  /** Resolves when every task that was handed over is in a queue. */
  settled(): Promise<void> {
    if (this.#pending === 0) return Promise.resolve();
    this.#rested ??= Promise.withResolvers();
    return this.#rested.promise;
  }

  /** Tells every task worker that something waits in the queue that they share. */
  look(): void {
    this.#use();
    for (const worker of this.#workers.values()) {
      if (worker.isGreeted && worker.address.pid !== process.pid) worker.send(MessageType.look, 0);
    }
  }

  /** Closes every link, when what was said has been handed to the system. */
  async close(): Promise<void> {
    const workers = [...this.#workers.values()];
    this.#workers.clear();
    await Promise.all(workers.map((worker) => worker.end()));
  }

  /** Ends every task worker that there is: the manager has gone, and one may be stuck. */
  killWorkers(): void {
    for (const { address } of this.#workers.values()) {
      if (address.pid === process.pid) continue;
      try {
        process.kill(address.pid, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    }
  }

  #hand(data: unknown, options: TaskOptions | undefined, name: "task" | "defer"): Promise<unknown> {
    const resolved = resolveTaskOptions(options, this.#options, name);
    const parts = encode(data, name, "data");
    checkSize(parts, MAX_TASK_BYTES, `${name}: data`);
    if (this.#pending >= this.#maxPending) {
      throw new TaskQueueFullError(
        `${name}: ${this.#pending} tasks wait for a task worker already (tasks.maxQueue)`,
      );
    }
    this.#use();
    const number = ++this.#lastNumber;
    const call = new Call(taskId(this.#id, number), number, name === "task", resolved, parts);
    this.#calls.set(call.number, call);
    this.#pending++;
    if (call.isAwaited && resolved.timeout > 0) {
      call.timer = setTimeout(() => this.#expire(call), resolved.timeout);
    }
    this.#place(call);
    return call.promise;
  }

  #use(): void {
    if (this.#isUsed) return;
    this.#isUsed = true;
    for (const worker of this.#workers.values()) worker.connect();
  }

  #place(call: Call): void {
    const worker = leastBusy([...this.#workers.values()], this.#turn++, call.fullAt);
    if (worker !== null) {
      call.stage = "sent";
      call.worker = worker;
      worker.sendTask(call);
    } else if (call.fullAt.size === 0 || call.wasAccepted || this.#awaitsHello()) this.#unsent.add(call);
    else {
      call.reject(
        new TaskQueueFullError(`${this.#options.maxQueue} tasks wait already in each queue (tasks.maxQueue)`),
      );
      this.#forget(call);
    }
  }

  /** There is a task worker that may have room and has not said hello yet. */
  #awaitsHello(): boolean {
    for (const { isGreeted, isRetired } of this.#workers.values()) if (!isGreeted && !isRetired) return true;
    return false;
  }

  greeted(worker: RemoteTaskWorker): void {
    if (this.#isDurable) this.#askWhatBecame(worker);
    this.#sendAll();
    this.#balance();
  }

  #sendAll(): void {
    for (const call of [...this.#unsent]) this.#send(call);
  }

  #send(call: Call): void {
    this.#unsent.delete(call);
    call.fullAt.clear();
    this.#place(call);
  }

  /** Of tasks whose outcome may wait in the queue: the task worker that had it to tell may have gone. */
  #askWhatBecame(worker: RemoteTaskWorker): void {
    const awaited = [...this.#calls.values()].filter(({ stage }) => stage === "accepted");
    for (let at = 0; at < awaited.length; at += AWAITING_NUMBERS) {
      worker.send(MessageType.awaiting, 0, (head) => {
        for (const { number } of awaited.slice(at, at + AWAITING_NUMBERS)) head.f64(number);
      });
    }
  }

  message(worker: RemoteTaskWorker, message: Message): void {
    const { type, head } = message;
    const call = this.#calls.get(message.call);
    switch (type) {
      case MessageType.accepted:
        worker.answered();
        worker.reports(head.u32());
        if (call?.worker === worker && call.stage === "sent") this.#accepted(call, worker);
        break;
      case MessageType.begun:
        worker.reports(head.u32());
        if (call?.worker === worker) {
          call.stage = "begun";
          call.move(null);
          worker.waiting.delete(call.number);
          if (!call.options.idempotent) call.data = null;
        }
        break;
      case MessageType.result:
      case MessageType.failed:
        worker.reports(head.u32());
        if (this.#isDurable) this.#receive(worker, message.call);
        if (call !== undefined) this.#ended(call, type === MessageType.result, message.parts);
        break;
      case MessageType.refused:
        this.#refused(call, worker, message);
        break;
      case MessageType.load:
        worker.reports(head.u32());
        break;
      case MessageType.lost:
        if (call !== undefined) this.#lose(call, "its outcome was not kept for so long");
        break;
      default:
        throw new MessageError(`a task worker sends no message of type ${type}`);
    }
    this.#balance();
    // Where something ends there is room for what came back when every queue was full.
    const [waiting] = this.#unsent;
    if (waiting !== undefined && type !== MessageType.refused) this.#send(waiting);
  }

  /** One that stays is told, since the task worker that had the outcome to tell may be about to leave. */
  #receive(worker: RemoteTaskWorker, call: number): void {
    const staying = [...this.#workers.values()].find(({ isGreeted, isRetired }) => isGreeted && !isRetired);
    (staying ?? worker).send(MessageType.received, call);
  }

  #accepted(call: Call, worker: RemoteTaskWorker): void {
    this.#leavePending(call);
    call.stage = "accepted";
    call.wasAccepted = true;
    call.fullAt.clear();
    if (!call.isAwaited) call.resolve(undefined);
    if (!this.#isDurable) {
      worker.waiting.set(call.number, call);
      return;
    }
    // Whatever becomes of the task worker, the queue has it.
    call.data = null;
    call.worker = null;
    worker.forget(call);
    if (!call.isAwaited) this.#calls.delete(call.number);
  }

  #ended(call: Call, ok: boolean, parts: Parts): void {
    this.#forget(call);
    if (!call.isAwaited) {
      call.resolve(undefined);
      return;
    }
    try {
      const value = decode(parts);
      if (ok) call.resolve(value);
      else call.reject(revived(value));
    } catch (error) {
      call.reject(error);
    }
  }

  #refused(call: Call | undefined, worker: RemoteTaskWorker, { head }: Message): void {
    const load = head.u32();
    const why = head.u8();
    if (why !== Refusal.returned) worker.answered();
    worker.reports(load);
    if (call?.worker !== worker || call.stage === "begun") return;
    if (why === Refusal.failed) {
      call.reject(new TaskError(head.rest().toString()));
      this.#forget(call);
      return;
    }
    if (why === Refusal.full) call.fullAt.add(worker);
    this.#placeAgain(call);
  }

  #placeAgain(call: Call): void {
    call.move(null);
    call.worker?.forget(call);
    call.worker = null;
    if (!call.isPending) this.#pending++;
    call.stage = "unsent";
    this.#place(call);
  }

  closed(worker: RemoteTaskWorker, error: Error | null, wasGreeted: boolean): void {
    if (error instanceof MessageError) this.#log(`the link to ${worker.name} broke: ${error.message}`);
    const calls = [...worker.calls.values()];
    worker.calls.clear();
    worker.waiting.clear();
    // One that is there all the same takes another connection; to one that has gone there is none.
    if (wasGreeted && !worker.isRetired && this.#workers.has(worker.address.pid)) worker.connect();
    else this.#workers.delete(worker.address.pid);
    for (const call of calls) this.#leftBy(worker, call);
    // Some may have waited for its hello.
    this.#sendAll();
  }

  /** A call whose task worker has gone: what has not begun there begins elsewhere. */
  #leftBy(worker: RemoteTaskWorker, call: Call): void {
    call.fullAt.delete(worker);
    if (call.stage !== "begun") {
      this.#placeAgain(call);
    } else if (call.options.idempotent && call.attempt < call.options.attempts) {
      call.attempt++;
      this.#placeAgain(call);
    } else this.#lose(call, `${worker.name} ended while it ran`);
  }

  #lose(call: Call, why: string): void {
    const error = new TaskLostError(`task ${call.id} was lost: ${why}`);
    if (call.isAwaited) call.reject(error);
    else this.#log(error.message);
    this.#forget(call);
  }

  #expire(call: Call): void {
    const { id, options } = call;
    const isKept = this.#isDurable && !call.isPending;
    const rest = isKept ? "; it is in the durable queue all the same" : "";
    call.reject(new TaskTimeoutError(`task ${id} was not done within ${options.timeout} ms${rest}`));
    if (!this.#isDurable) call.worker?.send(MessageType.cancel, call.number);
    this.#forget(call);
  }

  #forget(call: Call): void {
    if (call.timer !== null) clearTimeout(call.timer);
    this.#unsent.delete(call);
    this.#calls.delete(call.number);
    call.move(null);
    call.worker?.forget(call);
    this.#leavePending(call);
    call.stage = "begun";
    call.data = null;
  }

  #leavePending(call: Call): void {
    if (!call.isPending) return;
    this.#pending--;
    if (this.#pending > 0) return;
    this.#rested?.resolve();
    this.#rested = null;
  }

  #balance(): void {
    if (!this.#isDurable && this.#workers.size > 1)
      balance([...this.#workers.values()], this.#options.concurrency);
  }
}
