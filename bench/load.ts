/** What a generator is told to do, and what it says of one run. */

export const PROTOCOLS = ["HTTP/3", "HTTP/2", "HTTP/1.1"] as const;
export type Protocol = (typeof PROTOCOLS)[number];

/** A body that each request sends. */
export interface Upload {
  /** Where it lies. */
  readonly file: string;
  readonly bytes: number;
}

/** One kind of request, and how many of them are under way at a time. */
export interface Work {
  readonly protocol: Protocol;
  readonly path: string;
  readonly connections: number;
  /** Requests in flight on each connection; 1 for HTTP/1.1. */
  readonly streams: number;
  /** Bytes of each response's body as they are sent: any other length is a failure. */
  readonly responseBytes: number;
  /** Fields of each request, by name. */
  readonly fields?: Readonly<Record<string, string>> | undefined;
  readonly upload?: Upload | undefined;
}

export interface Load extends Work {
  /** Over all connections. */
  readonly requests: number;
}

export interface Measurement {
  readonly requests: number;
  /** From the first packet or request to the last response. */
  readonly seconds: number;
  readonly requestsPerSecond: number;
  /** Bodies of responses and requests, in millions of bytes. */
  readonly megabytesPerSecond: number;
  /** Milliseconds from sending a request to the end of its response. */
  readonly p50: number;
  readonly p99: number;
  /** The generator's own processor time, in cores. Near 1, the generator is what was measured. */
  readonly generatorCores: number;
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

/** What follows from the four figures that every generator gives. */
export function measurementOf(
  load: Load,
  figures: { seconds: number; cpuSeconds: number; p50: number; p99: number },
): Measurement {
  const { seconds, cpuSeconds, p50, p99 } = figures;
  const { requests, responseBytes, upload } = load;
  return {
    requests,
    seconds,
    requestsPerSecond: requests / seconds,
    megabytesPerSecond: (requests * (responseBytes + (upload?.bytes ?? 0))) / 1e6 / seconds,
    p50,
    p99,
    generatorCores: cpuSeconds / seconds,
  };
}
