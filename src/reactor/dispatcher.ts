/** Hands exchanges to workers: at once where one takes it, else from the queue in the order of arrival. No sockets and no clock. */
import type { RequestHead } from "../exchange.ts";
import type { Candidate, DispatchPolicy } from "./dispatch-policy.ts";
import { type QueueLimits, WaitingQueue } from "./waiting-queue.ts";

export interface DispatchLimits extends QueueLimits {
  /** Exchanges with workers at one time. */
  readonly maxExchanges: number;
}

export class Dispatcher<Item, Worker extends Candidate> {
  readonly #limits: DispatchLimits;
  readonly #policy: DispatchPolicy<Worker>;
  readonly #headOf: (item: Item) => RequestHead;
  /** By their ids. */
  readonly #workers: Worker[] = [];
  readonly #queue: WaitingQueue<Item>;
  #dispatched = 0;

  constructor(limits: DispatchLimits, policy: DispatchPolicy<Worker>, headOf: (item: Item) => RequestHead) {
    this.#limits = limits;
    this.#policy = policy;
    this.#headOf = headOf;
    this.#queue = new WaitingQueue(limits);
  }

  get queued(): number {
    return this.#queue.length;
  }

  get workers(): readonly Worker[] {
    return this.#workers;
  }

  /** Milliseconds that one more would wait in the queue. */
  expectedWait(now: number): number {
    return this.#queue.expectedWait(now);
  }

  addWorker(worker: Worker): void {
    const before = this.#workers.findIndex(({ workerId }) => workerId > worker.workerId);
    this.#workers.splice(before === -1 ? this.#workers.length : before, 0, worker);
  }

  removeWorker(worker: Worker): void {
    const index = this.#workers.indexOf(worker);
    if (index !== -1) this.#workers.splice(index, 1);
  }

  /**
   * A worker for a new item; or null where it has to wait: see `enqueue`. The item counts until `release`.
   * @param now milliseconds, as in every call
   */
  acquire(item: Item, now: number): Worker | null {
    if (this.#dispatched >= this.#limits.maxExchanges) return null;
    const worker = this.#policy.pick(this.#headOf(item), this.#workers, now);
    if (worker !== null) this.#dispatched++;
    return worker;
  }

  /** One that `acquire` had counted has ended. */
  release(): void {
    this.#dispatched--;
  }

  /** False where the item is refused: the queue is full, or too slow. */
  enqueue(item: Item, now: number): boolean {
    return this.#queue.add(item, now);
  }

  /** Takes an item out of the queue, wherever it stands. False where it is not there. */
  withdraw(item: Item): boolean {
    return this.#queue.withdraw(item);
  }

  /** Everything that waits, taken out of the queue. */
  withdrawAll(): Item[] {
    const items = [...this.#queue];
    for (const item of items) this.#queue.withdraw(item);
    return items;
  }

  /** The next in the queue that has a worker, together with it; null where there is none. */
  next(now: number): { item: Item; worker: Worker } | null {
    for (const item of this.#queue) {
      const worker = this.acquire(item, now);
      if (worker !== null) {
        this.#queue.depart(item);
        return { item, worker };
      }
      if (!this.#policy.isBound) return null;
    }
    return null;
  }
}
