/** One at a time: whoever has had its turn lets the next one begin, in a later turn of the event loop. */
export class Turns {
  #taken = false;
  readonly #waiting: (() => void)[] = [];

  /** `begin` is called when it is its turn: at once, or later. Its end is told by `next`. */
  take(begin: () => void): void {
    if (this.#taken) {
      this.#waiting.push(begin);
      return;
    }
    this.#taken = true;
    begin();
  }

  next(): void {
    setImmediate(() => {
      const begin = this.#waiting.shift();
      if (begin === undefined) this.#taken = false;
      else begin();
    });
  }
}
