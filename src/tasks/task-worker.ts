/** A task worker's loop: takes tasks from its clients' links into its queue, runs the handler, and tells how it ended. */
import type { Socket } from "node:net";
import { decode, encode, encodeError } from "../clone/clone.ts";
import { checkSize, type Parts } from "../clone/parts.ts";
import { describe } from "../log.ts";
import type { ResolvedTasks } from "../options.ts";
import { originOf, taskId } from "./call.ts";
import { ClientLink } from "./client-link.ts";
import type { Deadline } from "./deadline.ts";
import { TaskQueueFullError, TaskTimeoutError } from "./errors.ts";
import { MAX_TASK_BYTES, type Message, MessageError, MessageType, Refusal } from "./messages.ts";
import type { Outcome, QueuedTask, TaskQueue } from "./queue.ts";
import type { Task } from "./task.ts";

/** Milliseconds: the longest wait before another attempt. */
const MAX_BACKOFF = 3_600_000;
/** By so much of itself a wait is longer or shorter, so that what failed together is not tried together. */
const BACKOFF_JITTER = 0.2;

/** Runs a task; all but the server is filled in. */
export type TaskRunner = (data: unknown, task: Omit<Task, "server">) => unknown;

export interface TaskWorkerEvents {
  /** It has run so many tasks as it was told to; it goes on. */
  spent(): void;
  /** It was told to retire, and has nothing left. */
  rested(): void;
  /** Something waits in the queue that this process has no room for: others may have. */
  look(): void;
  log(line: string): void;
}

/** A task that runs. */
interface Run {
  readonly task: QueuedTask;
  readonly abort: AbortController;
  readonly timer: NodeJS.Timeout | null;
}

export class TaskWorker {
  readonly #queue: TaskQueue;
  readonly #run: TaskRunner;
  readonly #options: ResolvedTasks;
  readonly #maxTasks: number;
  readonly #deadline: Deadline | null;
  readonly #events: TaskWorkerEvents;
  readonly #links = new Map<string, ClientLink>();
  readonly #running = new Map<string, Run>();
  /** Tasks that have ended, and the queue has not been told yet. */
  #ending = 0;
  /** Room for tasks that are being claimed. */
  #reserved = 0;
  #claimsAgain = false;
  #tasks = 0;
  #isLooking = false;
  #isRetiring = false;
  #hasRested = false;

  /**
   * @param maxTasks after which `spent` is told; 0 for never
   * @param deadline where it is noted until when the process may be silent
   */
  constructor(
    queue: TaskQueue,
    run: TaskRunner,
    options: ResolvedTasks,
    maxTasks: number,
    deadline: Deadline | null,
    events: TaskWorkerEvents,
  ) {
    this.#queue = queue;
    this.#run = run;
    this.#options = options;
    this.#maxTasks = maxTasks;
    this.#deadline = deadline;
    this.#events = events;
  }

  attach(socket: Socket): void {
    const link: ClientLink = new ClientLink(socket, this.#queue.isDurable, this.#load, {
      greeted: (clientId) => this.#links.set(clientId, link),
      message: (message) => this.#receive(link, message),
      closed: (error) => {
        if (this.#links.get(link.clientId) === link) this.#links.delete(link.clientId);
        if (error instanceof MessageError) this.#events.log(`the link to a client broke: ${error.message}`);
      },
    });
  }

  /** Tasks that run here, those that wait, and those that were begun since the process started. */
  counts(): { inFlight: number; queued: number; tasks: number } {
    return { inFlight: this.#running.size, queued: this.#queue.waiting, tasks: this.#tasks };
  }

  /** Claims what it has room for. @param most that may be claimed now */
  async claim(most = Number.POSITIVE_INFINITY): Promise<void> {
    // What a durable queue has is for those that take this one's place; what is in memory only this process can run.
    if (this.#isRetiring && this.#queue.isDurable) return;
    const room = Math.min(most, this.#options.concurrency - this.#running.size - this.#reserved);
    if (room <= 0) {
      this.#claimsAgain = this.#reserved > 0;
      return;
    }
    this.#reserved += room;
    const tasks = await this.#queue.claim(room);
    this.#reserved -= room;
    for (const task of tasks) this.#begin(task);
    const claimsAgain = this.#claimsAgain;
    this.#claimsAgain = false;
    if (claimsAgain) void this.claim();
    this.#checkRest();
  }

  /**
   * Takes no more tasks, and finishes what it has; `rested` is told when that is done.
   * @param givesBack there are others, to which clients can send what waits here
   */
  async retire(givesBack: boolean): Promise<void> {
    this.#isRetiring = true;
    if (givesBack && !this.#queue.isDurable) {
      for (const link of this.#links.values()) {
        for (const call of [...link.waiting]) await this.#giveBack(link, call);
      }
    }
    this.#checkRest();
  }

  /** The queue says how a task has ended that was not run here. */
  ended(id: string, outcome: Outcome): void {
    this.#tell(id, outcome);
  }

  /** The queue keeps outcomes that may be for clients that are here. */
  untold(ids: readonly string[]): void {
    for (const [clientId, link] of this.#links) {
      const own = ids.filter((id) => originOf(id).clientId === clientId);
      if (own.length > 0) void this.#tellStandings(link, own);
    }
  }

  /** The system has what was said to clients when this returns. */
  flush(): void {
    for (const link of this.#links.values()) link.flush();
  }

  async close(): Promise<void> {
    await this.#queue.close();
    await Promise.all([...this.#links.values()].map((link) => link.end()));
  }

  get #load(): number {
    return this.#running.size + (this.#queue.isDurable ? 0 : this.#queue.waiting);
  }

  #receive(link: ClientLink, message: Message): void {
    const { type, call, head } = message;
    switch (type) {
      case MessageType.task:
        void this.#add(link, message);
        return;
      case MessageType.cancel:
        this.#cancel(link, call);
        return;
      case MessageType.recall:
        void this.#giveBack(link, call);
        return;
      case MessageType.awaiting: {
        const ids: string[] = [];
        while (head.left > 0) ids.push(taskId(link.clientId, head.f64()));
        void this.#tellStandings(link, ids);
        return;
      }
      case MessageType.received:
        void this.#queue.received(taskId(link.clientId, call));
        return;
      case MessageType.look:
        this.#queue.look();
        return;
      default:
        throw new MessageError(`a client sends no message of type ${type}`);
    }
  }

  async #add(link: ClientLink, { call, head, parts }: Message): Promise<void> {
    const task: QueuedTask = {
      id: taskId(link.clientId, call),
      isAwaited: head.u8() === 1,
      timeout: head.u32(),
      attempt: head.u16(),
      attempts: head.u16(),
      data: parts,
    };
    if (this.#isRetiring) {
      link.refuse(call, this.#load, Refusal.retired);
      return;
    }
    link.arriving.add(call);
    try {
      const added = this.#queue.add(task);
      void this.claim(this.#queue.isDurable ? Number.POSITIVE_INFINITY : 1);
      await added;
    } catch (error) {
      link.arriving.delete(call);
      const why = error instanceof TaskQueueFullError ? Refusal.full : Refusal.failed;
      link.refuse(call, this.#load, why, (error as Error).message);
      return;
    }
    link.accept(call, this.#load);
    if (this.#queue.isDurable && this.#running.size >= this.#options.concurrency) this.#haveOthersLook();
  }

  #haveOthersLook(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    setImmediate(() => {
      this.#isLooking = false;
      this.#events.look();
    });
  }

  #begin(task: QueuedTask): void {
    const { id, timeout, attempt, attempts } = task;
    const abort = new AbortController();
    const timer = timeout === 0 ? null : setTimeout(() => this.#expire(run), timeout);
    const run: Run = { task, abort, timer };
    this.#running.set(id, run);
    this.#deadline?.begin(timeout);
    this.#tasks++;
    if (!this.#queue.isDurable) {
      const { clientId, number } = originOf(id);
      this.#links.get(clientId)?.begin(number, this.#load);
    }
    // Before the handler can do anything to this process: that this task has begun is known, and how others have ended.
    this.flush();
    void this.#work(run, { id, attempt, attempts, signal: abort.signal });
    if (this.#tasks === this.#maxTasks) this.#events.spent();
  }

  async #work(run: Run, task: Omit<Task, "server">): Promise<void> {
    try {
      const result = await this.#run(decode(run.task.data), task);
      await this.#end(run, true, () => this.#resultOf(run.task, result));
    } catch (error) {
      await this.#end(run, false, () => encodeError(error), error);
    }
  }

  #resultOf({ isAwaited }: QueuedTask, result: unknown): Parts {
    if (!isAwaited) return [];
    const parts = encode(result, "task", "result");
    checkSize(parts, MAX_TASK_BYTES, "task: result");
    return parts;
  }

  /** Nobody awaits it any more. */
  #cancel(link: ClientLink, call: number): void {
    const id = taskId(link.clientId, call);
    const run = this.#running.get(id);
    link.waiting.delete(call);
    if (run !== undefined) this.#expire(run);
    else void this.#queue.withdraw(id);
  }

  #expire(run: Run): void {
    const { id, timeout } = run.task;
    const error = new TaskTimeoutError(`task ${id} was not done within ${timeout} ms`);
    run.abort.abort(error);
    void this.#end(run, false, () => encodeError(error), error);
  }

  /**
   * A run is over; what its handler does after its time is its own affair.
   * @param make makes the result or the error; what it throws is the error
   */
  async #end(run: Run, ok: boolean, make: () => Parts, error: unknown = null): Promise<void> {
    const { task, timer } = run;
    if (this.#running.get(task.id) !== run) return;
    const value = make();
    this.#running.delete(task.id);
    if (timer !== null) clearTimeout(timer);
    this.#deadline?.end(task.timeout);
    this.#ending++;
    const told = this.#queue.isDurable ? this.#endDurably(task, { ok, value }, error) : null;
    if (told === null) this.#endInMemory(task, { ok, value }, error);
    void this.claim();
    await told;
    this.#ending--;
    this.#reportLoad();
    this.#checkRest();
  }

  #endInMemory(task: QueuedTask, outcome: Outcome, error: unknown): void {
    if (!outcome.ok && !task.isAwaited) this.#events.log(`task ${task.id} has failed: ${describe(error)}`);
    this.#tell(task.id, outcome);
  }

  async #endDurably(task: QueuedTask, outcome: Outcome, error: unknown): Promise<void> {
    const { id, attempt, attempts, isAwaited } = task;
    if (outcome.ok || attempt >= attempts) {
      if (!outcome.ok && !isAwaited) {
        this.#events.log(`task ${id} has failed, attempt ${attempt} of ${attempts}: ${describe(error)}`);
      }
      await this.#queue.finish(task, outcome);
      if (isAwaited) this.#tell(id, outcome);
      return;
    }
    const delay = this.#backoff(attempt);
    this.#events.log(
      `task ${id} has failed, attempt ${attempt} of ${attempts}, and is tried again in ${delay} ms: ${describe(error)}`,
    );
    await this.#queue.retry(task, delay);
  }

  #backoff(attempt: number): number {
    const wait = Math.min(MAX_BACKOFF, this.#options.backoff * 2 ** (attempt - 1));
    return Math.round(wait * (1 - BACKOFF_JITTER + 2 * BACKOFF_JITTER * Math.random()));
  }

  /** Where its client is not there, a durable queue keeps the outcome until it asks. */
  #tell(id: string, { ok, value }: Outcome): void {
    const { clientId, number } = originOf(id);
    this.#links
      .get(clientId)
      ?.report(ok ? MessageType.result : MessageType.failed, number, this.#load, value);
  }

  async #tellStandings(link: ClientLink, ids: readonly string[]): Promise<void> {
    try {
      for (const [id, standing] of await this.#queue.find(ids)) {
        if (standing === "unknown") link.lost(originOf(id).number);
        else if (standing !== "open") this.#tell(id, standing);
      }
    } catch (error) {
      // The client asks again, when the next task worker is there.
      this.#events.log(`nothing is known of ${ids.length} tasks: ${(error as Error).message}`);
    }
  }

  /** Those that think it busy are told when it is not. */
  #reportLoad(): void {
    const load = this.#load;
    const { concurrency } = this.#options;
    if (load >= concurrency) return;
    for (const link of this.#links.values()) {
      if (link.reported >= concurrency) link.report(MessageType.load, 0, load);
    }
  }

  /** A task that has not begun goes back to its client, which sends it to another task worker. */
  async #giveBack(link: ClientLink, call: number): Promise<void> {
    if (!link.waiting.has(call) || !(await this.#queue.withdraw(taskId(link.clientId, call)))) return;
    link.waiting.delete(call);
    link.refuse(call, this.#load, Refusal.returned);
  }

  #checkRest(): void {
    if (!this.#isRetiring || this.#hasRested) return;
    // What waits in memory is claimed as soon as there is room.
    if (this.#running.size > 0 || this.#ending > 0 || this.#reserved > 0) return;
    this.#hasRested = true;
    this.#events.rested();
  }
}
