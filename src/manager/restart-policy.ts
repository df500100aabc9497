/** When a process that died is started again: at once, unless it died young; then later and later. No clock. */

const YOUNG = 1000;
const FIRST_DELAY = 100;
const MAX_DELAY = 5000;

export class RestartPolicy {
  #diedYoung = 0;

  /**
   * @param lived milliseconds from the start of the process to its death
   * @param wasReady it had come as far as taking requests
   * @returns milliseconds to wait before the next start
   */
  delayAfter(lived: number, wasReady: boolean): number {
    if (wasReady && lived >= YOUNG) {
      this.#diedYoung = 0;
      return 0;
    }
    this.#diedYoung++;
    // Once is an accident, which should cost nobody a wait.
    if (wasReady && this.#diedYoung === 1) return 0;
    return Math.min(MAX_DELAY, FIRST_DELAY * 2 ** (this.#diedYoung - 1));
  }
}
