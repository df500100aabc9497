/**
 * `npm run bench`: a raw Bun.serve and Tercet (one reactor, one worker; in the event form and in the fetch form),
 * started one after another and loaded with the same HTTP/3 generator, in interleaved repetitions; then a table of
 * medians and ratios beside the project's targets.
 * A run in which any request failed is not reported: the exit code is 1.
 *
 *   --quick       one short repetition: shows that all of it works, measures nothing well
 *   --json FILE   writes every single measurement to FILE
 *   H2LOAD=…      the command line of an h2load with HTTP/3, 1.70 or later; without it, the project's own generator
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, release, tmpdir, type } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { generate } from "selfsigned";
import { h2load } from "./h2load.ts";
import { BenchError, COMPARISONS, fraction, type Generator, type Measurement } from "./load.ts";
import { ownGenerator } from "./own.ts";
import { table } from "./report.ts";
import { type Certificate, SERVER_NAMES, type ServerName, startServer } from "./servers.ts";

const REPETITIONS = 3;
/** Parts of a load that warm a server up, and that give a quick look. */
const WARM_UP = 1 / 3;
const QUICK = 1 / 10;

async function makeCertificate(folder: string): Promise<Certificate> {
  const names = [{ name: "commonName", value: "localhost" }];
  const pems = await generate(names, { keyType: "ec", algorithm: "sha256" });
  const certificate = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem") };
  await writeFile(certificate.cert, pems.cert);
  await writeFile(certificate.key, pems.private, { mode: 0o600 });
  return certificate;
}

/** One repetition of one server: started, warmed up, measured with every load, stopped. */
async function measure(
  name: ServerName,
  certificate: Certificate,
  generator: Generator,
  quick: boolean,
  signal: AbortSignal,
): Promise<Map<string, Measurement>> {
  await using server = await startServer(name, certificate);
  const measurements = new Map<string, Measurement>();
  for (const { load } of COMPARISONS) {
    try {
      await generator.run(server.port, fraction(load, quick ? QUICK : WARM_UP), signal);
      const measured = quick ? fraction(load, QUICK) : load;
      measurements.set(load.name, await generator.run(server.port, measured, signal));
    } catch (error) {
      throw error instanceof BenchError ? new BenchError(`${name}, ${load.name}: ${error.message}`) : error;
    }
  }
  return measurements;
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
  const folder = await mkdtemp(join(tmpdir(), "tercet-bench-"));
  try {
    const certificate = await makeCertificate(folder);
    for (let repetition = 0; repetition < repetitions; repetition += 1) {
      const order = repetition % 2 === 0 ? SERVER_NAMES : SERVER_NAMES.toReversed();
      for (const name of order) {
        console.error(`bench: repetition ${repetition + 1} of ${repetitions}: ${name}`);
        const measurements = await measure(name, certificate, generator, quick, signal);
        for (const [load, measurement] of measurements) results.get(load)?.[name].push(measurement);
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }

  console.log(`\n${table(results)}\n`);
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
