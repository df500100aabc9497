/** Starts and stops the servers, each in processes of its own, on a port the system chose. */
import { join } from "node:path";
import { FILE_VARIABLE } from "./apps/answers.ts";
import { BenchError } from "./load.ts";

const ROOT = join(import.meta.dir, "..");
const READY = /^\w+: ready on https:\/\/\S+:(\d+) /m;

/** Milliseconds for a server to become ready, and for it to stop when asked. */
const START_LIMIT = 30_000;
const STOP_LIMIT = 10_000;

/** `event` and `fetch` are Tercet, with a handler in either form. */
export const SERVER_NAMES = ["raw", "event", "fetch"] as const;
export type ServerName = (typeof SERVER_NAMES)[number];

export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

export interface RunningServer extends AsyncDisposable {
  readonly port: number;
}

function command(name: ServerName, { cert, key }: Certificate): string[] {
  if (name !== "fetch") return [`bench/apps/${name}.ts`, cert, key];
  const serve = ["src/cli/main.ts", "serve", "bench/apps/hello.ts", "--mode", "process", "--http3", "native"];
  const place = ["--host", "127.0.0.1", "--port", "0", "--reactors", "1", "--workers", "1"];
  return [...serve, ...place, "--cert", cert, "--key", key];
}

/** @throws {BenchError} where the server does not become ready; nothing is left running then. */
export async function startServer(
  name: ServerName,
  certificate: Certificate,
  file: string,
): Promise<RunningServer> {
  const child = Bun.spawn([process.execPath, ...command(name, certificate)], {
    cwd: ROOT,
    env: { ...process.env, NODE_ENV: "production", [FILE_VARIABLE]: file },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const stop = async () => {
    const ended = child.exitCode !== null || child.signalCode !== null;
    const limit = setTimeout(() => child.kill("SIGKILL"), STOP_LIMIT);
    child.kill("SIGTERM");
    await child.exited;
    clearTimeout(limit);
    const end = child.signalCode ?? `exit code ${child.exitCode}`;
    if (ended) console.error(`bench: ${name} ended by itself: ${end}`);
    else if (child.exitCode !== 0) console.error(`bench: ${name} did not stop as asked: ${end}`);
  };
  try {
    const port = await readyPort(name, child.stdout);
    return { port, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The port of the line that says the server is ready. What the server prints later is read and dropped. */
function readyPort(name: ServerName, stdout: ReadableStream<Uint8Array>): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const limit = setTimeout(
    () => reject(new BenchError(`${name} was not ready in ${START_LIMIT} ms`)),
    START_LIMIT,
  );
  const read = async () => {
    const decoder = new TextDecoder();
    let text = "";
    let ready = false;
    for await (const chunk of stdout) {
      if (ready) continue;
      text += decoder.decode(chunk, { stream: true });
      const port = READY.exec(text)?.[1];
      if (port === undefined) continue;
      ready = true;
      resolve(Number(port));
    }
    reject(new BenchError(`${name} stopped before it was ready`));
  };
  read().catch(reject);
  return promise.finally(() => clearTimeout(limit));
}
