/**
 * The generator h2load (nghttp2 built with HTTP/3), version 1.70 or later, which prints percentiles. It exits 0
 * whatever happened to its requests, so the report it prints decides.
 */
import { runToEnd } from "./child.ts";
import { BenchError, type Generator, type Load, type Measurement } from "./load.ts";

/** Seconds of silence on a connection after which h2load counts its requests as failed. */
const SILENCE = 10;

const MILLISECONDS = { us: 0.001, ms: 1, s: 1000 } as const;

/** `command` is a program and its arguments, separated by spaces: what the environment variable H2LOAD holds. */
export async function h2load(command: string, signal: AbortSignal): Promise<Generator> {
  const program = command.trim().split(/\s+/);
  const { stdout } = await runToEnd([...program, "--version"], signal);
  return {
    name: stdout.trim(),
    async run(port, load, signal) {
      const options = ["--h3", `--connect-to=127.0.0.1:${port}`, "-t", "1", "-N", `${SILENCE}`];
      const size = ["-n", `${load.requests}`, "-c", `${load.connections}`, "-m", `${load.streams}`];
      const { acceptEncoding } = load;
      const fields = acceptEncoding === undefined ? [] : ["-H", `accept-encoding: ${acceptEncoding}`];
      const url = `https://localhost:${port}${load.path}`;
      const finished = await runToEnd([...program, ...options, ...size, ...fields, url], signal);
      return parseReport(finished.stdout, load, finished.cpuSeconds);
    },
  };
}

/** @throws {BenchError} where a request failed, was answered with another status than 2xx or with another length. */
export function parseReport(report: string, load: Load, cpuSeconds: number): Measurement {
  const find = (pattern: RegExp): string => {
    const found = pattern.exec(report)?.[1];
    if (found === undefined) throw new BenchError(`h2load printed nothing like ${pattern}:\n${report}`);
    return found;
  };
  const requests = find(/^requests: (.*)$/m);
  const statuses = find(/^status codes: (.*)$/m);
  const bytes = Number(find(/^traffic: .* headers .*\((\d+)\) data$/m));
  const n = load.requests;
  const allDone = `${n} total, ${n} started, ${n} done, ${n} succeeded, 0 failed, 0 errored, 0 timeout`;
  if (requests !== allDone || statuses !== `${n} 2xx, 0 3xx, 0 4xx, 0 5xx`) {
    throw new BenchError(`requests: ${requests}; status codes: ${statuses}`);
  }
  if (bytes !== load.requests * load.responseBytes) {
    throw new BenchError(`${bytes} bytes of body, not ${n} × ${load.responseBytes}`);
  }
  find(/^(Application protocol: h3)$/m);

  const columns = find(/^( +min +max .*)$/m)
    .trim()
    .split(/\s+/);
  const durations = find(/^request +: +(.*)$/m).split(/\s+/);
  const latency = (column: string): number => {
    const duration = durations[columns.indexOf(column)];
    if (duration === undefined)
      throw new BenchError(`h2load prints no ${column}: version 1.70 or later does`);
    return milliseconds(duration);
  };
  const seconds = milliseconds(find(/^finished in ([^,]+),/m)) / 1000;
  return {
    seconds,
    requestsPerSecond: load.requests / seconds,
    megabytesPerSecond: bytes / 1e6 / seconds,
    p50: latency("median"),
    p99: latency("p99"),
    generatorCores: cpuSeconds / seconds,
  };
}

function milliseconds(duration: string): number {
  const [, number, unit] = /^([\d.]+)(us|ms|s)$/.exec(duration) ?? [];
  if (number === undefined || unit === undefined) throw new BenchError(`h2load: not a duration: ${duration}`);
  return Number(number) * MILLISECONDS[unit as keyof typeof MILLISECONDS];
}
