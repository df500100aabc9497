/**
 * What `npm run bench` and `npm run bench:scale` have in common: they start servers, measure, stop the servers whatever
 * happens, and write what was measured.
 */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generate } from "selfsigned";
import { FILE_BYTES, MIB } from "./apps/answers.ts";
import { BenchError } from "./load.ts";
import { describeMachine, describeProject, slugOf } from "./machine.ts";
import type { Bench } from "./measure.ts";
import { findPrograms } from "./programs.ts";
import { publish, render } from "./render.ts";
import { checkSame, FOLDER, type Missing, nameOf, type Results, readResults, writeAll } from "./results.ts";
import {
  type Certificate,
  type Place,
  type RunningServer,
  SERVERS,
  type ServerName,
  startServer,
  startUpstream,
} from "./servers.ts";
import { parseSettings, type Settings } from "./settings.ts";

const REPETITIONS = 3;
/** The part of every load that is a look in seconds. */
const QUICK = 1 / 20;

/** A file to send, of any length up to that. */
const UPLOAD_BYTES = 256 * MIB;

type Series = Results["series"];

export interface Measuring {
  readonly bench: Bench;
  readonly place: Place;
  /** A file to send, of `UPLOAD_BYTES`. */
  readonly upload: string;
  /** Measures what a comparison is asked for and not measured yet: what `measure` resolves with is kept. */
  compare(name: string, measure: () => Promise<Series>): Promise<void>;
}

interface Kind {
  readonly kind: Results["kind"];
  /** What it measures; those that are not installed are left out, and the result says so. */
  readonly servers: readonly ServerName[];
  readonly measure: (measuring: Measuring) => Promise<void>;
}

/**
 * Runs a benchmark from its arguments to its files. Says on stderr how far it is, and on stdout what was found. No server
 * stays behind, whatever happens, and what was measured until then is written.
 */
export async function runBenchmark(kind: Kind): Promise<never> {
  const abort = new AbortController();
  // Again and again: nothing is left behind by who asks twice, and no stop takes longer than its limit.
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => abort.abort(new BenchError(`ended by ${name}`)));
  }
  try {
    const settings = parseSettings();
    if (settings.publish === null) await measureAll(kind, settings, abort.signal);
    else console.log((await publish(await readResults(settings.publish))).join("\n"));
  } catch (error) {
    console.error(`bench: ${error instanceof BenchError ? error.message : Bun.inspect(error)}`);
    process.exitCode = 1;
  }
  process.exit();
}

/** @throws {BenchError} where anything of what was asked for is not among the figures */
async function measureAll(kind: Kind, settings: Settings, signal: AbortSignal): Promise<void> {
  const earlier = settings.resume === null ? null : await readResults(settings.resume);
  const results = await resultsOf(kind, settings, earlier, signal);
  const { markdown, files } = render(results);
  const name = nameOf(results, slugOf(results.machine));
  const json = `${JSON.stringify(results, null, 1)}\n`;
  const named = Object.fromEntries(Object.entries(files).map(([file, text]) => [`${name}-${file}`, text]));
  const paths = await writeAll(FOLDER, { [`${name}.json`]: json, [`${name}.md`]: markdown, ...named });
  console.log(`${markdown}\n${paths.join("\n")}`);
  if (results.ended !== null) {
    throw new BenchError(`${results.ended}; --resume ${paths[0]} measures what is missing`);
  }
  if (results.series.some(({ error }) => error !== null)) {
    throw new BenchError("some servers had errors: of those there are no figures");
  }
}

async function resultsOf(
  { kind, servers: asked, measure }: Kind,
  settings: Settings,
  earlier: Results | null,
  signal: AbortSignal,
): Promise<Results> {
  const began = performance.now();
  const date = new Date().toISOString();
  const { programs, generators, versions, missing } = await findPrograms(signal);
  const say = (line: string) => console.error(`bench: ${line}`);
  for (const { what, how } of missing) say(`without ${what}: ${how}`);

  const folder = await mkdtemp(join(tmpdir(), "tercet-bench-"));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const files = await prepare(folder);
  const options = settings.reactors === null ? {} : { reactors: settings.reactors };
  const alone: Place = { ...files, folder, programs, options, upstream: null };
  const wanted = asked.filter((name) => settings.servers?.includes(name) ?? true).filter(installed(alone));
  const needsUpstream = wanted.some((name) => name.endsWith("-node"));
  const place = needsUpstream ? { ...alone, upstream: stack.use(await startUpstream(alone)) } : alone;
  // Started one after another. While one is loaded the others wait, and take no time.
  const servers = new Map<ServerName, RunningServer>();
  const absent: Missing[] = [...missing];
  for (const name of wanted) {
    signal.throwIfAborted();
    try {
      servers.set(name, stack.use(await startServer(name, place)));
    } catch (error) {
      if (!(error instanceof BenchError)) throw error;
      say(error.message);
      absent.push({ what: SERVERS[name].label, how: error.message });
    }
  }
  const repetitions = settings.quick ? 1 : REPETITIONS;
  const conditions = {
    format: "tercet-bench/1",
    kind,
    quick: settings.quick,
    repetitions,
    project: await describeProject(signal),
    machine: describeMachine(),
    versions: { ...versions, ...upstreamOf(place) },
    generators: Object.fromEntries(
      Object.entries(generators).map(([protocol, { name }]) => [protocol, name]),
    ),
    options,
    servers: [...servers.keys()].map((name) => ({
      name,
      label: SERVERS[name].label,
      group: SERVERS[name].group,
    })),
  } as const;
  if (earlier !== null) checkSame(conditions, earlier);

  const series = (earlier?.series ?? []).filter(wholeOf(earlier));
  const bench = { servers, generators, repetitions, part: settings.quick ? QUICK : 1, began, signal, say };
  const compare: Measuring["compare"] = async (name, measureIt) => {
    if (!settings.wants(name) || series.some(({ comparison }) => comparison === name)) return;
    series.push(...(await measureIt()));
  };
  let ended: string | null = null;
  try {
    await measure({ bench, place, upload: files.upload, compare });
  } catch (error) {
    if (!signal.aborted) throw error;
    ended = String(signal.reason.message);
  }
  const took = Math.round((performance.now() - began) / 1000) + (earlier?.took ?? 0);
  return { ...conditions, date: earlier?.date ?? date, took, ended, missing: absent, series };
}

/** What has an error is measured again, with all that it is compared with. */
function wholeOf(earlier: Results | null): (series: Series[number]) => boolean {
  const failed = new Set(earlier?.series.filter(({ error }) => error !== null).map((one) => one.comparison));
  return ({ comparison }) => !failed.has(comparison);
}

function installed({ programs }: Place): (name: ServerName) => boolean {
  return (name) => {
    const { needs } = SERVERS[name];
    return needs === undefined || programs[needs] !== null;
  };
}

function upstreamOf({ upstream, programs }: Place): Record<string, string> {
  if (upstream === null) return {};
  return { "node:http behind nginx and Caddy": programs.node === null ? "on Bun" : "on Node.js" };
}

async function prepare(folder: string) {
  const file = join(folder, "file.bin");
  await writeFile(file, randomBytes(FILE_BYTES));
  const upload = join(folder, "upload.bin");
  await writeFile(upload, "");
  await truncate(upload, UPLOAD_BYTES);
  return { certificate: await makeCertificate(folder), file, upload };
}

async function makeCertificate(folder: string): Promise<Certificate> {
  const names = [{ name: "commonName", value: "localhost" }];
  const pems = await generate(names, { keyType: "ec", algorithm: "sha256" });
  const certificate = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem") };
  await writeFile(certificate.cert, pems.cert);
  await writeFile(certificate.key, pems.private, { mode: 0o600 });
  return certificate;
}
