/**
 * Which exchange a worker is running, in a page of memory that it shares through a file: what its reactors can read when
 * the worker itself is stuck, or has died. Two stores a request. Where memory cannot be shared so nothing is noted, and
 * nothing is known.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { ExchangeId } from "../exchange.ts";
import { remove } from "../removal.ts";
import { openSharedPage } from "../shared-page.ts";

/** Instead of an exchange's id, which is never this: the process ends by itself. */
const LEAVING = 0xffff_ffff;
/** The pid of the reactor whose exchange it is, and the exchange's id: 0 while none is run. Each u32, little-endian. */
const BYTES = 8;

export function progressPath(runDirectory: string, workerPid: number): string {
  return join(runDirectory, `worker-${workerPid}.progress`);
}

/** The worker's side. */
export class Progress {
  readonly #path: string;
  readonly #words: Uint32Array;
  readonly #log: (line: string) => void;

  /** Null where there is no page. */
  static open(runDirectory: string, log: (line: string) => void): Progress | null {
    const path = progressPath(runDirectory, process.pid);
    const page = openSharedPage(path, BYTES, "what it runs", log);
    return page && new Progress(path, new Uint32Array(page.buffer, page.byteOffset, BYTES / 4), log);
  }

  private constructor(path: string, words: Uint32Array, log: (line: string) => void) {
    this.#path = path;
    this.#words = words;
    this.#log = log;
    process.on("exit", () => {
      words[1] = LEAVING;
    });
  }

  begin(reactorPid: number, id: ExchangeId): void {
    this.#words[0] = reactorPid;
    this.#words[1] = id;
  }

  end(): void {
    this.#words[1] = 0;
  }

  /** The process leaves as it was told to: nobody will ask. */
  close(): void {
    remove(this.#path, this.#log);
  }
}

/**
 * What a worker was doing when it was looked at: it ran this exchange, or another of this reactor or of another one; it
 * was ending by itself (`process.exit`, an error that nobody caught); or none of these, so that it waited, or ran what
 * followed an `await`.
 */
export type Doing = { readonly ran: ExchangeId } | "another" | "leaving" | "nothing" | "unknown";

/** The reactor's side: asks of a worker that is stuck, or has died. */
export function doingOf(runDirectory: string, workerPid: number): Doing {
  let bytes: Buffer;
  try {
    bytes = readFileSync(progressPath(runDirectory, workerPid));
  } catch {
    // The worker shares none, or was told to leave and has.
    return "unknown";
  }
  if (bytes.length < BYTES) return "unknown";
  const id = bytes.readUInt32LE(4);
  if (id === 0) return "nothing";
  if (id === LEAVING) return "leaving";
  return bytes.readUInt32LE(0) === process.pid ? { ran: id as ExchangeId } : "another";
}
