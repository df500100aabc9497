/** An exchange as a handler has it, wherever its client's socket is: its head, and what every way to answer has in common. */
import type {
  Exchange,
  ExchangeId,
  Fields,
  FileBody,
  RequestBody,
  RequestHead,
  ResponseHead,
  Sink,
} from "../exchange.ts";
import type { ContentCoding } from "../http/content-coding.ts";
import type { TrustedProxies } from "../http/proxy.ts";

/** What lies between a client and a handler. */
export interface HandlerSettings {
  /** Null where responses leave as they are given. */
  readonly compression: ContentCoding | null;
  /** Null where no proxy is trusted. */
  readonly proxies: TrustedProxies | null;
}

/** An exchange that is its own sink. */
export interface AnsweringExchange extends Exchange, Sink {
  /** The client has gone, or the exchange was ended from elsewhere. */
  abandon(reason: string): void;
  /** There is room for more of the body. */
  drained(): void;
}

export abstract class HandlerExchange implements AnsweringExchange {
  abstract readonly body: RequestBody | null;
  readonly id: ExchangeId;
  aborted = false;
  headSent = false;
  onAborted: Exchange["onAborted"] = null;
  onOver: (() => void) | null = null;
  onDrain: (() => void) | null = null;
  readonly #head: RequestHead;

  constructor(id: ExchangeId, head: RequestHead) {
    this.id = id;
    this.#head = head;
  }

  get malformed(): null {
    return null;
  }
  get protocol() {
    return this.#head.protocol;
  }
  get method(): string {
    return this.#head.method;
  }
  get scheme() {
    return this.#head.scheme;
  }
  get authority(): string {
    return this.#head.authority;
  }
  get path(): string {
    return this.#head.path;
  }
  get fields(): Fields {
    return this.#head.fields;
  }
  get receivedAt(): number {
    return this.#head.receivedAt;
  }
  get remoteAddress(): string {
    return this.#head.remoteAddress;
  }
  get remotePort(): number {
    return this.#head.remotePort;
  }
  get localPort(): number {
    return this.#head.localPort;
  }
  get session(): string {
    return this.#head.session;
  }
  get stream(): number {
    return this.#head.stream;
  }
  get sendsInterim(): boolean {
    return this.#head.sendsInterim;
  }
  get sendsTrailers(): boolean {
    return this.#head.sendsTrailers;
  }
  get sink(): Sink {
    return this;
  }

  abstract respond(head: ResponseHead, body: Uint8Array | string | null): void;
  abstract inform(head: ResponseHead): boolean;
  abstract file(head: ResponseHead, body: FileBody): Promise<void>;
  abstract head(head: ResponseHead): void;
  abstract data(chunk: Uint8Array): boolean;
  abstract end(trailers: Fields | null): void;
  abstract abort(reason: string): void;
  abstract abandon(reason: string): void;

  drained(): void {
    this.onDrain?.();
  }
}
