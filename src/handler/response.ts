/** A response as a handler makes it: the head, then a body at once or piece by piece. */
import type { Exchange } from "../exchange.ts";
import { toBytes } from "../http/body.ts";
import { isConnectionSpecific, unsendableFieldLine } from "../http/fields.ts";
import { forbidsBody } from "../http/semantics.ts";

export type Chunk = string | Uint8Array | ArrayBuffer;

/** A call that the state of the response does not allow, such as a header after the head was sent. */
export class ResponseStateError extends Error {
  readonly code = "TERCET_RESPONSE_STATE";
  override readonly name = "ResponseStateError";
}

export class HttpResponse {
  readonly #exchange: Exchange;
  #status = 200;
  #fields: string[] = [];
  #state: "open" | "streaming" | "ended" = "open";
  #drained: Promise<void> | null = null;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  /** The head has gone to the client: status and headers are settled. */
  get headSent(): boolean {
    return this.#state !== "open";
  }

  /** `end` was called. */
  get ended(): boolean {
    return this.#state === "ended";
  }

  /**
   * Sets the status; 200 by default.
   * @param code from 200 to 599 (RFC 9110 §15)
   * @throws RangeError for another number, ResponseStateError after the head was sent
   */
  status(code: number): this {
    this.#mustBeOpen("status");
    if (!Number.isInteger(code) || code < 200 || code > 599) {
      throw new RangeError(`status: ${code} is not a final status from 200 to 599`);
    }
    this.#status = code;
    return this;
  }

  /**
   * Sets a field, in place of what it was before. Names are taken in any case and sent in lower case.
   * @throws TypeError for a name or value that RFC 9110 §5 forbids, a line of over 65,503 bytes, or a field of the connection (RFC 9113 §8.2.2),
   * which is the server's own; ResponseStateError after the head was sent
   */
  header(name: string, value: string | number): this {
    this.#mustBeOpen("header");
    const lower = name.toLowerCase();
    const text = String(value).trim();
    const wrong = unsendableFieldLine(lower, text);
    if (wrong !== null) throw new TypeError(`header: ${wrong}`);
    if (isConnectionSpecific(lower)) throw new TypeError(`header: "${lower}" is for the server to send`);
    const at = this.#find(lower);
    if (at === -1) this.#fields.push(lower, text);
    else this.#fields[at + 1] = text;
    return this;
  }

  /**
   * Sends a piece of the body, and before the first the head. Resolves when there is room for more: a slow client
   * holds its handler back. Resolves too when the client has gone; see `request.signal`.
   * @throws ResponseStateError (as a rejection) after `end`
   */
  write(chunk: Chunk): Promise<void> {
    if (this.#state === "ended")
      return Promise.reject(new ResponseStateError("write: the response has ended"));
    const bytes = toBytes(chunk);
    const { sink } = this.#exchange;
    if (this.#state === "open") {
      this.#state = "streaming";
      sink.head({ status: this.#status, fields: this.#fields });
    }
    if (this.#exchange.aborted || this.#bodyForbidden || sink.data(bytes)) return Promise.resolve();
    this.#drained ??= this.#drain();
    return this.#drained;
  }

  /**
   * Ends the response, with a last piece of the body where one is given. Without a `write` before it the whole
   * response leaves at once, with its `content-length`.
   * @throws ResponseStateError when the response had ended
   */
  end(chunk?: Chunk): void {
    if (this.#state === "ended") throw new ResponseStateError("end: the response has ended");
    const bytes = chunk === undefined ? null : toBytes(chunk);
    const { sink } = this.#exchange;
    const before = this.#state;
    this.#state = "ended";
    const body = this.#bodyForbidden ? null : bytes;
    if (before === "streaming") {
      if (body !== null) sink.data(body);
      sink.end();
      return;
    }
    const noLength = this.#status === 204 || this.#status === 304;
    if (!noLength && this.#find("content-length") === -1 && (bytes !== null || !this.#bodyForbidden)) {
      this.#fields.push("content-length", String(bytes?.length ?? 0));
    }
    sink.respond({ status: this.#status, fields: this.#fields }, body);
  }

  get #bodyForbidden(): boolean {
    return forbidsBody(this.#exchange.method, this.#status);
  }

  #drain(): Promise<void> {
    return new Promise((resolve) => {
      this.#exchange.sink.onDrain = () => {
        this.#drained = null;
        resolve();
      };
    });
  }

  #find(name: string): number {
    for (let i = 0; i < this.#fields.length; i += 2) {
      if (this.#fields[i] === name) return i;
    }
    return -1;
  }

  #mustBeOpen(call: string): void {
    if (this.#state !== "open") throw new ResponseStateError(`${call}: the head of the response was sent`);
  }
}
