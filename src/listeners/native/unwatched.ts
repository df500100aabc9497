/** Spares most exchanges the signal that tells of their client's leaving. */
import { now } from "../../clock.ts";
import type { NativeExchange } from "./exchange.ts";

/** Most exchanges are over sooner, and are spared an AbortSignal. Milliseconds. */
const WATCH_AFTER = 100;

/**
 * The exchanges that are not yet told when their client goes away, oldest first: an AbortSignal a request costs the
 * reactor a tenth of its speed, and most exchanges are over within milliseconds. They are linked through themselves,
 * so that one which is over is kept by nothing: young garbage is free, and old garbage is not.
 */
export class Unwatched {
  #oldest: NativeExchange | null = null;
  #newest: NativeExchange | null = null;
  #timer: NodeJS.Timeout | null = null;

  add(exchange: NativeExchange): void {
    exchange.older = this.#newest;
    if (this.#newest === null) this.#oldest = exchange;
    else this.#newest.newer = exchange;
    this.#newest = exchange;
    this.#timer ??= setTimeout(() => this.#watch(), WATCH_AFTER);
  }

  remove(exchange: NativeExchange): void {
    const { older, newer } = exchange;
    if (older !== null) older.newer = newer;
    else if (this.#oldest === exchange) this.#oldest = newer;
    else return;
    if (newer !== null) newer.older = older;
    else this.#newest = older;
    exchange.older = null;
    exchange.newer = null;
  }

  #watch(): void {
    this.#timer = null;
    const arrived = now() - WATCH_AFTER;
    while (this.#oldest !== null && this.#oldest.receivedAt <= arrived) {
      const exchange = this.#oldest;
      this.remove(exchange);
      exchange.watch();
    }
    if (this.#oldest !== null) this.#timer = setTimeout(() => this.#watch(), WATCH_AFTER);
  }
}
