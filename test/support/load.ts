/** A steady load on every protocol at once, over connections that were opened before it and are looked at after it. */
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

/** One that may be sent again where its answer was lost, and one that may not. */
export const MIXED_REQUESTS: readonly ClientRequest[] = [
  { path: "/wait?ms=10" },
  { method: "POST", path: "/raw", body: "the body of a request that must not be sent twice" },
];

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

  /** Ends; what was not as it should be: answers, and connections that were closed or do not serve any more. */
  async harm(): Promise<string[]> {
    await this.end();
    const harm = this.wrong.slice(0, 10);
    if (this.wrong.length > harm.length) harm.push(`${this.wrong.length} requests in all`);
    const [quiche, http2] = this.#clients;
    if (quiche.closedBecause !== null) harm.push(`the HTTP/3 connection was closed: ${quiche.closedBecause}`);
    if (http2.isLost) harm.push("the HTTP/2 connection was closed");
    if (harm.length > 0) return harm;
    // Used after all that was done to the server: a connection may only seem to be open.
    for (const client of this.#clients) {
      const answered = this.answered.get(client.name) ?? 0;
      if (answered <= 10) harm.push(`${client.name} had ${answered} answers, which proves nothing`);
      const response = await client.request({ path: "/hello" });
      const text = await response.body.text();
      if (response.status !== 200 || text !== `Hello from ${client.protocol}!`) {
        harm.push(`${client.name} GET /hello afterwards: ${response.status} ${text}`);
      }
    }
    return harm;
  }

  /** @throws Error (as a rejection) where there was any harm */
  async expectUnharmed(): Promise<void> {
    const harm = await this.harm();
    if (harm.length > 0) throw new Error(`the load was harmed:\n${harm.join("\n")}`);
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
