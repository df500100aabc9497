/** What a process tells its manager of itself. */

export interface Vitals {
  /** Resident memory, bytes. */
  readonly rss: number;
  /** Milliseconds of processor time since it was started. */
  readonly cpuTime: number;
}

const NO_DESCRIPTOR =
  "too many open files: new connections wait, and what else is to be opened fails; raise the limit (ulimit -n, LimitNOFILE), or set maxConnections";

/** Those of this process. */
export class OwnVitals {
  readonly #log: (line: string) => void;
  #rss = 0;
  #hasNoDescriptor = false;

  constructor(log: (line: string) => void) {
    this.#log = log;
  }

  /** Never throws: a process without an answer would be taken for one that is stuck. */
  read(): Vitals {
    const { user, system } = process.cpuUsage();
    return { rss: this.#readRss(), cpuTime: (user + system) / 1000 };
  }

  /** It is read from a file: where the process may open no more, what it was before. */
  #readRss(): number {
    try {
      this.#rss = process.memoryUsage.rss();
      this.#hasNoDescriptor = false;
    } catch {
      if (!this.#hasNoDescriptor) this.#log(NO_DESCRIPTOR);
      this.#hasNoDescriptor = true;
    }
    return this.#rss;
  }
}
