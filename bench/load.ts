/** What the benchmark measures: the loads, their targets, and what every generator says of one run. */
import { FILE_BYTES, GREETING, STREAM_BYTES } from "./apps/answers.ts";

export interface Load {
  readonly name: string;
  readonly path: "/" | "/stream" | "/file" | "/json";
  readonly connections: number;
  /** Requests in flight on each connection. */
  readonly streams: number;
  /** Over all connections. */
  readonly requests: number;
  /** Bytes of each response's body: any other length is a failure. */
  readonly responseBytes: number;
  /** What each request says in the field of that name; without it there is none. */
  readonly acceptEncoding?: string;
}

export interface Measurement {
  /** From the first packet or request to the last response. */
  readonly seconds: number;
  readonly requestsPerSecond: number;
  /** Response bodies, in millions of bytes. */
  readonly megabytesPerSecond: number;
  /** Milliseconds from sending a request to the end of its response. */
  readonly p50: number;
  readonly p99: number;
  /** The generator's own processor time, in cores. Near 1, the generator is what was measured. */
  readonly generatorCores: number;
}

export type Metric = "requestsPerSecond" | "megabytesPerSecond" | "p50" | "p99";

/** What is asked of the ratio Tercet (event form) / raw Bun.serve. */
export interface Target {
  readonly metric: Metric;
  readonly bound: "at least" | "at most";
  readonly ratio: number;
}

export interface Generator {
  /** Name and version, for the report. */
  readonly name: string;
  /** Loads the server on 127.0.0.1. @throws {BenchError} where any request failed. */
  run(port: number, load: Load, signal: AbortSignal): Promise<Measurement>;
}

/** A run that cannot be reported, and why. */
export class BenchError extends Error {
  override readonly name = "BenchError";
}

interface Comparison {
  readonly load: Load;
  readonly metrics: readonly Metric[];
  readonly target: Target;
}

function hello(connections: number, streams: number, requests: number): Load {
  const name = `${connections} × ${streams}`;
  return { name, path: "/", connections, streams, requests, responseBytes: GREETING.length };
}

const RATES = ["requestsPerSecond", "p50", "p99"] as const;

export const COMPARISONS: readonly Comparison[] = [
  {
    load: hello(10, 10, 150_000),
    metrics: RATES,
    target: { metric: "requestsPerSecond", bound: "at least", ratio: 0.42 },
  },
  {
    load: hello(50, 20, 150_000),
    metrics: RATES,
    target: { metric: "requestsPerSecond", bound: "at least", ratio: 0.6 },
  },
  {
    load: hello(1, 1, 20_000),
    metrics: RATES,
    target: { metric: "p50", bound: "at most", ratio: 2.5 },
  },
  {
    load: {
      name: "256 MiB stream",
      path: "/stream",
      connections: 1,
      streams: 1,
      requests: 3,
      responseBytes: STREAM_BYTES,
    },
    metrics: ["megabytesPerSecond"],
    target: { metric: "megabytesPerSecond", bound: "at least", ratio: 0.5 },
  },
  {
    // `response.sendfile` beside `Bun.file`; the fetch form's file crosses the wire.
    load: {
      name: "1 MiB file, 4 × 4",
      path: "/file",
      connections: 4,
      streams: 4,
      requests: 1500,
      responseBytes: FILE_BYTES,
    },
    metrics: ["megabytesPerSecond"],
    target: { metric: "megabytesPerSecond", bound: "at least", ratio: 0.8 },
  },
];

export const REPETITIONS = 3;
/** The part of a load that gives a quick look. */
export const QUICK = 1 / 10;

/** The same load with a fraction of the requests: to warm a server up, or for a quick look. */
export function fraction(load: Load, part: number): Load {
  return { ...load, requests: Math.ceil(load.requests * part) };
}
