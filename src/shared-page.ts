/**
 * A page of memory that a process shares through a file: what others can read when it is stuck, or has died. The only file
 * that knows `Bun.mmap`.
 */
import { writeFileSync } from "node:fs";
import { remove } from "./removal.ts";

/**
 * The page, zeros yet. Null where memory cannot be shared so, or the file cannot be written: the disk is full, say, and the
 * process is needed more than what it would note.
 * @param what is noted there, for the log
 */
export function openSharedPage(
  path: string,
  bytes: number,
  what: string,
  log: (line: string) => void,
): Uint8Array<ArrayBuffer> | null {
  if (process.versions.bun === undefined) return null;
  try {
    writeFileSync(path, new Uint8Array(bytes), { mode: 0o600 });
  } catch (error) {
    log(`${what} is not noted: ${path} cannot be written: ${(error as Error).message}`);
    return null;
  }
  try {
    return Bun.mmap(path, { shared: true });
  } catch (error) {
    // Some file systems have no mapping that is shared; and zeros that never change would say something else.
    log(`${what} is not noted: ${path} cannot be mapped: ${(error as Error).message}`);
    remove(path, log);
    return null;
  }
}
