/**
 * What a `node:http` handler finds as `req.socket`: facts of the client's connection, and events. The socket itself is
 * in the reactor, shared with other requests; so `destroy` ends the one exchange, and there is nothing to read or write.
 */
import { EventEmitter } from "node:events";
import type { ServerResponse } from "node:http";
import { isIPv6 } from "node:net";
import type { Exchange } from "../exchange.ts";

export class NodeSocket extends EventEmitter {
  /** TLS, or QUIC. */
  readonly encrypted: boolean;
  /** No client is asked for a certificate. */
  readonly authorized = false;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly remoteFamily: "IPv4" | "IPv6";
  readonly localPort: number;
  readable = true;
  writable = true;
  destroyed = false;
  /** Milliseconds; 0 for none. */
  timeout = 0;
  readonly #response: () => Pick<ServerResponse, "writableEnded" | "destroy">;
  #timer: NodeJS.Timeout | null = null;

  /** @param response which is made after its socket */
  constructor(exchange: Exchange, response: () => Pick<ServerResponse, "writableEnded" | "destroy">) {
    super();
    this.encrypted = exchange.scheme === "https";
    this.remoteAddress = exchange.remoteAddress;
    this.remotePort = exchange.remotePort;
    this.remoteFamily = isIPv6(exchange.remoteAddress) ? "IPv6" : "IPv4";
    this.localPort = exchange.localPort;
    this.#response = response;
  }

  /** Emits `timeout` after so many milliseconds without a read or a write; 0 for never. */
  setTimeout(timeout: number, callback?: () => void): this {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.timeout = timeout;
    if (callback !== undefined) this.once("timeout", callback);
    if (timeout > 0 && !this.destroyed) this.#timer = setTimeout(() => this.emit("timeout"), timeout);
    return this;
  }

  /** Something was read or written. */
  active(): void {
    this.#timer?.refresh();
  }

  destroy(error?: Error): this {
    if (!this.destroyed) this.#response().destroy(error);
    return this;
  }

  /** What has ended is sent before. */
  destroySoon(): void {
    if (!this.#response().writableEnded) this.destroy();
  }

  end(): this {
    this.destroySoon();
    return this;
  }

  /** The exchange is over. */
  exchangeOver(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.readable = false;
    this.writable = false;
    this.setTimeout(0);
    this.emit("close", false);
  }

  address(): { port: number } {
    return { port: this.localPort };
  }

  /** Empty, as `node:tls` has it for a client that has shown none. */
  getPeerCertificate(): object {
    return {};
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  cork(): void {}

  uncork(): void {}
}
