/** Answers exchanges with files, where their sockets are: with those that handlers name, and those of `static`. */
import type { Exchange, FailureStatus, FileBody, ResponseHead } from "../exchange.ts";
import { FileError } from "./open.ts";
import type { StaticFiles } from "./static.ts";

/** Files that are sent at a time. One more is answered with 503: descriptors must be left for connections. */
const MAX_OPEN = 2000;
/** The file was just replaced. */
const REPLACED = new Set(["ESTALE", "ENOENT"]);
const ATTEMPTS = 5;
/** It is there, and not for the user that this process runs as. */
const DENIED = new Set(["EACCES", "EPERM"]);
/** What may be different a moment later, too: too many files are open. */
const TRY_AGAIN = new Set([...REPLACED, "EMFILE", "ENFILE"]);

/** Whoever owns the exchange. */
export interface FileOwner {
  readonly exchange: Exchange;
  /** The client has gone, or something else has ended the exchange. */
  readonly over: boolean;
  /** The response is about to begin. */
  responding(): void;
}

export class FileAnswers {
  readonly #static: StaticFiles | null;
  #open = 0;

  /** @param files null where there are none */
  constructor(files: StaticFiles | null) {
    this.#static = files;
  }

  /** Whether a file of `static` may be meant. */
  mayHave(path: string): boolean {
    return this.#static?.mayHave(path) ?? false;
  }

  /** Sends a file, and resolves when that is done, or the client has gone. @throws FileError (as a rejection) */
  async send(owner: FileOwner, head: ResponseHead, body: FileBody): Promise<void> {
    if (this.#open >= MAX_OPEN)
      throw new FileError("EMFILE", `${body.path}: ${MAX_OPEN} files are being sent`);
    owner.responding();
    this.#open++;
    try {
      await owner.exchange.sink.file(head, body);
    } finally {
      this.#open--;
    }
  }

  /**
   * Answers with the file of `static` that the path names. Resolves with false where it names none.
   * @throws FileError (as a rejection)
   */
  async answer(owner: FileOwner): Promise<boolean> {
    const { exchange } = owner;
    for (let attempt = 1; ; attempt++) {
      try {
        const found = await this.#static?.answer(exchange);
        if (owner.over) return true;
        if (found == null) return false;
        const { head, body } = found;
        if (body !== null && !(body instanceof Uint8Array)) {
          // A client that first sends all it has must not wait for what nobody reads.
          exchange.body?.cancel();
          await this.send(owner, head, body);
          return true;
        }
        owner.responding();
        exchange.sink.respond(head, body);
        exchange.body?.cancel();
        return true;
      } catch (error) {
        // It was replaced since it was looked at: the new one is as good.
        const replaced = REPLACED.has((error as FileError).code) && !exchange.sink.headSent;
        if (owner.over || !replaced || attempt === ATTEMPTS) throw error;
      }
    }
  }
}

/** The answer where a file could not be sent, and nothing of it was. */
export function fileFailure(error: unknown): { readonly status: FailureStatus; readonly reason: string } {
  const { code, message, stack } = error as FileError;
  const status = TRY_AGAIN.has(code) ? 503 : DENIED.has(code) ? 403 : 500;
  return { status, reason: code === undefined ? String(stack) : message };
}
