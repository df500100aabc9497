/**
 * `npm run bench`: a raw Bun.serve and Tercet (one reactor, one worker; in the event form and in the fetch form),
 * started one after another and loaded in turn by the same HTTP/3 generator, three times; then a table of medians and
 * ratios beside the project's targets.
 * A run in which any request failed is not reported: the exit code is 1.
 *
 *   --quick       one short repetition: shows that all of it works, measures nothing well
 *   --json FILE   writes every single measurement to FILE
 *   CADDY=…       the command line of a Caddy: a compressed response is compared with the same through it
 *   H2LOAD=…      the command line of an h2load with HTTP/3, 1.70 or later; without it, the project's own generator
 */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, release, tmpdir, type } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { generate } from "selfsigned";
import { FILE_BYTES } from "./apps/answers.ts";
import { compareCompression } from "./caddy.ts";
import { h2load } from "./h2load.ts";
import {
  BenchError,
  COMPARISONS,
  fraction,
  type Generator,
  type Load,
  type Measurement,
  QUICK,
  REPETITIONS,
} from "./load.ts";
import { ownGenerator } from "./own.ts";
import { table } from "./report.ts";
import { type Certificate, SERVER_NAMES, type ServerName, startServer } from "./servers.ts";

/** The part of a load that warms a server up. */
const WARM_UP = 1 / 3;

async function makeCertificate(folder: string): Promise<Certificate> {
  const names = [{ name: "commonName", value: "localhost" }];
  const pems = await generate(names, { keyType: "ec", algorithm: "sha256" });
  const certificate = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem") };
  await writeFile(certificate.cert, pems.cert);
  await writeFile(certificate.key, pems.private, { mode: 0o600 });
  return certificate;
}

type Servers = Readonly<Record<ServerName, { readonly port: number }>>;

/** One load on each server in turn, so that what a noisy machine does to one it does to its neighbours. */
async function measure(
  servers: Servers,
  order: readonly ServerName[],
  load: Load,
  generator: Generator,
  signal: AbortSignal,
): Promise<Record<ServerName, Measurement>> {
  const measurements: Partial<Record<ServerName, Measurement>> = {};
  for (const name of order) {
    try {
      measurements[name] = await generator.run(servers[name].port, load, signal);
    } catch (error) {
      throw error instanceof BenchError ? new BenchError(`${name}, ${load.name}: ${error.message}`) : error;
    }
  }
  return measurements as Record<ServerName, Measurement>;
}

function parseOptions() {
  try {
    return parseArgs({ options: { quick: { type: "boolean", default: false }, json: { type: "string" } } })
      .values;
  } catch (cause) {
    throw new BenchError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

async function main(signal: AbortSignal): Promise<void> {
  const { quick, json } = parseOptions();
  const command = process.env.H2LOAD?.trim();
  const generator = command ? await h2load(command, signal) : ownGenerator;
  const processors = cpus();
  const system = `${type()} ${release()} · Bun ${Bun.version}`;
  const machine = `${processors[0]?.model}, ${processors.length} cores · ${system} · ${generator.name}`;
  console.log(machine);

  const results = new Map<string, Record<ServerName, Measurement[]>>();
  for (const { load } of COMPARISONS) results.set(load.name, { raw: [], event: [], fetch: [] });
  const repetitions = quick ? 1 : REPETITIONS;
  let compression = "";
  const folder = await mkdtemp(join(tmpdir(), "tercet-bench-"));
  try {
    const certificate = await makeCertificate(folder);
    const file = join(folder, "file.bin");
    await writeFile(file, randomBytes(FILE_BYTES));
    // Started one after another. While one is loaded the others wait, and take no time.
    await using raw = await startServer("raw", certificate, file);
    await using event = await startServer("event", certificate, file);
    await using fetch = await startServer("fetch", certificate, file);
    const servers = { raw, event, fetch };
    for (const { load } of COMPARISONS) {
      console.error(`bench: ${load.name}`);
      await measure(servers, SERVER_NAMES, fraction(load, quick ? QUICK : WARM_UP), generator, signal);
      for (let repetition = 0; repetition < repetitions; repetition += 1) {
        const order = repetition % 2 === 0 ? SERVER_NAMES : SERVER_NAMES.toReversed();
        const measured = quick ? fraction(load, QUICK) : load;
        const found = await measure(servers, order, measured, generator, signal);
        for (const name of SERVER_NAMES) results.get(load.name)?.[name].push(found[name]);
      }
    }
    const caddy = process.env.CADDY?.trim();
    if (caddy) {
      compression = await compareCompression(caddy, certificate, event.port, generator, quick, signal);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }

  console.log(`\n${table(results)}\n`);
  if (compression !== "") console.log(`${compression}\n`);
  const basis = quick
    ? "one short repetition, for a quick look only"
    : `medians of ${repetitions} repetitions`;
  console.log(`Loads are connections × streams on each; ${basis}. Every request was answered 2xx, whole.`);
  if (json !== undefined) {
    const raw = { machine, repetitions, quick, results: Object.fromEntries(results) };
    await writeFile(json, `${JSON.stringify(raw, null, 2)}\n`);
  }
}

const abort = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, () => abort.abort(new BenchError(`ended by ${name}`)));
}
try {
  await main(abort.signal);
} catch (error) {
  console.error(`bench: no report: ${error instanceof BenchError ? error.message : Bun.inspect(error)}`);
  process.exitCode = 1;
}
