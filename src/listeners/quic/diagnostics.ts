/** What `node:quic` tells for tools: the secrets of connections in one file, and a file about each of them. */
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import type { Writable } from "node:stream";

export interface DiagnosticsOptions {
  /** The file of the secrets; null for none. */
  readonly keylog: string | null;
  /** The folder of the others; null for none. */
  readonly qlog: string | null;
}

export class Diagnostics {
  readonly #log: (line: string) => void;
  readonly #keylog: Writable | null;
  readonly #folder: string | null;
  readonly #qlogs = new Map<string, Writable>();

  constructor({ keylog, qlog }: DiagnosticsOptions, log: (line: string) => void) {
    this.#log = log;
    this.#keylog = keylog === null ? null : this.#append(keylog);
    this.#folder = qlog;
  }

  /** @param line in the NSS key log format */
  secret(line: string): void {
    this.#keylog?.write(line.endsWith("\n") ? line : `${line}\n`);
  }

  /**
   * @param records of JSON-SEQ (RFC 7464)
   * @param ends they are the last
   */
  record(connectionId: string, records: string, ends: boolean): void {
    if (this.#folder === null) return;
    let file = this.#qlogs.get(connectionId);
    if (file === undefined) {
      file = this.#append(join(this.#folder, `${connectionId}.sqlog`));
      this.#qlogs.set(connectionId, file);
    }
    file.write(records);
    if (!ends) return;
    this.#qlogs.delete(connectionId);
    file.end();
  }

  close(): void {
    this.#keylog?.end();
    for (const file of this.#qlogs.values()) file.end();
  }

  #append(path: string): Writable {
    const file = createWriteStream(path, { flags: "a", mode: 0o600 });
    file.on("error", (error) => this.#log(`${path}: ${error.message}`));
    return file;
  }
}
