/** What exchanges of HTTP/1.1 and HTTP/2 have in common: their connection, and how they end. */
import { now } from "../clock.ts";
import type { Exchange, ExchangeId } from "../exchange.ts";

/** What the exchanges of one connection share. */
export interface ConnectionFacts {
  readonly session: string;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localPort: number;
  readonly scheme: "http" | "https";
}

export abstract class TcpExchange {
  readonly receivedAt: number = now();
  readonly id: ExchangeId;
  readonly session: string;
  readonly scheme: "http" | "https";
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localPort: number;
  aborted = false;
  headSent = false;
  onAborted: Exchange["onAborted"] = null;
  onDrain: (() => void) | null = null;
  /** The last of the response was handed over: nothing more is owed to the client. */
  protected ended = false;

  constructor(id: ExchangeId, facts: ConnectionFacts) {
    this.id = id;
    this.session = facts.session;
    this.scheme = facts.scheme;
    this.remoteAddress = facts.remoteAddress;
    this.remotePort = facts.remotePort;
    this.localPort = facts.localPort;
  }

  /** The stream has closed: unless all was sent, the client has gone. */
  protected closed(exchange: Exchange): void {
    if (this.ended || this.aborted) return;
    this.aborted = true;
    this.onAborted?.(exchange);
    this.onDrain?.();
  }
}
