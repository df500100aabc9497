/** A lock on a file or a folder that its process holds until it ends, however that may be. */
import { closeSync, fstatSync, openSync, statSync } from "node:fs";
import type { Libc } from "./libc.ts";

export class FileLock implements Disposable {
  /** The file, open. */
  readonly descriptor: number;

  /**
   * @param flags of open(2), by which it may be made
   * @param libc where null, nothing can be locked, and nobody is ever found to hold it
   * @returns null where another process holds it
   * @throws the system's error, by its `code`
   */
  static take(path: string, flags: number, libc: Libc | null): FileLock | null {
    for (;;) {
      const lock = new FileLock(openSync(path, flags, 0o644));
      try {
        if (libc !== null && !libc.lock(lock.descriptor)) {
          lock[Symbol.dispose]();
          return null;
        }
        // Who held it may have removed it before it let go, and another have made it anew.
        if (lock.#isAt(path)) return lock;
      } catch (error) {
        lock[Symbol.dispose]();
        throw error;
      }
      lock[Symbol.dispose]();
    }
  }

  private constructor(descriptor: number) {
    this.descriptor = descriptor;
  }

  [Symbol.dispose](): void {
    closeSync(this.descriptor);
  }

  /** What is there is what is locked, as far as it can be seen, and nothing that was put in its place. */
  holds(path: string): boolean {
    try {
      return this.#isAt(path);
    } catch {
      return false;
    }
  }

  #isAt(path: string): boolean {
    const there = statSync(path, { throwIfNoEntry: false });
    const own = fstatSync(this.descriptor);
    return there?.ino === own.ino && there.dev === own.dev;
  }
}
