/** A queue in this process's memory: what waits here goes with it, so whoever handed it over keeps it until it runs. */
import { TaskQueueFullError } from "./errors.ts";
import type { QueuedTask, Standing, TaskQueue } from "./queue.ts";

/** Places that were left are given up when there are so many, and most are. */
const COMPACT_AT = 1024;

export class MemoryQueue implements TaskQueue {
  readonly isDurable = false;
  readonly #maxQueue: number;
  readonly #tasks = new Map<string, QueuedTask>();
  /** Their order: a Map's own first place is found past all that were deleted before it. */
  #order: QueuedTask[] = [];
  #next = 0;

  /** @param maxQueue tasks that may wait */
  constructor(maxQueue: number) {
    this.#maxQueue = maxQueue;
  }

  get waiting(): number {
    return this.#tasks.size;
  }

  async add(task: QueuedTask): Promise<void> {
    if (this.#tasks.size >= this.#maxQueue) {
      throw new TaskQueueFullError(`${this.#maxQueue} tasks wait already (tasks.maxQueue)`);
    }
    this.#put(task);
  }

  async claim(limit: number): Promise<readonly QueuedTask[]> {
    const claimed: QueuedTask[] = [];
    while (claimed.length < limit && this.#next < this.#order.length) {
      const task = this.#order[this.#next++] as QueuedTask;
      // Else it was withdrawn.
      if (this.#tasks.get(task.id) !== task) continue;
      this.#tasks.delete(task.id);
      claimed.push(task);
    }
    this.#compact();
    return claimed;
  }

  async finish(): Promise<void> {}

  async retry(task: QueuedTask): Promise<void> {
    this.#put({ ...task, attempt: task.attempt + 1 });
  }

  async withdraw(id: string): Promise<boolean> {
    const isWithdrawn = this.#tasks.delete(id);
    this.#compact();
    return isWithdrawn;
  }

  async find(ids: readonly string[]): Promise<ReadonlyMap<string, Standing>> {
    return new Map(ids.map((id) => [id, this.#tasks.has(id) ? "open" : "unknown"]));
  }

  async received(): Promise<void> {}

  look(): void {}

  async close(): Promise<void> {}

  #compact(): void {
    if (this.#order.length < COMPACT_AT || this.#order.length < 2 * this.#tasks.size) return;
    this.#order = [...this.#tasks.values()];
    this.#next = 0;
  }

  #put(task: QueuedTask): void {
    this.#tasks.set(task.id, task);
    this.#order.push(task);
  }
}
