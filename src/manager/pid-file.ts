/**
 * A file with a process id that can be believed: its process holds a lock on it. One that was left behind is known by
 * that, whichever process has the id by now.
 */
import { constants, fstatSync, ftruncateSync, readFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { remove } from "../removal.ts";
import { FileLock } from "./file-lock.ts";
import type { Libc } from "./libc.ts";
import { StartError } from "./start-error.ts";

const FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
/** More than any process id has. */
const MAX_BYTES = 16;
/** Milliseconds for one who has just taken a file to write into it. */
const WRITTEN_WITHIN = 1000;
const READ_INTERVAL = 10;

const WORDS: Readonly<Record<string, string>> = {
  ENOENT: "its folder is not there",
  ENOTDIR: "its folder is none",
  EISDIR: "it is a folder",
  ELOOP: "it is a symbolic link",
  EACCES: "this user may not write it",
  EROFS: "its file system is read-only",
};

export class PidFile {
  readonly path: string;
  readonly #lock: FileLock;

  /**
   * Makes it, or takes over one that was left behind.
   * @param libc where null, no lock is known of
   * @throws StartError (as a rejection) where a living process has it, or it cannot be a pid file
   */
  static async take(path: string, libc: Libc | null): Promise<PidFile> {
    const lock = openLocked(path, libc);
    if (lock === null) {
      throw new StartError(`the pid file ${path} is that of a running server, process ${await pidIn(path)}`);
    }
    try {
      const stats = fstatSync(lock.descriptor);
      const isPid =
        stats.isFile() && stats.size <= MAX_BYTES && /^\d*\s*$/.test(readFileSync(path, "latin1"));
      if (!isPid) throw new StartError(`${path} is no pid file: it has something else in it`);
      ftruncateSync(lock.descriptor);
      writeSync(lock.descriptor, `${process.pid}\n`, 0);
      return new PidFile(path, lock);
    } catch (error) {
      lock[Symbol.dispose]();
      throw error instanceof StartError ? error : unwritable(path, error as NodeJS.ErrnoException);
    }
  }

  private constructor(path: string, lock: FileLock) {
    this.path = path;
    this.#lock = lock;
  }

  /** Removes it. */
  release(log: (line: string) => void): void {
    // Another server may have its own there by now.
    if (this.#lock.holds(this.path)) remove(this.path, log);
    this.#lock[Symbol.dispose]();
  }
}

/** The process id in a file whose process lives, or "unknown" where it does not write it. */
export async function pidIn(path: string): Promise<string> {
  for (let waited = 0; waited < WRITTEN_WITHIN; waited += READ_INTERVAL) {
    const pid = pidNow(path);
    if (pid !== null) return pid;
    await sleep(READ_INTERVAL);
  }
  return "unknown";
}

function pidNow(path: string): string | null {
  try {
    return /^\d+/.exec(readFileSync(path, "latin1"))?.[0] ?? null;
  } catch {
    // It is not there yet, or no longer.
    return null;
  }
}

function openLocked(path: string, libc: Libc | null): FileLock | null {
  try {
    return FileLock.take(path, FLAGS, libc);
  } catch (error) {
    throw unwritable(path, error as NodeJS.ErrnoException);
  }
}

function unwritable(path: string, error: NodeJS.ErrnoException): StartError {
  const reason = WORDS[error.code ?? ""] ?? error.message;
  return new StartError(`the pid file ${path} cannot be written: ${reason}`, { cause: error });
}
