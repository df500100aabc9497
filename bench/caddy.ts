/** A compressed response of 64 KiB from Tercet, and the same through Caddy from a Bun behind it, both over HTTP/3. */
import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { BenchError, fraction, type Generator, type Load, QUICK, REPETITIONS } from "./load.ts";
import type { Certificate } from "./servers.ts";
import { median } from "./statistics.ts";

const START_LIMIT = 10_000;
const CODINGS = ["zstd", "gzip"] as const;
const REQUESTS = 15_000;

type Coding = (typeof CODINGS)[number];

/** A table of medians and their ratio. Tercet is the server of apps/event.ts, with one worker. */
export async function compareCompression(
  command: string,
  certificate: Certificate,
  tercet: number,
  generator: Generator,
  quick: boolean,
  signal: AbortSignal,
): Promise<string> {
  await using upstream = start([process.execPath, `${import.meta.dir}/apps/upstream.ts`], "");
  const line = await upstream.output.getReader().read();
  const caddy = await freePort();
  const config = configOf(caddy, Number(new TextDecoder().decode(line.value)), {
    certificate: await readFile(certificate.cert, "utf8"),
    key: await readFile(certificate.key, "utf8"),
  });
  await using _ = start([...command.split(/\s+/), "run", "--config", "-"], config);
  const ports = { tercet, caddy };
  const rows: string[] = [];
  for (const coding of CODINGS) {
    const rates = { tercet: [] as number[], caddy: [] as number[] };
    const loads = {
      tercet: await loadOf(tercet, coding),
      caddy: await loadOf(caddy, coding),
    };
    for (let repetition = 0; repetition <= (quick ? 1 : REPETITIONS); repetition++) {
      for (const name of ["tercet", "caddy"] as const) {
        const load = fraction(loads[name], quick || repetition === 0 ? QUICK : 1);
        const { requestsPerSecond } = await generator.run(ports[name], load, signal);
        // The first warms up.
        if (repetition > 0) rates[name].push(requestsPerSecond);
      }
    }
    const ratio = median(rates.tercet.map((rate, i) => rate / (rates.caddy[i] ?? Number.NaN)));
    const cells = (["tercet", "caddy"] as const).map(
      (name) => `${Math.round(median(rates[name])).toLocaleString("en")} | ${loads[name].responseBytes}`,
    );
    rows.push(`| ${coding} | ${cells.join(" | ")} | ${ratio.toFixed(2)} |`);
  }
  return [
    "| JSON of 64 KiB, 10 × 10 | Tercet, requests/s | bytes | Caddy and Bun, requests/s | bytes | ratio |",
    "|---|---:|---:|---:|---:|---:|",
    ...rows,
  ].join("\n");
}

/** With the length of the response as this server compresses it; waits until it answers. */
async function loadOf(port: number, coding: Coding): Promise<Load> {
  const headers = { "accept-encoding": coding };
  const tls = { rejectUnauthorized: false };
  for (const until = performance.now() + START_LIMIT; ; ) {
    try {
      const response = await fetch(`https://localhost:${port}/json`, { headers, tls, decompress: false });
      const { byteLength } = await response.arrayBuffer();
      const sent = response.headers.get("content-encoding");
      if (sent !== coding) throw new BenchError(`port ${port} answered ${coding} with ${sent}`);
      const size = { connections: 10, streams: 10, requests: REQUESTS };
      return { name: coding, path: "/json", ...size, responseBytes: byteLength, acceptEncoding: coding };
    } catch (error) {
      if (error instanceof BenchError || performance.now() > until) throw error;
      await Bun.sleep(50);
    }
  }
}

function start(command: readonly string[], input: string) {
  const child = Bun.spawn([...command], { stdin: Buffer.from(input), stdout: "pipe", stderr: "inherit" });
  const stop = async () => {
    child.kill("SIGTERM");
    await child.exited;
  };
  return { output: child.stdout, [Symbol.asyncDispose]: stop };
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" ? (address?.port ?? 0) : 0));
    });
  });
}

/** `encode zstd gzip` before `reverse_proxy`, and nothing else. The certificate is in it: Caddy may live in a chroot. */
function configOf(port: number, upstream: number, pair: { certificate: string; key: string }): string {
  const encode = { handler: "encode", encodings: { zstd: {}, gzip: {} }, prefer: ["zstd", "gzip"] };
  const proxy = { handler: "reverse_proxy", upstreams: [{ dial: `127.0.0.1:${upstream}` }] };
  const server = {
    listen: [`127.0.0.1:${port}`],
    automatic_https: { disable: true },
    tls_connection_policies: [{}],
    routes: [{ handle: [encode, proxy] }],
  };
  return JSON.stringify({
    admin: { disabled: true },
    logging: { logs: { default: { level: "ERROR" } } },
    apps: {
      http: { servers: { bench: server } },
      tls: { certificates: { load_pem: [pair] } },
    },
  });
}
