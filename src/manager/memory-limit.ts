/**
 * Which processes hold more than `maxMemory` and are to be replaced: at once, unless they do so from the beginning. The next one
 * will hold no less then, and comes later and later. No clock.
 */
const FIRST_DELAY = 2000;
const MAX_DELAY = 60_000;

export class MemoryLimit<Child extends object> {
  readonly #bytes: number;
  readonly #kind: string;
  readonly #log: (line: string) => void;
  /** By the slot's id: how many processes, one after another, have held too much from the beginning. */
  readonly #heavy = new Map<number, number>();
  /** From when on each may be replaced, milliseconds since the Unix epoch. */
  readonly #replaceable = new WeakMap<Child, number>();

  /**
   * @param bytes 0 for no limit
   * @param kind of processes, for the log
   */
  constructor(bytes: number, kind: string, log: (line: string) => void) {
    this.#bytes = bytes;
    this.#kind = kind;
    this.#log = log;
  }

  /**
   * Looks at a process that serves.
   * @param rss bytes that it holds
   * @param now milliseconds since the Unix epoch
   * @returns why it is to be replaced; null where it is not
   */
  look(child: Child, slotId: number, rss: number, now: number): string | null {
    if (this.#bytes === 0) return null;
    const from = this.#replaceable.get(child) ?? now + this.#firstLook(slotId, rss);
    this.#replaceable.set(child, from);
    return rss > this.#bytes && now >= from ? `it holds ${rss} bytes, and maxMemory is ${this.#bytes}` : null;
  }

  /** @returns milliseconds for which it is left */
  #firstLook(slotId: number, rss: number): number {
    if (rss <= this.#bytes) {
      this.#heavy.delete(slotId);
      return 0;
    }
    const before = this.#heavy.get(slotId) ?? 0;
    this.#heavy.set(slotId, before + 1);
    const delay = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** before);
    if (before === 0) {
      const advice = `too little for this code; it is replaced in ${delay / 1000} s, and those after it later and later`;
      const holds = `holds ${rss} bytes from the beginning, and maxMemory is ${this.#bytes}`;
      this.#log(`error: ${this.#kind} ${slotId} ${holds}: ${advice}`);
    }
    return delay;
  }
}
