/** Server-sent events (HTML, "Server-sent events"): a response that never ends by itself. */
import { inspect } from "node:util";
import type { Exchange } from "../exchange.ts";
import { fieldValue } from "../http/fields.ts";
import { unknownName } from "../unknown-name.ts";
import { onOver } from "./request.ts";

export interface ServerSentEvent {
  /** Each line becomes a `data` line; an object is sent as JSON. */
  data: unknown;
  /** The event's type. @default "message" */
  event?: string;
  /** What the client says as `last-event-id` when it connects again. */
  id?: string;
  /** Milliseconds that the client waits before it connects again. */
  retry?: number;
}

export interface EventStreamOptions {
  /** Milliseconds between comments that keep the connection from being taken for dead; 0 for none. @default 15000 */
  heartbeat?: number;
}

interface Body {
  readonly ended: boolean;
  write(chunk: string): Promise<void>;
  end(): void;
}

const OPTION_NAMES: readonly (keyof EventStreamOptions)[] = ["heartbeat"];
const EVENT_NAMES: readonly (keyof ServerSentEvent)[] = ["data", "event", "id", "retry"];
const HEARTBEAT = 15_000;
const LINE_END = /\r\n|\r|\n/;

export class EventStream {
  /** Resolves when the stream is over: closed here, or its client has left, or its response was ended otherwise. */
  readonly closed: Promise<void>;
  /** The id of the last event that the client saw before it connected again; empty where it is new. */
  readonly lastEventId: string;
  readonly #body: Body;
  readonly #heartbeat: NodeJS.Timeout | undefined;
  #isOpen = true;
  #settle: () => void = () => {};

  constructor(exchange: Exchange, body: Body, options: EventStreamOptions) {
    mustBeKnown(options, OPTION_NAMES);
    const { heartbeat = HEARTBEAT } = options;
    if (!(heartbeat >= 0 && heartbeat < 2 ** 31)) {
      throw new RangeError(`sse: heartbeat is ${inspect(heartbeat)}, not milliseconds from 0 to 2^31 - 1`);
    }
    this.#body = body;
    this.lastEventId = fieldValue(exchange.fields, "last-event-id") ?? "";
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
    if (heartbeat > 0) this.#heartbeat = setInterval(() => void this.comment(""), heartbeat);
    // Its handler may fail, or end the response itself, and the client may have left before.
    if (exchange.aborted) this.#over();
    else onOver(exchange, () => this.#over());
  }

  /** Events can still be sent. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /**
   * Sends an event, at once. Resolves when there is room for more, and when the stream is over.
   * @param event the data alone, or with type, id and retry
   * @throws TypeError (as a rejection) for a line break or NUL where there can be none, and for a name that there is none of
   */
  async send(event: string | ServerSentEvent): Promise<void> {
    const given: ServerSentEvent = typeof event === "string" ? { data: event } : event;
    mustBeKnown(given, EVENT_NAMES);
    const { data, event: type, id, retry } = given;
    let text = "";
    if (type !== undefined) text += `event: ${oneLine("event", type)}\n`;
    if (id !== undefined) {
      if (id.includes("\0")) throw new TypeError("sse: a client ignores an id with NUL");
      text += `id: ${oneLine("id", id)}\n`;
    }
    if (retry !== undefined) {
      if (!Number.isInteger(retry) || retry < 0)
        throw new TypeError(`sse: retry is ${inspect(retry)}, not milliseconds`);
      text += `retry: ${retry}\n`;
    }
    const content = typeof data === "string" ? data : JSON.stringify(data);
    if (content === undefined) throw new TypeError(`sse: data is ${typeof data}, which JSON has not`);
    for (const line of content.split(LINE_END)) text += `data: ${line}\n`;
    await this.#write(`${text}\n`);
  }

  /** Sends a comment, which clients ignore. */
  async comment(text: string): Promise<void> {
    await this.#write(
      `${text
        .split(LINE_END)
        .map((line) => `: ${line}\n`)
        .join("")}\n`,
    );
  }

  /** Ends the stream. The client will connect again: answer that with status 204 to have it stop. */
  close(): void {
    if (!this.#isOpen) return;
    this.#over();
    if (!this.#body.ended) this.#body.end();
  }

  async #write(text: string): Promise<void> {
    if (this.#isOpen && !this.#body.ended) await this.#body.write(text);
  }

  #over(): void {
    this.#isOpen = false;
    clearInterval(this.#heartbeat);
    this.#settle();
  }
}

/** @throws TypeError */
function mustBeKnown(given: object, known: readonly string[]): void {
  const fault = unknownName(given, known);
  if (fault !== null) throw new TypeError(`sse: ${fault}`);
}

function oneLine(what: string, text: string): string {
  if (LINE_END.test(text)) throw new TypeError(`sse: there is a line break in the ${what} "${text}"`);
  return text;
}
