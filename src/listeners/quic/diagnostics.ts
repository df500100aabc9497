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
  /** Records about those whose handshake is not done: a datagram of nobody's would make a file, and hold it for seconds. */
  readonly #early = new Map<string, string>();

  constructor({ keylog, qlog }: DiagnosticsOptions, log: (line: string) => void) {
    this.#log = log;
    this.#keylog = keylog === null ? null : this.#append(keylog);
    this.#folder = qlog;
  }

  /** @param line in the NSS key log format */
  secret(line: string): void {
    this.#keylog?.write(line.endsWith("\n") ? line : `${line}\n`);
  }

  /** @param records of JSON-SEQ (RFC 7464) */
  record(connectionId: string, records: string): void {
    if (this.#folder === null) return;
    const file = this.#qlogs.get(connectionId);
    if (file !== undefined) file.write(records);
    else this.#early.set(connectionId, (this.#early.get(connectionId) ?? "") + records);
  }

  /** The handshake is done: the connection gets its file. */
  begin(connectionId: string): void {
    if (this.#folder === null) return;
    const file = this.#append(join(this.#folder, `${connectionId}.sqlog`));
    this.#qlogs.set(connectionId, file);
    file.write(this.#early.get(connectionId) ?? "");
    this.#early.delete(connectionId);
  }

  end(connectionId: string): void {
    this.#early.delete(connectionId);
    this.#qlogs.get(connectionId)?.end();
    this.#qlogs.delete(connectionId);
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
