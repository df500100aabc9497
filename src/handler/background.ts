/** Work that goes on after its response: a worker does not leave before it has settled. */
import { type Exchange, nameOf } from "../exchange.ts";
import { describe, logTo } from "../log.ts";

export class Background {
  readonly #work = new Set<Promise<void>>();
  /** Where a rejection is told. */
  log: (line: string) => void = logTo("worker");

  /** Promises that have not settled. */
  get size(): number {
    return this.#work.size;
  }

  /** Holds the worker until the promise has settled; what it rejects with goes to the log, under the exchange's name. */
  add(exchange: Exchange, promise: unknown): void {
    const { method, path } = exchange;
    const name = nameOf(exchange);
    const work = Promise.resolve(promise)
      .then(
        () => {},
        (error: unknown) => this.log(`error in waitUntil of ${method} ${path} ${name}: ${describe(error)}`),
      )
      .finally(() => this.#work.delete(work));
    this.#work.add(work);
  }

  /** Resolves when nothing is left, that which is added meanwhile included. */
  async settled(): Promise<void> {
    while (this.#work.size > 0) await Promise.all(this.#work);
  }
}

/** This process's. */
export const background = new Background();
