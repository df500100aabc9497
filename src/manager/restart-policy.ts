/** When a process that died is started again: at once, unless it does so again and again; then later and later. No clock. */

export interface Death {
  /** Milliseconds from the start of the process to its death. */
  readonly lived: number;
  /** It had come as far as serving. */
  readonly hadServed: boolean;
  /** By SIGKILL: from outside, whatever it was doing. */
  readonly wasKilled: boolean;
}

const YOUNG = 1000;
const FIRST_DELAY = 100;
const MAX_DELAY = 5000;

export class RestartPolicy {
  #diedYoung = 0;

  /** @returns milliseconds to wait before the next start */
  delayAfter({ lived, hadServed, wasKilled }: Death): number {
    if (hadServed && (wasKilled || lived >= YOUNG)) {
      this.#diedYoung = 0;
      return 0;
    }
    this.#diedYoung++;
    // Once is an accident, which should cost nobody a wait.
    if ((hadServed || wasKilled) && this.#diedYoung === 1) return 0;
    return Math.min(MAX_DELAY, FIRST_DELAY * 2 ** (this.#diedYoung - 1));
  }
}
