/** What `node:quic` tells for tools: the secrets of connections in one file, and a file about each of them. */
import { appendFile } from "node:fs/promises";
import { join } from "node:path";

export interface DiagnosticsOptions {
  /** The file of the secrets; null for none. */
  readonly keylog: string | null;
  /** The folder of the others; null for none. */
  readonly qlog: string | null;
}

/**
 * No file is held open: one that was renamed is made anew, and a disk that was full costs what came meanwhile and no more.
 */
export class Diagnostics {
  readonly #log: (line: string) => void;
  readonly #keylog: string | null;
  readonly #folder: string | null;
  /** Connections that have a file. */
  readonly #begun = new Set<string>();
  /** Records about those whose handshake is not done: a datagram of nobody's would make a file. */
  readonly #early = new Map<string, string>();
  /** What is to be appended, by path. */
  readonly #waiting = new Map<string, string>();
  #writing: Promise<void> | null = null;
  /** Of `keylog` and `qlog`, those that could not be written the last time: it is said once. */
  readonly #failing = new Set<string>();

  constructor({ keylog, qlog }: DiagnosticsOptions, log: (line: string) => void) {
    this.#log = log;
    this.#keylog = keylog;
    this.#folder = qlog;
  }

  /** @param line in the NSS key log format */
  secret(line: string): void {
    if (this.#keylog !== null) this.#append(this.#keylog, line.endsWith("\n") ? line : `${line}\n`);
  }

  /** @param records of JSON-SEQ (RFC 7464) */
  record(connectionId: string, records: string): void {
    if (this.#folder === null) return;
    if (this.#begun.has(connectionId)) this.#append(join(this.#folder, `${connectionId}.sqlog`), records);
    else this.#early.set(connectionId, (this.#early.get(connectionId) ?? "") + records);
  }

  /** The handshake is done: the connection gets its file. */
  begin(connectionId: string): void {
    if (this.#folder === null) return;
    this.#begun.add(connectionId);
    this.record(connectionId, this.#early.get(connectionId) ?? "");
    this.#early.delete(connectionId);
  }

  end(connectionId: string): void {
    this.#early.delete(connectionId);
    this.#begun.delete(connectionId);
  }

  /** Resolves when all that was told has been written. */
  async close(): Promise<void> {
    await this.#writing;
  }

  #append(path: string, text: string): void {
    this.#waiting.set(path, (this.#waiting.get(path) ?? "") + text);
    this.#writing ??= this.#write();
  }

  async #write(): Promise<void> {
    // What comes meanwhile has its turn in here, too.
    for (const [path, text] of this.#waiting) {
      this.#waiting.delete(path);
      const option = path === this.#keylog ? "http3.keylog" : "http3.qlog";
      try {
        await appendFile(path, text, { mode: 0o600 });
        this.#failing.delete(option);
      } catch (error) {
        if (!this.#failing.has(option)) this.#log(`${option}: ${path}: ${(error as Error).message}`);
        this.#failing.add(option);
      }
    }
    this.#writing = null;
  }
}
