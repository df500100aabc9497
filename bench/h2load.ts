/**
 * The generator h2load (nghttp2 built with HTTP/3), version 1.70 or later, which prints percentiles. It exits 0
 * whatever happened to its requests, so the report it prints decides.
 */
import { runToEnd } from "./child.ts";
import {
  BenchError,
  type Generator,
  type Load,
  type Measurement,
  measurementOf,
  type Protocol,
} from "./load.ts";

/** Seconds of silence on a connection after which h2load counts its requests as failed. */
const SILENCE = 10;

const MILLISECONDS = { us: 0.001, ms: 1, s: 1000 } as const;

const CHOICE: Readonly<Record<Protocol, { options: readonly string[]; name: string }>> = {
  "HTTP/1.1": { options: ["--h1"], name: "http/1.1" },
  "HTTP/2": { options: ["--alpn-list=h2"], name: "h2" },
  "HTTP/3": { options: ["--h3"], name: "h3" },
};

/**
 * @param program an h2load and what stands before it
 * @throws {BenchError} where it does not run, or does not know HTTP/3
 */
export async function h2load(program: readonly string[], signal: AbortSignal): Promise<Generator> {
  const { stdout: version } = await runToEnd([...program, "--version"], signal);
  const { stdout: help } = await runToEnd([...program, "--help"], signal);
  if (!help.includes("--h3")) {
    throw new BenchError(`H2LOAD is ${program.join(" ")}, which was built without HTTP/3 (--enable-http3)`);
  }
  return {
    name: version.trim(),
    async run(port, load, signal) {
      const place = [`--connect-to=127.0.0.1:${port}`, "-t", "1", "-N", `${SILENCE}`];
      const size = ["-n", `${load.requests}`, "-c", `${load.connections}`, "-m", `${load.streams}`];
      const fields = Object.entries(load.fields ?? {}).flatMap(([name, value]) => [
        "-H",
        `${name}: ${value}`,
      ]);
      const { upload } = load;
      // It may be in a root folder of its own, where the file is not; what it has open, it has there, too.
      const body = upload === undefined ? [] : ["-d", "/dev/stdin"];
      const url = `https://localhost:${port}${load.path}`;
      const command = [
        ...program,
        ...CHOICE[load.protocol].options,
        ...place,
        ...size,
        ...fields,
        ...body,
        url,
      ];
      const finished = await runToEnd(command, signal, upload?.file ?? null);
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
  if (bytes !== n * load.responseBytes) {
    throw new BenchError(`${bytes} bytes of body, not ${n} × ${load.responseBytes}`);
  }
  const protocol = find(/^Application protocol: (.*)$/m);
  if (protocol !== CHOICE[load.protocol].name) {
    throw new BenchError(`the server chose ${protocol}, not ${load.protocol}`);
  }

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
  return measurementOf(load, { seconds, cpuSeconds, p50: latency("median"), p99: latency("p99") });
}

function milliseconds(duration: string): number {
  const [, number, unit] = /^([\d.]+)(us|ms|s)$/.exec(duration) ?? [];
  if (number === undefined || unit === undefined) throw new BenchError(`h2load: not a duration: ${duration}`);
  return Number(number) * MILLISECONDS[unit as keyof typeof MILLISECONDS];
}
