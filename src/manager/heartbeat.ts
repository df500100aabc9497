/** Asks each process once a second how it is, and keeps what it said last. */
import { now } from "../clock.ts";
import type { Vitals } from "../vitals.ts";

export interface Pulse<V extends Vitals> {
  /** What it said last. */
  readonly vitals: V;
  /** When it said that, milliseconds since the Unix epoch. */
  readonly at: number;
  /** Cores that it kept busy between its last two answers. */
  readonly cpu: number;
}

/** Milliseconds. */
const INTERVAL = 1000;
/** Of an interval: a beat that comes later than so many after the one before shows that this process stood still. */
const MAX_GAP = 1.25;

export class Heartbeat<C extends object, V extends Vitals> {
  readonly #ask: (child: C) => Promise<V | null>;
  readonly #children: () => readonly C[];
  readonly #told: (child: C, vitals: V | null) => void;
  readonly #pulses = new WeakMap<C, Pulse<V>>();
  /** Those that have not answered yet: nobody is asked twice at a time. */
  readonly #asked = new Set<C>();
  /** Those whose silence was not told of, since it may be that of the whole machine; they are asked once more. */
  readonly #spared = new WeakSet<C>();
  readonly #timer: NodeJS.Timeout;
  #lastBeat = now();
  /** When this process last went on after it stood still. */
  #wentOnAt = 0;

  /**
   * @param ask gives null where there is no answer in time
   * @param told what a process has answered
   */
  constructor(
    children: () => readonly C[],
    ask: (child: C) => Promise<V | null>,
    told: (child: C, vitals: V | null) => void,
  ) {
    this.#children = children;
    this.#ask = ask;
    this.#told = told;
    this.#timer = setInterval(() => this.#beat(), INTERVAL);
  }

  pulseOf(child: C): Pulse<V> | undefined {
    return this.#pulses.get(child);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #beat(): void {
    const at = now();
    if (at - this.#lastBeat > MAX_GAP * INTERVAL) this.#wentOnAt = at;
    this.#lastBeat = at;
    for (const child of this.#children()) {
      if (!this.#asked.has(child)) void this.#check(child);
    }
  }

  async #check(child: C): Promise<void> {
    this.#asked.add(child);
    const askedAt = now();
    const vitals = await this.#ask(child);
    this.#asked.delete(child);
    if (vitals === null && this.#wentOnAt > askedAt && !this.#spared.has(child)) {
      this.#spared.add(child);
      return;
    }
    this.#spared.delete(child);
    if (vitals !== null) {
      const before = this.#pulses.get(child);
      const at = now();
      const cpu = before === undefined ? 0 : (vitals.cpuTime - before.vitals.cpuTime) / (at - before.at);
      this.#pulses.set(child, { vitals, at, cpu });
    }
    this.#told(child, vitals);
  }
}
