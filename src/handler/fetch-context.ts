/** What a `fetch` handler is given beside its request. Both are made for each request, and look things up when asked. */
import { isIPv6 } from "node:net";
import type { Exchange, Protocol } from "../exchange.ts";
import type { Server } from "../server.ts";
import { background } from "./background.ts";

/** The second argument of `fetch`, which Hono has as `c.env`: facts that a web `Request` does not tell. */
export class FetchEnv {
  readonly #exchange: Exchange;
  /** For `task`, `defer`, `broadcast`, `table` and `stats`. A field `server` would be taken for Bun's by `hono/bun`. */
  readonly tercet: Server;

  constructor(exchange: Exchange, server: Server) {
    this.#exchange = exchange;
    this.tercet = server;
  }

  get protocol(): Protocol {
    return this.#exchange.protocol;
  }

  get remoteAddress(): string {
    return this.#exchange.remoteAddress;
  }

  get remotePort(): number {
    return this.#exchange.remotePort;
  }

  /** The client's address in the form of Bun's `server.requestIP(request)`, by which `hono/bun`'s `getConnInfo` asks. */
  requestIP(_request?: Request): { address: string; family: "IPv4" | "IPv6"; port: number } {
    const { remoteAddress: address, remotePort: port } = this.#exchange;
    return { address, family: isIPv6(address) ? "IPv6" : "IPv4", port };
  }
}

/** The third argument of `fetch`, which Hono has as `c.executionCtx`. */
export class FetchContext {
  readonly #exchange: Exchange;
  #props: object | null = null;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  /** What Cloudflare's runtime gives, and Hono's type asks for; empty here. */
  get props(): unknown {
    this.#props ??= {};
    return this.#props;
  }

  /**
   * Work that goes on after the response: at shutdown the worker stays until the promise has settled, for up to
   * `shutdownTimeout`. What it rejects with goes to the log.
   */
  waitUntil(promise: Promise<unknown>): void {
    background.add(this.#exchange, promise);
  }

  /** For handlers that run elsewhere too. Here there is no origin to pass through to: what fails is a 500. */
  passThroughOnException(): void {}
}
