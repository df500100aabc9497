/**
 * Which worker gets an exchange, and which exchanges wait: the least busy worker, and among equals the next in turn.
 * No sockets and no clock.
 */

export interface Candidate {
  /** Exchanges that it has and has not ended. */
  readonly inFlight: number;
}

export interface DispatchLimits {
  /** Exchanges with workers at one time. */
  readonly maxExchanges: number;
  /** Exchanges that wait for a worker. */
  readonly maxQueue: number;
}

export class Dispatcher<Item, Worker extends Candidate> {
  readonly #limits: DispatchLimits;
  readonly #workers: Worker[] = [];
  /** A set keeps the order of arrival, and lets one that was aborted leave from the middle. */
  readonly #queue = new Set<Item>();
  #next = 0;
  #dispatched = 0;

  constructor(limits: DispatchLimits) {
    this.#limits = limits;
  }

  get queued(): number {
    return this.#queue.size;
  }

  addWorker(worker: Worker): void {
    this.#workers.push(worker);
  }

  removeWorker(worker: Worker): void {
    const index = this.#workers.indexOf(worker);
    if (index !== -1) this.#workers.splice(index, 1);
  }

  /** A worker for a new item; or null where it has to wait: see `enqueue`. The item counts until `release`. */
  acquire(): Worker | null {
    if (this.#dispatched >= this.#limits.maxExchanges) return null;
    const count = this.#workers.length;
    let best: Worker | null = null;
    for (let i = 0; i < count; i++) {
      const index = (this.#next + i) % count;
      const worker = this.#workers[index] as Worker;
      if (best === null || worker.inFlight < best.inFlight) best = worker;
    }
    if (best === null) return null;
    this.#next = (this.#workers.indexOf(best) + 1) % count;
    this.#dispatched++;
    return best;
  }

  /** One that `acquire` had counted has ended. */
  release(): void {
    this.#dispatched--;
  }

  /** False where the queue is full. */
  enqueue(item: Item): boolean {
    if (this.#queue.size >= this.#limits.maxQueue) return false;
    this.#queue.add(item);
    return true;
  }

  /** Takes an item out of the queue, wherever it stands. False where it is not there. */
  withdraw(item: Item): boolean {
    return this.#queue.delete(item);
  }

  /** The next in the queue together with a worker for it; null where either is missing. */
  next(): { item: Item; worker: Worker } | null {
    for (const item of this.#queue) {
      const worker = this.acquire();
      if (worker === null) return null;
      this.#queue.delete(item);
      return { item, worker };
    }
    return null;
  }
}
