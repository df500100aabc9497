/** Files as they are opened to be sent: regular ones alone, never blocking, and each known again by its identity. */
import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";

/** A file that cannot be sent. */
export class FileError extends Error {
  /** The system's, such as ENOENT; ESTALE: another file, or a shorter one, has taken the place of the one meant. */
  readonly code: string;
  override readonly name = "FileError";

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

const WORDS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  ENOTDIR: "there is no such file",
  EISDIR: "it is a directory",
  EACCES: "this user may not read it",
  EPERM: "this user may not read it",
  ENAMETOOLONG: "the name is too long",
  ELOOP: "its symbolic links lead in a circle",
  EMFILE: "too many files are open",
  ENFILE: "too many files are open",
};

/** @param error a failed call's of `node:fs` */
export function fileError(path: string, error: unknown): FileError {
  if (error instanceof FileError) return error;
  const { code = "EIO", message } = error as NodeJS.ErrnoException;
  return new FileError(code, `${path}: ${WORDS[code] ?? message}`, { cause: error });
}

/**
 * Which file it is, on which device: what was meant to be sent is known by it, though it may have grown. `exact` tells
 * one that was changed from what it was, too.
 */
export function identityOf(stats: BigIntStats, exact: boolean): string {
  // An inode's number is soon another file's; the time it was made is not.
  const file = `${stats.dev}:${stats.ino}:${stats.birthtimeNs}`;
  return exact ? `${file}:${stats.size}:${stats.mtimeNs}` : file;
}

/** @throws FileError for what is no regular file: a directory, a device, a pipe that would keep its reader waiting */
export function checkRegular(path: string, stats: BigIntStats): void {
  if (stats.isDirectory()) throw fileError(path, { code: "EISDIR" });
  if (!stats.isFile()) throw new FileError("EINVAL", `${path}: it is not a regular file`);
}

/**
 * Opens a file to be read. Whoever opens it closes it.
 * @throws FileError (as a rejection)
 */
export async function openFile(path: string): Promise<{ handle: FileHandle; stats: BigIntStats }> {
  let handle: FileHandle | null = null;
  try {
    // A pipe without a writer is opened at once, and then refused.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stats = await handle.stat({ bigint: true });
    checkRegular(path, stats);
    return { handle, stats };
  } catch (error) {
    await handle?.close();
    throw fileError(path, error);
  }
}
