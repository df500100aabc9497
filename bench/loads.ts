/** What `npm run bench` measures. */
import { FILE_BYTES, GREETING, MIB } from "./apps/answers.ts";
import { BenchError, type Protocol, type Upload, type Work } from "./load.ts";
import { ask, SERVER_NAMES, SERVERS, type ServerName } from "./servers.ts";

export type Metric = "requestsPerSecond" | "megabytesPerSecond" | "p50" | "p99" | "bytesPerConnection";

/** One load on several servers. */
export interface Comparison {
  readonly name: string;
  readonly servers: readonly ServerName[];
  /** What is asked; of a server on that port, where the length of its answers is its own. */
  readonly work: Work | ((port: number) => Promise<Work>);
  /** How much of it: so many requests, or as many as take so many seconds. */
  readonly size: { readonly requests: number } | { readonly seconds: number };
}

/** Connections that ask once, and then nothing. */
export interface IdleComparison {
  readonly name: string;
  readonly servers: readonly ServerName[];
  readonly connections: number;
}

const STREAM_BYTES = 256 * MIB;
const STREAMS = ["raw", "process", "base", "fetch"] as const;
const CODINGS = ["zstd", "gzip"] as const;

/** Of a run. */
const SECONDS = 1;

const IDLE_CONNECTIONS = 10_000;
/** `node:quic` does not get as far: see docs/guide/http3.md. */
const QUIC_IDLE_CONNECTIONS = 500;
export const IDLE = idleName(IDLE_CONNECTIONS);
export const QUIC_IDLE = idleName(QUIC_IDLE_CONNECTIONS);
export const DOWN = "HTTP/3 256 MiB down";
export const UP = "HTTP/3 256 MiB up";
export const FILE = "HTTP/3 1 MiB file, 4 × 4";

/** Connections × requests in flight on each; HTTP/1.1 has one. */
export const SIZES = [
  [10, 10],
  [50, 20],
  [1, 1],
] as const;

export function greetingName(protocol: Protocol, connections: number, streams: number): string {
  return protocol === "HTTP/1.1" ? `${protocol} ${connections}` : `${protocol} ${connections} × ${streams}`;
}

function idleName(connections: number): string {
  return `HTTP/3 ${connections.toLocaleString("en")} idle connections`;
}

function greeting(protocol: Protocol): Comparison[] {
  return SIZES.map(([connections, atOnce]) => {
    const streams = protocol === "HTTP/1.1" ? 1 : atOnce;
    return {
      name: greetingName(protocol, connections, streams),
      servers: SERVER_NAMES.filter((name) => SERVERS[name].protocols.includes(protocol)),
      work: { protocol, path: "/", connections, streams, responseBytes: GREETING.length },
      size: { seconds: SECONDS },
    };
  });
}

/** Bodies over HTTP/3. @param file of 256 MiB, to send */
function bodies(file: string): Comparison[] {
  const one = { protocol: "HTTP/3", connections: 1, streams: 1 } as const;
  const upload: Upload = { file, bytes: STREAM_BYTES };
  return [
    {
      name: DOWN,
      servers: STREAMS,
      work: { ...one, path: `/download/${STREAM_BYTES}`, responseBytes: STREAM_BYTES },
      size: { requests: 2 },
    },
    {
      name: UP,
      servers: STREAMS,
      work: { ...one, path: `/upload/${STREAM_BYTES}`, responseBytes: GREETING.length, upload },
      size: { requests: 2 },
    },
    {
      // `response.sendfile` beside `Bun.file`; the fetch form's file crosses the wire.
      name: FILE,
      servers: STREAMS,
      work: { protocol: "HTTP/3", connections: 4, streams: 4, path: "/file", responseBytes: FILE_BYTES },
      size: { requests: 500 },
    },
    ...CODINGS.map(
      (coding): Comparison => ({
        name: `HTTP/3 64 KiB of JSON by ${coding}, 10 × 10`,
        servers: ["process", "base", "caddy-node"],
        work: (port) => compressed(port, coding),
        size: { seconds: SECONDS },
      }),
    ),
  ];
}

/** As a server compresses it. @throws {BenchError} where it does not */
async function compressed(port: number, coding: string): Promise<Work> {
  const fields = { "accept-encoding": coding };
  const response = await ask(port, "/json", "HTTP/3", fields);
  const { byteLength } = await response.arrayBuffer();
  const sent = response.headers.get("content-encoding");
  if (response.status !== 200 || sent !== coding) {
    throw new BenchError(`the answer was ${response.status}, and its coding ${sent}, not ${coding}`);
  }
  return {
    protocol: "HTTP/3",
    path: "/json",
    connections: 10,
    streams: 10,
    responseBytes: byteLength,
    fields,
  };
}

export interface Plan {
  readonly comparisons: readonly Comparison[];
  readonly idle: readonly IdleComparison[];
}

/** @param file of 256 MiB */
export function plan(file: string): Plan {
  return {
    comparisons: [...greeting("HTTP/3"), ...greeting("HTTP/2"), ...greeting("HTTP/1.1"), ...bodies(file)],
    idle: [
      { name: IDLE, servers: ["raw", "process", "base"], connections: IDLE_CONNECTIONS },
      { name: QUIC_IDLE, servers: ["node-quic", "quic"], connections: QUIC_IDLE_CONNECTIONS },
    ],
  };
}
