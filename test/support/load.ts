/** A steady load on every protocol at once, over connections that were opened before it and are looked at after it. */
import { expect } from "bun:test";
import type { Client, ClientRequest } from "./client.ts";
import { type Endpoint, HTTP1, HTTP2, QUICHE } from "./clients.ts";
import type { Http2Client } from "./http2-client.ts";
import type { QuicheClient } from "./http3-quiche-client.ts";

export interface LoadSettings {
  /** Each is sent again and again, on every protocol. */
  readonly requests: readonly ClientRequest[];
  /** How many of each are under way at a time on each connection. */
  readonly parallel?: number;
  /** What an answer must be. */
  readonly isRight?: (status: number, text: string) => boolean;
}

const isOk = (status: number) => status === 200;

export class Load implements AsyncDisposable {
  /** Answers that were right, by client. */
  readonly answered = new Map<string, number>();
  /** Answers that were not, and requests that had none. */
  readonly wrong: string[] = [];
  /** The longest that an answer took, milliseconds. */
  slowest = 0;
  readonly #clients: readonly [QuicheClient, Http2Client, Client];
  readonly #isRight: (status: number, text: string) => boolean;
  #isOver = false;
  #runs: Promise<unknown> = Promise.resolve();

  private constructor(clients: readonly [QuicheClient, Http2Client, Client], settings: LoadSettings) {
    this.#clients = clients;
    this.#isRight = settings.isRight ?? isOk;
  }

  static async begin(server: Endpoint, settings: LoadSettings): Promise<Load> {
    const clients = await Promise.all([QUICHE.open(server), HTTP2.open(server), HTTP1.open(server)]);
    const load = new Load(
      clients as [Client, Client, Client] as [QuicheClient, Http2Client, Client],
      settings,
    );
    const each = Array.from({ length: settings.parallel ?? 4 }, () => settings.requests).flat();
    load.#runs = Promise.all(
      clients.flatMap((client) => each.map((request) => load.#repeat(client, request))),
    );
    return load;
  }

  get count(): number {
    return [...this.answered.values()].reduce((sum, count) => sum + count, 0);
  }

  /** Stops, and waits for what is under way. */
  async end(): Promise<void> {
    this.#isOver = true;
    await this.#runs;
  }

  /** Ends; every request was answered rightly, on every protocol, and no connection was closed. */
  async expectUnharmed(): Promise<void> {
    await this.end();
    expect(this.wrong.slice(0, 10)).toEqual([]);
    const [quiche, http2] = this.#clients;
    expect(quiche.closedBecause).toBeNull();
    expect(http2.isLost).toBe(false);
    // Used after all that was done to the server: the connection does not only seem to be open.
    for (const client of this.#clients) {
      expect(this.answered.get(client.name)).toBeGreaterThan(10);
      const response = await client.request({ path: "/hello" });
      expect([response.status, await response.body.text()]).toEqual([200, `Hello from ${client.protocol}!`]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    for (const client of this.#clients) await client.close();
  }

  async #repeat(client: Client, request: ClientRequest): Promise<void> {
    while (!this.#isOver) {
      const began = performance.now();
      const name = `${client.name} ${request.method ?? "GET"} ${request.path}`;
      try {
        const response = await client.request(request);
        const text = await response.body.text();
        if (this.#isRight(response.status, text)) {
          this.answered.set(client.name, (this.answered.get(client.name) ?? 0) + 1);
        } else this.wrong.push(`${name}: ${response.status} ${text}`);
      } catch (error) {
        this.wrong.push(`${name}: ${error}`);
      }
      this.slowest = Math.max(this.slowest, performance.now() - began);
    }
  }
}
