/** What `npm run bench:scale` lets grow, and what it looks at. */
import { GREETING, KIB, MIB } from "./apps/answers.ts";
import type { Work } from "./load.ts";
import type { Metric } from "./loads.ts";
import type { ServerName } from "./servers.ts";

export interface ScaleShape {
  /** Of its files. */
  readonly id: string;
  readonly name: string;
  /** What grows. */
  readonly axis: string;
  readonly shape: "linear" | "log";
  readonly xs: readonly number[];
  readonly servers: readonly ServerName[];
  readonly metrics: readonly Exclude<Metric, "p50">[];
}

/** One where each x is a load of its own. */
export interface LoadScale extends ScaleShape {
  readonly work: (x: number) => Work;
  /** How many by x; without it as many as take a time. */
  readonly requests?: (x: number) => number;
  /** Options of Tercet by x: then it is started anew for each. */
  readonly options?: (x: number) => { readonly workers?: number; readonly reactors?: number };
}

const SERVERS = ["raw", "process", "base"] as const;
const TERCET = ["process", "base"] as const;
const RATES = ["requestsPerSecond", "p99"] as const;
const HELLO = { protocol: "HTTP/3", path: "/", responseBytes: GREETING.length } as const;
const SMALL = { ...HELLO, connections: 10, streams: 10 } as const;
const BODY_SIZES = [0, KIB, 16 * KIB, 256 * KIB, MIB, 8 * MIB, 64 * MIB];
const HEAD_SIZES = [100, KIB, 4 * KIB, 16 * KIB, 32 * KIB];
/** Microseconds of a handler's own work, so that workers and nothing else are what is short. */
const COMPUTE = 500;

export const LOAD_SCALES: readonly LoadScale[] = [
  {
    id: "connections",
    name: "Connections, 1 stream on each",
    axis: "connections",
    shape: "log",
    xs: [1, 2, 4, 8, 16, 32, 64, 128, 256],
    servers: SERVERS,
    metrics: RATES,
    work: (connections) => ({ ...HELLO, connections, streams: 1 }),
    // Enough of them that the handshakes, which are in the same time, do not weigh most.
    requests: (connections) => 10_000 + 100 * connections,
  },
  {
    id: "streams",
    name: "Streams on each of 10 connections",
    axis: "streams",
    shape: "linear",
    xs: [1, 5, 10, 20, 50, 100],
    servers: SERVERS,
    metrics: RATES,
    work: (streams) => ({ ...HELLO, connections: 10, streams }),
  },
  {
    id: "bodies",
    name: "Bytes of a response's body, 2 × 1",
    axis: "bytes",
    shape: "log",
    xs: BODY_SIZES,
    servers: SERVERS,
    metrics: ["megabytesPerSecond", "p99"],
    work: (bytes) => ({
      protocol: "HTTP/3",
      path: `/download/${bytes}`,
      connections: 2,
      streams: 1,
      responseBytes: bytes,
    }),
  },
  {
    id: "response-heads",
    name: "Bytes of a field of the response, 10 × 10",
    axis: "bytes",
    shape: "linear",
    xs: HEAD_SIZES,
    servers: SERVERS,
    metrics: RATES,
    work: (bytes) => ({ ...SMALL, path: `/fields/${bytes}` }),
  },
  {
    id: "request-heads",
    name: "Bytes of a field of the request, 10 × 10",
    axis: "bytes",
    shape: "linear",
    xs: HEAD_SIZES,
    servers: SERVERS,
    metrics: RATES,
    work: (bytes) => ({ ...SMALL, fields: { "x-padding": "a".repeat(bytes) } }),
  },
  {
    id: "workers",
    name: `Workers, each request ${COMPUTE} µs of computing, 10 × 10`,
    axis: "workers",
    shape: "linear",
    xs: [1, 2, 4, 8],
    servers: TERCET,
    metrics: RATES,
    work: () => ({ ...SMALL, path: `/compute/${COMPUTE}` }),
    options: (workers) => ({ workers }),
  },
  {
    id: "reactors",
    name: "Reactors, 50 × 20",
    axis: "reactors",
    shape: "linear",
    xs: [1, 2, 4],
    servers: ["process"],
    metrics: RATES,
    work: () => ({ ...HELLO, connections: 50, streams: 20 }),
    options: (reactors) => ({ reactors }),
  },
];

export const IDLE_SCALE: ScaleShape = {
  id: "idle",
  name: "Idle connections",
  axis: "connections",
  shape: "linear",
  xs: [1000, 2500, 5000, 10_000],
  servers: SERVERS,
  metrics: ["bytesPerConnection"],
};

export const SCALES: readonly ScaleShape[] = [...LOAD_SCALES, IDLE_SCALE];
