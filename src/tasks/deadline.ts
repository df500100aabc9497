/**
 * Until when a task worker may be silent, in a page of memory that it shares through a file: what the manager reads when the
 * task worker does not answer, to tell a task that computes from one that is stuck. One store a task. Where memory cannot be
 * shared so nothing is noted, and a silent task worker is left alone.
 */
import { readFileSync } from "node:fs";
import { uptime } from "node:os";
import { join } from "node:path";
import { openSharedPage } from "../shared-page.ts";

const BYTES = 8;
/** Milliseconds: the uptime may be told in whole seconds, and nobody's time is to end early. */
const SECOND = 1000;

/** Where a task worker notes it; the manager removes it after the process. */
export function deadlinePath(runDirectory: string, pid: number): string {
  return join(runDirectory, `task-${pid}.deadline`);
}

/** The task worker's side. */
export class Deadline {
  /** Milliseconds since the machine has started, of which all processes know and which nobody sets. */
  readonly #shared: Float64Array;
  readonly #idle: number;
  #running = 0;
  /** Those that may take for ever. */
  #unlimited = 0;
  #latest = 0;

  /**
   * Null where there is no page.
   * @param isWatched it may not be silent while it has nothing to do
   */
  static open(runDirectory: string, isWatched: boolean, log: (line: string) => void): Deadline | null {
    const path = deadlinePath(runDirectory, process.pid);
    const page = openSharedPage(path, BYTES, "its deadline", log);
    return page && new Deadline(new Float64Array(page.buffer, page.byteOffset, 1), isWatched);
  }

  private constructor(shared: Float64Array, isWatched: boolean) {
    this.#shared = shared;
    this.#idle = isWatched ? 0 : Number.POSITIVE_INFINITY;
    this.#note();
  }

  /** @param timeout milliseconds that the task may take; 0 for no limit */
  begin(timeout: number): void {
    this.#running++;
    if (timeout === 0) this.#unlimited++;
    else this.#latest = Math.max(this.#latest, uptime() * 1000 + SECOND + timeout);
    this.#note();
  }

  /** @param timeout as for its begin */
  end(timeout: number): void {
    this.#running--;
    if (timeout === 0) this.#unlimited--;
    if (this.#running === 0) this.#latest = 0;
    this.#note();
  }

  #note(): void {
    if (this.#running === 0) this.#shared[0] = this.#idle;
    else this.#shared[0] = this.#unlimited > 0 ? Number.POSITIVE_INFINITY : this.#latest;
  }
}

/** The manager's side: milliseconds that are left, less than 0 where it is over; Infinity where nothing is known. */
export function timeLeft(runDirectory: string, pid: number): number {
  try {
    const bytes = readFileSync(deadlinePath(runDirectory, pid));
    return bytes.length < BYTES ? Number.POSITIVE_INFINITY : bytes.readDoubleLE(0) - uptime() * 1000;
  } catch {
    // It shares none.
    return Number.POSITIVE_INFINITY;
  }
}
