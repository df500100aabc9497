/** What a run of the benchmark leaves behind: a file of JSON with every single figure, and how it is written and read. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { BenchError, PROTOCOLS } from "./load.ts";

/** Where every run writes. */
export const FOLDER = join(import.meta.dir, "results");

/** JSON has no NaN and no infinity: what could not be measured is null. */
const FIGURE = v.nullable(v.number());

const RUN = v.strictObject({
  /** Seconds from the start of the benchmark. */
  at: v.number(),
  requests: v.number(),
  seconds: v.number(),
  requestsPerSecond: v.number(),
  megabytesPerSecond: v.number(),
  /** Milliseconds. */
  p50: v.number(),
  p99: v.number(),
  generatorCores: FIGURE,
  /** Processor time of all the server's processes, in cores. */
  serverCores: FIGURE,
  /** That of everything else on the machine, and what other machines took from it. */
  otherCores: FIGURE,
  /** Bytes of memory for each idle connection, where there are some. */
  bytesPerConnection: v.optional(FIGURE),
});

const SERIES = v.strictObject({
  /** What it is compared within: `HTTP/3 10 × 10`. */
  comparison: v.string(),
  server: v.string(),
  /** Where the comparison follows something that grows: how much of it. */
  x: v.optional(v.number()),
  /** What a generator was told; null where it came to none. */
  work: v.nullable(
    v.strictObject({
      protocol: v.picklist(PROTOCOLS),
      path: v.string(),
      connections: v.number(),
      streams: v.number(),
      responseBytes: v.number(),
      uploadBytes: v.number(),
    }),
  ),
  /** In the order in which they were measured; none where one of them had an error. */
  runs: v.array(RUN),
  /** Why there are none. */
  error: v.nullable(v.string()),
});

const RESULTS = v.strictObject({
  format: v.literal("tercet-bench/1"),
  kind: v.picklist(["bench", "scale"]),
  /** ISO 8601, of the start. */
  date: v.string(),
  /** Seconds that all of it took. */
  took: v.number(),
  /** Why it ended before all was measured; null where it did not. */
  ended: v.nullable(v.string()),
  /** A look in seconds: measures nothing well. */
  quick: v.boolean(),
  repetitions: v.number(),
  project: v.strictObject({ version: v.string(), commit: v.nullable(v.string()) }),
  machine: v.strictObject({
    processor: v.string(),
    cores: v.number(),
    memoryBytes: v.number(),
    kernel: v.string(),
  }),
  /** By program; those that were used. */
  versions: v.record(v.string(), v.string()),
  /** Name and version, by protocol. */
  generators: v.record(v.picklist(PROTOCOLS), v.string()),
  /** Options of Tercet beside the defaults. */
  options: v.record(v.string(), v.unknown()),
  servers: v.array(
    v.strictObject({ name: v.string(), label: v.string(), group: v.picklist(["tercet", "bare", "other"]) }),
  ),
  /** What was not measured, and what it takes. */
  missing: v.array(v.strictObject({ what: v.string(), how: v.string() })),
  series: v.array(SERIES),
});

export type Run = v.InferOutput<typeof RUN>;
export type Series = v.InferOutput<typeof SERIES>;
export type Results = v.InferOutput<typeof RESULTS>;
export type Machine = Results["machine"];
export type Project = Results["project"];
export type Missing = Results["missing"][number];

/** `2026-11-24-1405-amd-epyc-2-cores`, by the time of the start. */
export function nameOf({ kind, date, quick }: Results, machine: string): string {
  const time = date.slice(11, 16).replace(":", "");
  return [
    date.slice(0, 10),
    time,
    machine,
    ...(kind === "bench" ? [] : [kind]),
    ...(quick ? ["quick"] : []),
  ].join("-");
}

/** @throws {BenchError} for what is no such file */
export async function readResults(path: string): Promise<Results> {
  let json: unknown;
  try {
    json = await Bun.file(path).json();
  } catch (cause) {
    throw new BenchError(`${path} cannot be read: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
  const parsed = v.safeParse(RESULTS, json);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new BenchError(`${path} is no result of this benchmark: ${v.getDotPath(issue)}: ${issue.message}`);
}

const CONDITIONS = [
  "kind",
  "quick",
  "repetitions",
  "project",
  "machine",
  "versions",
  "generators",
  "options",
  "servers",
] as const satisfies readonly (keyof Results)[];

/** Figures under other conditions are not to be put beside each other. @throws {BenchError} */
export function checkSame(now: Pick<Results, (typeof CONDITIONS)[number]>, then: Results): void {
  for (const key of CONDITIONS) {
    if (Bun.deepEquals(now[key], then[key])) continue;
    const [mine, other] = [now[key], then[key]].map((value) => JSON.stringify(value));
    throw new BenchError(`cannot go on with a result whose ${key} was ${other}: it is ${mine} now`);
  }
}

/** Writes text files into a folder, by their names. @returns their paths */
export async function writeAll(folder: string, files: Readonly<Record<string, string>>): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  return Promise.all(
    Object.entries(files).map(async ([name, text]) => {
      const path = join(folder, name);
      await Bun.write(path, text);
      return path;
    }),
  );
}
