/** Files that came with forms: the directory of their worker's where they are, how they leave it, and how they end. */
import { constants } from "node:fs";
import { copyFile, type FileHandle, mkdir, open, rename, rm, unlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { remove } from "../removal.ts";

const OTHER_FILE_SYSTEM = "EXDEV";

export interface NewFile {
  readonly path: string;
  readonly handle: FileHandle;
}

/** Where this worker keeps what it receives. Made with the first file; its manager removes it after the worker. */
class UploadDirectory {
  #path = "";
  #last = 0;

  /** @param path absolute; what is in it goes with the process */
  use(path: string, log: (line: string) => void): void {
    this.#path = path;
    process.on("exit", () => remove(path, log));
  }

  /** A new file that only this user can read. */
  async create(): Promise<NewFile> {
    const path = join(this.#path, String(++this.#last));
    try {
      return { path, handle: await open(path, "wx", 0o600) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      // The first of all, or something has cleaned up.
      await mkdir(this.#path, { recursive: true, mode: 0o700 });
      return { path, handle: await open(path, "wx", 0o600) };
    }
  }
}

export const uploadDirectory = new UploadDirectory();

/** A file that came with a form. It is removed after the response, unless it was moved. */
export class UploadedFile {
  /** The form's field. */
  readonly name: string;
  /** As the client calls it, without folders and control characters; may be empty. It is no safe name for a file. */
  readonly filename: string;
  /** The media type that the client states, in lower case, without parameters. */
  readonly type: string;
  /** Bytes. */
  readonly size: number;
  #path: string;
  #state: "temporary" | "moved" | "removed" = "temporary";

  constructor(name: string, filename: string, type: string, size: number, path: string) {
    this.name = name;
    this.filename = filename;
    this.type = type;
    this.size = size;
    this.#path = path;
  }

  /** Where it is, absolute. */
  get path(): string {
    return this.#path;
  }

  /**
   * Keeps the file, in another place; on another file system by a copy that appears there only when it is whole. What
   * is there of that name is replaced. The file stays readable by its user alone.
   * @param path relative to the working directory
   * @throws the system's error (as a rejection), by its `code`; Error after the file was removed
   */
  async moveTo(path: string): Promise<void> {
    if (this.#state === "removed") throw new Error(`moveTo: the file "${this.filename}" was removed`);
    const before = this.#state;
    // From here on it is not removed under the move.
    this.#state = "moved";
    const target = resolve(path);
    try {
      await move(this.#path, target);
    } catch (error) {
      this.#state = before;
      throw error;
    }
    this.#path = target;
  }

  /** @internal */
  static async remove(file: UploadedFile): Promise<void> {
    if (file.#state !== "temporary") return;
    file.#state = "removed";
    await rm(file.#path, { force: true });
  }
}

async function move(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
    return;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== OTHER_FILE_SYSTEM) throw error;
  }
  const part = join(dirname(to), `.${crypto.randomUUID()}.part`);
  try {
    await copyFile(from, part, constants.COPYFILE_EXCL);
    await rename(part, to);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
  await unlink(from);
}
