/**
 * Who has claimed tasks, and whether that process is still alive. A claimant holds the lock of a file of its own beside the
 * queue's; the system lets go of it when the process ends, however it does and whatever it was doing. So no lease has to be
 * renewed by a task worker that computes, and none has to be waited for when one has died. The lock is SQLite's own, on an
 * empty database: `node:` has no other.
 */
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, readdirSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** The primary code of SQLITE_BUSY. */
const BUSY = 5;

function lockPath(queuePath: string, id: string): string {
  return `${queuePath}-claimant-${id}`;
}

/** The claimant that this process is. */
export class Claimant {
  readonly id: string;
  readonly #path: string;
  readonly #lock: DatabaseSync;

  /** @throws Error where there can be no file beside the queue's */
  static take(queuePath: string): Claimant {
    for (;;) {
      const id = randomBytes(6).toString("hex");
      const path = lockPath(queuePath, id);
      // Nobody else is to lock it.
      closeSync(openSync(path, "wx", 0o600));
      const lock = lockOf(path);
      // Whoever looks for the dead may have found the file before it was locked, and taken it away.
      if (lock !== null && existsSync(path)) return new Claimant(id, path, lock);
      lock?.close();
    }
  }

  private constructor(id: string, path: string, lock: DatabaseSync) {
    this.id = id;
    this.#path = path;
    this.#lock = lock;
  }

  release(): void {
    remove(this.#path);
    this.#lock.close();
  }
}

/** A claimant whose process has ended. Nobody else finds it before it is buried. */
export class DeadClaimant {
  readonly id: string;
  readonly #path: string;
  readonly #lock: DatabaseSync | null;

  /** Null where the claimant lives. */
  static find(queuePath: string, id: string): DeadClaimant | null {
    const path = lockPath(queuePath, id);
    if (!existsSync(path)) return new DeadClaimant(id, path, null);
    const lock = lockOf(path);
    return lock === null ? null : new DeadClaimant(id, path, lock);
  }

  private constructor(id: string, path: string, lock: DatabaseSync | null) {
    this.id = id;
    this.#path = path;
    this.#lock = lock;
  }

  /** @param isReleased what it had claimed was released: nobody need ever ask about it again */
  bury(isReleased: boolean): void {
    if (isReleased) remove(this.#path);
    this.#lock?.close();
  }
}

/** Every claimant that has left a file: alive, or dead and not buried. */
export function claimantsOf(queuePath: string): string[] {
  const prefix = lockPath(basename(queuePath), "");
  return readdirSync(dirname(queuePath)).flatMap((name) => {
    const id = name.startsWith(prefix) ? name.slice(prefix.length) : "";
    return /^[0-9a-f]{12}$/.test(id) ? [id] : [];
  });
}

/** Null where somebody else has the lock. */
function lockOf(path: string): DatabaseSync | null {
  const lock = new DatabaseSync(path, { timeout: 0 });
  try {
    lock.exec("BEGIN IMMEDIATE");
    return lock;
  } catch (error) {
    lock.close();
    if ((error as { errcode?: number }).errcode === BUSY) return null;
    throw error;
  }
}

function remove(path: string): void {
  for (const suffix of ["", "-journal"]) rmSync(join(`${path}${suffix}`), { force: true });
}
