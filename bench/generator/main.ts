/**
 * The project's own load generator, for machines without h2load: a process of its own. Run as
 * `bun main.ts PORT LOAD`, the load in JSON; its last words are one line of JSON on stdout.
 */
import type { Load, Protocol } from "../load.ts";
import { percentile } from "../statistics.ts";
import type { Connect, Connection } from "./connection.ts";
import { connectHttp1 } from "./http1.ts";
import { connectHttp2 } from "./http2.ts";
import { connectHttp3 } from "./http3.ts";

export interface GeneratorReport {
  readonly failures: number;
  /** What the first failure was, or null. */
  readonly failure: string | null;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly p50: number;
  readonly p99: number;
}

const CONNECT: Readonly<Record<Protocol, Connect>> = {
  "HTTP/1.1": connectHttp1,
  "HTTP/2": connectHttp2,
  "HTTP/3": connectHttp3,
};

/** A closed loop: each stream asks again when it has its answer. */
async function generate(port: number, load: Load): Promise<GeneratorReport> {
  const latencies = new Float64Array(load.requests);
  let answered = 0;
  let failures = 0;
  let failure: string | null = null;
  const failed = (error: unknown) => {
    failures += 1;
    failure ??= String(error);
  };
  const connect = CONNECT[load.protocol];
  const connections = await Promise.all(
    Array.from({ length: load.connections }, () => connect(port, failed)),
  );

  const cpuBefore = process.cpuUsage();
  const started = performance.now();
  const repeat = async (connection: Connection, share: { left: number }) => {
    while (share.left > 0 && failures === 0) {
      share.left -= 1;
      const sent = performance.now();
      try {
        await connection.request(load);
        latencies[answered++] = performance.now() - sent;
      } catch (error) {
        failed(error);
      }
    }
  };
  await Promise.all(
    connections.flatMap((connection, index) => {
      const share = { left: Math.floor((load.requests + index) / load.connections) };
      return Array.from({ length: load.streams }, () => repeat(connection, share));
    }),
  );
  const seconds = (performance.now() - started) / 1000;
  const cpu = process.cpuUsage(cpuBefore);

  const sorted = latencies.subarray(0, answered).sort();
  const report = {
    failures,
    failure,
    seconds,
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
  };
  for (const connection of connections) connection.close();
  return report;
}

const [port, load] = process.argv.slice(2);
if (port === undefined || load === undefined) throw new Error("usage: bun main.ts PORT LOAD");
console.log(JSON.stringify(await generate(Number(port), JSON.parse(load) as Load)));
process.exit(0); // not waiting for the sessions' draining periods
