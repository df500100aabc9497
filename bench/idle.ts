/** What a server holds for each idle HTTP/3 connection: its memory with many of them, less what it was before. */

import { GREETING } from "./apps/answers.ts";
import type { IdleReport } from "./generator/idle.ts";
import { BenchError } from "./load.ts";
import type { IdleComparison } from "./loads.ts";
import { type Bench, seriesOf } from "./measure.ts";
import { memoryOf } from "./processes.ts";
import type { Run, Series } from "./results.ts";
import { type Place, type RunningServer, startServer } from "./servers.ts";

const PROGRAM = `${import.meta.dir}/generator/idle.ts`;
/** Connections that a server has had before its memory is first looked at. */
const WARM_UP = 100;
/** Milliseconds between two looks at a server's memory, and until it has to have come to rest. */
const INTERVAL = 500;
const REST_LIMIT = 10_000;
/** The part by which two looks may differ. */
const REST = 0.01;

/** Each server is started anew for each repetition: memory that was freed is not always given back. */
export async function measureIdle(bench: Bench, place: Place, comparison: IdleComparison): Promise<Series[]> {
  const { name, servers } = comparison;
  const connections = Math.ceil(comparison.connections * bench.part);
  bench.say(name);
  const outcomes = new Map<(typeof servers)[number], Run[] | string>();
  for (const server of servers) if (bench.servers.has(server)) outcomes.set(server, []);
  for (let repetition = 0; repetition < bench.repetitions; repetition += 1) {
    for (const [server, outcome] of outcomes) {
      if (typeof outcome === "string") continue;
      try {
        await using started = await startServer(server, place);
        outcome.push(await oneOf(bench, started, connections));
      } catch (error) {
        bench.signal.throwIfAborted();
        if (!(error instanceof BenchError)) throw error;
        outcomes.set(server, error.message);
        bench.say(`${name}: ${server} is left out: ${error.message}`);
      }
    }
  }
  const work = {
    protocol: "HTTP/3",
    path: "/",
    connections,
    streams: 1,
    responseBytes: GREETING.length,
  } as const;
  return [...outcomes].map(([server, outcome]) => seriesOf(name, server, work, undefined, outcome));
}

async function oneOf(bench: Bench, server: RunningServer, connections: number): Promise<Run> {
  await using idle = new IdleConnections(server.port, bench.signal);
  await idle.grow(WARM_UP);
  const before = await memoryAtRest(server);
  const at = (performance.now() - bench.began) / 1000;
  const { seconds, cpuSeconds, p50, p99 } = await idle.grow(WARM_UP + connections);
  const after = await memoryAtRest(server);
  await idle.ask();
  const megabytesPerSecond = (connections * GREETING.length) / 1e6 / seconds;
  return {
    at,
    requests: connections,
    seconds,
    requestsPerSecond: connections / seconds,
    megabytesPerSecond,
    p50,
    p99,
    generatorCores: cpuSeconds / seconds,
    serverCores: null,
    otherCores: null,
    bytesPerConnection: before === null || after === null ? null : (after - before) / connections,
  };
}

/** Null where this machine does not tell. */
async function memoryAtRest({ pids }: RunningServer): Promise<number | null> {
  let before = memoryOf(pids);
  for (const until = performance.now() + REST_LIMIT; performance.now() < until; ) {
    await Bun.sleep(INTERVAL);
    const now = memoryOf(pids);
    if (before === null || now === null) return null;
    if (Math.abs(now - before) < REST * before) return now;
    before = now;
  }
  return before;
}

/** Connections of a process of its own, which closes them by leaving. */
export class IdleConnections implements AsyncDisposable {
  readonly #child;
  readonly #lines: AsyncIterator<string>;

  constructor(port: number, signal: AbortSignal) {
    this.#child = Bun.spawn([process.execPath, PROGRAM, `${port}`], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "ignore",
      signal,
      killSignal: "SIGKILL",
    });
    this.#lines = linesOf(this.#child.stdout);
  }

  /** @throws {BenchError} where the server closed one of them, or one was not answered */
  grow(count: number): Promise<IdleReport> {
    return this.#tell(`${count}`);
  }

  /** Has every one ask again. @throws {BenchError} */
  ask(): Promise<IdleReport> {
    return this.#tell("ask");
  }

  async #tell(line: string): Promise<IdleReport> {
    this.#child.stdin.write(`${line}\n`);
    await this.#child.stdin.flush();
    const { value } = await this.#lines.next();
    if (value === undefined) throw new BenchError("the process that holds connections has ended");
    const report = JSON.parse(value) as IdleReport;
    if (report.failure !== null) throw new BenchError(`a connection failed: ${report.failure}`);
    return report;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stdin.end();
    await this.#child.exited;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    yield* lines;
  }
}
