/**
 * Holds HTTP/3 connections that are idle: run as `bun idle.ts PORT`. Each line of stdin is a number of connections to
 * have; each is opened and asks once, and a line of JSON on stdout says how that went. `ask` has every one ask again, so
 * that it is known that the server still has them all.
 */

import { QuicEndpoint } from "node:quic";
import { createInterface } from "node:readline";
import { GREETING } from "../apps/answers.ts";
import type { Load } from "../load.ts";
import { percentile } from "../statistics.ts";
import type { Connection } from "./connection.ts";
import { connectHttp3 } from "./http3.ts";

/** Connections that share a UDP socket, so that no limit of open files stands in the way. */
const PER_SOCKET = 50;
/** Connections that are being opened at a time. */
const AT_ONCE = 20;

const LOAD: Load = {
  protocol: "HTTP/3",
  path: "/",
  connections: 1,
  streams: 1,
  responseBytes: GREETING.length,
  requests: 1,
};

export interface IdleReport {
  readonly failure: string | null;
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Milliseconds from the first packet of a connection to the end of its first answer. */
  readonly p50: number;
  readonly p99: number;
}

class Holder {
  readonly #port: number;
  readonly #connections: Connection[] = [];
  #endpoint: QuicEndpoint | null = null;
  #opened = 0;
  #failure: string | null = null;

  constructor(port: number) {
    this.#port = port;
  }

  /** Opens what is missing to `count`. */
  grow(count: number): Promise<IdleReport> {
    const left = Array.from({ length: count - this.#connections.length }, () => async () => {
      if (this.#opened++ % PER_SOCKET === 0) this.#endpoint = new QuicEndpoint();
      const failed = (error: unknown) => this.#failed(error);
      const connection = await connectHttp3(this.#port, failed, this.#endpoint ?? undefined);
      await connection.request(LOAD);
      this.#connections.push(connection);
    });
    return this.#all(left);
  }

  ask(): Promise<IdleReport> {
    return this.#all(this.#connections.map((connection) => () => connection.request(LOAD)));
  }

  async #all(steps: (() => Promise<void>)[]): Promise<IdleReport> {
    const cpuBefore = process.cpuUsage();
    const started = performance.now();
    const took: number[] = [];
    const work = async () => {
      for (let step = steps.pop(); step !== undefined && this.#failure === null; step = steps.pop()) {
        const began = performance.now();
        try {
          await step();
          took.push(performance.now() - began);
        } catch (error) {
          this.#failed(error);
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    const seconds = (performance.now() - started) / 1000;
    const { user, system } = process.cpuUsage(cpuBefore);
    const sorted = Float64Array.from(took).sort();
    const [p50, p99] = [percentile(sorted, 0.5), percentile(sorted, 0.99)];
    return { failure: this.#failure, seconds, cpuSeconds: (user + system) / 1e6, p50, p99 };
  }

  #failed(error: unknown): void {
    this.#failure ??= String(error);
  }
}

const [port] = process.argv.slice(2);
if (port === undefined) throw new Error("usage: bun idle.ts PORT");
const holder = new Holder(Number(port));
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await (line === "ask" ? holder.ask() : holder.grow(Number(line)))));
}
process.exit(0); // whoever had them held has what it wanted: nobody waits for their draining periods
