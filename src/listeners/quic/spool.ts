/**
 * Bytes that wait on the disk, in their order, because whoever they are for is slower than who sends them, and who sends
 * them cannot be held back. The file has no name from its first moment: whatever ends the process, nothing is left.
 */
import { closeSync, ftruncateSync, openSync, read, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";

/** Bytes read at once. */
const READ_BYTES = 64 * 1024;
/** Bytes that are gathered for one write. It is synchronous: into the page cache, which costs less than to hand it over. */
const WRITE_BYTES = 256 * 1024;

/** How much all spools of a listener may hold, bytes. */
export class SpoolSpace {
  #left: number;

  constructor(bytes: number) {
    this.#left = bytes;
  }

  /** False where there is no room. */
  take(bytes: number): boolean {
    if (bytes > this.#left) return false;
    this.#left -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#left += bytes;
  }
}

export class Spool {
  readonly #fd: number;
  readonly #space: SpoolSpace;
  /** Those behind the file's. */
  #tail: Uint8Array[] = [];
  #tailBytes = 0;
  #readAt = 0;
  #writtenTo = 0;
  #taken = 0;
  /** The system has the descriptor. */
  #reading = false;
  #closed = false;

  /**
   * @param directory where it lies; it is unlinked at once
   * @throws the system's error
   */
  constructor(directory: string, space: SpoolSpace) {
    const path = join(directory, `spool-${crypto.randomUUID()}`);
    this.#fd = openSync(path, "wx+", 0o600);
    unlinkSync(path);
    this.#space = space;
  }

  /** Bytes that were not read yet. */
  get size(): number {
    return this.#writtenTo - this.#readAt + this.#tailBytes;
  }

  /**
   * Takes bytes. False where there is no space for them.
   * @throws the system's error, such as ENOSPC
   */
  push(chunk: Uint8Array): boolean {
    if (!this.#space.take(chunk.length)) return false;
    this.#taken += chunk.length;
    this.#tail.push(chunk);
    this.#tailBytes += chunk.length;
    if (this.#tailBytes >= WRITE_BYTES) this.#write();
    return true;
  }

  /** The next bytes, null where there are none. One call at a time. Rejects with the system's error. */
  async read(): Promise<Uint8Array | null> {
    const length = Math.min(READ_BYTES, this.#writtenTo - this.#readAt);
    if (length === 0) {
      const chunk = this.#tail.shift();
      if (chunk === undefined) return null;
      this.#tailBytes -= chunk.length;
      this.#rewind();
      return chunk;
    }
    const buffer = Buffer.allocUnsafeSlow(length);
    const bytes = await this.#readInto(buffer);
    this.#readAt += bytes;
    this.#rewind();
    return buffer.subarray(0, bytes);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#space.give(this.#taken);
    if (!this.#reading) closeSync(this.#fd);
  }

  #readInto(buffer: Buffer): Promise<number> {
    this.#reading = true;
    return new Promise((resolve, reject) => {
      read(this.#fd, buffer, 0, buffer.length, this.#readAt, (error, bytes) => {
        this.#reading = false;
        if (this.#closed) closeSync(this.#fd);
        if (error === null) resolve(bytes);
        else reject(error);
      });
    });
  }

  #write(): void {
    const bytes = Buffer.concat(this.#tail);
    this.#tail = [];
    this.#tailBytes = 0;
    for (let at = 0; at < bytes.length; ) {
      at += writeSync(this.#fd, bytes, at, bytes.length - at, this.#writtenTo + at);
    }
    this.#writtenTo += bytes.length;
  }

  /** All was read: the file begins anew, and gives its blocks back. */
  #rewind(): void {
    if (this.size > 0 || this.#closed) return;
    if (this.#writtenTo > 0) ftruncateSync(this.#fd, 0);
    this.#readAt = 0;
    this.#writtenTo = 0;
    this.#space.give(this.#taken);
    this.#taken = 0;
  }
}
