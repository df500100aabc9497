/** How many workers there should be, between a least and a most number: by the time that requests wait. No clock. */

export interface Span {
  readonly min: number;
  readonly max: number;
}

/** Milliseconds that a request may wait for a worker before there should be one more. */
const WAIT_LIMIT = 20;
/** Reports of such a wait, one after another, before it is believed. */
const REPORTS = 2;

export class Scaler {
  readonly #span: Span;
  readonly #idleTimeout: number;
  #count: number;
  #reports = 0;

  /** @param idleTimeout milliseconds without a request after which a worker is too many */
  constructor(span: Span, idleTimeout: number) {
    this.#span = span;
    this.#idleTimeout = idleTimeout;
    this.#count = span.min;
  }

  /** How many there should be. */
  get count(): number {
    return this.#count;
  }

  /**
   * A reactor reports that requests wait.
   * @param wait milliseconds that one more would
   * @param serving workers that serve now: while one is starting, it is not known whether another is needed
   */
  waits(wait: number, serving: number): void {
    this.#reports = wait > WAIT_LIMIT && serving >= this.#count ? this.#reports + 1 : 0;
    if (this.#reports >= REPORTS && this.#count < this.#span.max) this.#count++;
  }

  /** The worker that was added last has had no request for so many milliseconds. */
  idles(idle: number): void {
    if (idle >= this.#idleTimeout && this.#count > this.#span.min) this.#count--;
  }
}
