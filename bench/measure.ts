/** Loads servers in turn, so that what a noisy machine does to one it does to its neighbours. */
import { BenchError, type Generator, type Load, type Protocol, type Work } from "./load.ts";
import type { Comparison } from "./loads.ts";
import { cpuSecondsOf, machineCpuSeconds } from "./processes.ts";
import type { Run, Series } from "./results.ts";
import type { RunningServer, ServerName } from "./servers.ts";

/** Requests of the first run of a warm-up, for each that is in flight at a time. */
const FIRST = 2;
/** How much longer one run of a warm-up may be than the one before. */
const GROWTH = 20;

export interface Bench {
  readonly servers: ReadonlyMap<ServerName, RunningServer>;
  readonly generators: Readonly<Record<Protocol, Generator>>;
  readonly repetitions: number;
  /** The part of a load that is run. */
  readonly part: number;
  /** Milliseconds, of the clock of `performance`. */
  readonly began: number;
  readonly signal: AbortSignal;
  say(line: string): void;
}

/**
 * Warms each server up and finds how many requests it is to get, then loads all of them in turn, again and again.
 * A server that fails is left out from there on: nothing of it is reported but why.
 */
export async function compare(bench: Bench, comparison: Comparison, x?: number): Promise<Series[]> {
  const { name, servers, size } = comparison;
  const there = servers.flatMap((name) => bench.servers.get(name) ?? []);
  if (there.length > 0) bench.say(x === undefined ? name : `${name}: ${x}`);
  const contestants = there.map((server) => new Contestant(bench, name, server));
  for (const contestant of contestants) await contestant.warmUp(comparison.work, size);
  for (let repetition = 0; repetition < bench.repetitions; repetition += 1) {
    for (const contestant of contestants) await contestant.run();
  }
  return contestants.flatMap((contestant) => contestant.series(x) ?? []);
}

/** One server within one comparison. */
class Contestant {
  readonly #bench: Bench;
  readonly #comparison: string;
  readonly #server: RunningServer;
  readonly #runs: Run[] = [];
  #work: Work | null = null;
  #requests = 0;
  #error: string | null = null;

  constructor(bench: Bench, comparison: string, server: RunningServer) {
    this.#bench = bench;
    this.#comparison = comparison;
    this.#server = server;
  }

  warmUp(work: Comparison["work"], size: Comparison["size"]): Promise<void> {
    return this.#unlessFailed(async () => {
      this.#work = typeof work === "function" ? await work(this.#server.port) : work;
      const { part } = this.#bench;
      if ("seconds" in size) {
        this.#requests = await this.#requestsOf(this.#work, size.seconds * part);
      } else {
        this.#requests = Math.ceil(size.requests * part);
        await this.#measure({ ...this.#work, requests: Math.ceil(this.#requests / 2) });
      }
    });
  }

  run(): Promise<void> {
    return this.#unlessFailed(async () => {
      if (this.#work !== null)
        this.#runs.push(await this.#measure({ ...this.#work, requests: this.#requests }));
    });
  }

  /** Null where nothing can be said. */
  series(x: number | undefined): Series | null {
    if (this.#work === null && this.#error === null) return null;
    return seriesOf(this.#comparison, this.#server.name, this.#work, x, this.#error ?? this.#runs);
  }

  /** How many requests take so many seconds; found by runs that grow to that, which warm the server up. */
  async #requestsOf(work: Work, seconds: number): Promise<number> {
    const least = work.connections * work.streams;
    for (let requests = FIRST * least; ; ) {
      const { seconds: took } = await this.#measure({ ...work, requests });
      const next = Math.max(least, Math.ceil((requests * seconds) / took));
      // So near that one more would find nothing new.
      if (took > seconds / 2) return next;
      requests = Math.min(next, requests * GROWTH);
    }
  }

  async #measure(load: Load): Promise<Run> {
    const { generators, signal, began } = this.#bench;
    const { port, pids } = this.#server;
    const at = (performance.now() - began) / 1000;
    const before = { server: cpuSecondsOf(pids), machine: machineCpuSeconds() };
    const measurement = await generators[load.protocol].run(port, load, signal);
    const { seconds } = measurement;
    const server = coresBetween(before.server, cpuSecondsOf(pids), seconds);
    const machine = coresBetween(before.machine, machineCpuSeconds(), seconds);
    const other = server === null || machine === null ? null : machine - server - measurement.generatorCores;
    // Ticks of 10 ms round to less than nothing.
    return {
      at,
      ...measurement,
      serverCores: server,
      otherCores: other === null ? null : Math.max(0, other),
    };
  }

  async #unlessFailed(step: () => Promise<void>): Promise<void> {
    if (this.#error !== null) return;
    try {
      await step();
    } catch (error) {
      this.#bench.signal.throwIfAborted();
      if (!(error instanceof BenchError)) throw error;
      this.#error = error.message;
      this.#bench.say(`${this.#comparison}: ${this.#server.name} is left out: ${error.message}`);
    }
  }
}

function coresBetween(before: number | null, after: number | null, seconds: number): number | null {
  return before === null || after === null ? null : (after - before) / seconds;
}

/** @param outcome the runs; or the error that there was */
export function seriesOf(
  comparison: string,
  server: ServerName,
  work: Work | null,
  x: number | undefined,
  outcome: readonly Run[] | string,
): Series {
  const failed = typeof outcome === "string";
  return {
    comparison,
    server,
    ...(x === undefined ? {} : { x }),
    work: work === null ? null : toldOf(work),
    runs: failed ? [] : [...outcome],
    error: failed ? outcome : null,
  };
}

function toldOf({ protocol, path, connections, streams, responseBytes, upload }: Work): Series["work"] {
  return { protocol, path, connections, streams, responseBytes, uploadBytes: upload?.bytes ?? 0 };
}
