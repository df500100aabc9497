/**
 * The exchanges that wait for a worker, in the order of their arrival, and which of those that arrive are refused. No clock
 * and no sockets.
 *
 * How long one more would wait is estimated as PIE does (RFC 8033 §4.2): those that wait, times the mean time between
 * two that left. Whether that is too long is decided as by CoDel (RFC 8289): a queue that empties now and then is a burst,
 * in which one may wait ten times as long as the target; one that has not been empty for so long stands, and is held to its
 * target, until it has kept to it for as long by itself. CoDel drops what has waited already; here an arrival is refused, at once, so that whoever was let in is
 * also served.
 */

export interface QueueLimits {
  /** Exchanges that wait. */
  readonly maxQueue: number;
  /** Milliseconds that an exchange may be expected to wait in a queue that stands. */
  readonly queueTarget: number;
}

/** The interval after which a queue stands, in targets: CoDel's own proportion is 20. */
const INTERVAL = 10;
/** The rate of departures is measured over so many milliseconds at least. */
const RATE_WINDOW = 50;

export class WaitingQueue<Item> {
  readonly #limits: QueueLimits;
  /** Insertion order is the order of arrival, and one that was aborted can leave from the middle. */
  readonly #items = new Set<Item>();
  /** When it was last empty. */
  #emptyAt = 0;
  /** Until when it is held to its target though it may have been empty. */
  #strictUntil = 0;
  /** Mean milliseconds between two departures; 0 while none was measured. */
  #gap = 0;
  #windowStart = 0;
  #departed = 0;

  constructor(limits: QueueLimits) {
    this.#limits = limits;
  }

  get length(): number {
    return this.#items.size;
  }

  /**
   * False where the item is refused.
   * @param now milliseconds, as in every call
   */
  add(item: Item, now: number): boolean {
    const { maxQueue, queueTarget } = this.#limits;
    if (this.#items.size >= maxQueue) return false;
    if (this.#items.size === 0) this.#restart(now);
    // Not when one leaves: those that a worker takes at once after a stall are one sample.
    else if (this.#departed > 0 && now - this.#windowStart >= RATE_WINDOW) this.#measure(now);
    const interval = INTERVAL * queueTarget;
    const isStrict = now < this.#strictUntil || now - this.#emptyAt >= interval;
    if (this.expectedWait(now) <= (isStrict ? queueTarget : interval)) {
      this.#items.add(item);
      return true;
    }
    this.#strictUntil = now + interval;
    return false;
  }

  /** The items in their order; safe to remove from meanwhile. */
  [Symbol.iterator](): IterableIterator<Item> {
    return this.#items.values();
  }

  /** The item was handed to a worker. */
  depart(item: Item): void {
    this.#items.delete(item);
    this.#departed++;
  }

  /** The item waits no longer: its client has left. False where it was not there. */
  withdraw(item: Item): boolean {
    return this.#items.delete(item);
  }

  /** Milliseconds that one more item would wait. */
  expectedWait(now: number): number {
    // Where nothing leaves any more the rate of before says nothing, and the wait is as long as that has lasted at least.
    const silence = this.#departed === 0 && this.#items.size > 0 ? now - this.#windowStart : 0;
    return Math.max(this.#items.size * this.#gap, silence);
  }

  #restart(now: number): void {
    this.#emptyAt = now;
    this.#windowStart = now;
    this.#departed = 0;
  }

  #measure(now: number): void {
    const gap = (now - this.#windowStart) / this.#departed;
    this.#gap = this.#gap === 0 ? gap : (this.#gap + gap) / 2;
    this.#windowStart = now;
    this.#departed = 0;
  }
}
