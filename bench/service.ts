/** A command that runs until it is stopped. */
import { closeSync, openSync } from "node:fs";
import { BenchError } from "./load.ts";

const READY = /ready on https?:\/\/\S+:(\d+)/;

/** Milliseconds to become ready, and to stop when asked. */
const START_LIMIT = 30_000;
const STOP_LIMIT = 10_000;

export interface Service extends AsyncDisposable {
  readonly pid: number;
}

interface Place {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** A file that is its standard input: it has it open, wherever its own root folder is. */
  readonly input?: string;
}

/** @throws {BenchError} where it cannot be started */
export function startService(name: string, command: readonly string[], place: Place): Service {
  return launch(name, command, place);
}

/** For one that prints where it listens. @throws {BenchError} where it does not in time; nothing is left running then */
export async function startListening(
  name: string,
  command: readonly string[],
  place: Place,
): Promise<Service & { readonly port: number }> {
  const service = launch(name, command, place);
  try {
    const port = await readyPort(name, service.stdout);
    return { ...service, port };
  } catch (error) {
    await service[Symbol.asyncDispose]();
    throw error;
  }
}

function launch(name: string, command: readonly string[], place: Place) {
  const child = spawn(name, command, place);
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
  return { pid: child.pid, stdout: child.stdout, [Symbol.asyncDispose]: stop };
}

function spawn(name: string, command: readonly string[], { cwd, env, input }: Place) {
  const stdin = input === undefined ? null : openSync(input, "r");
  try {
    return Bun.spawn([...command], {
      ...(cwd === undefined ? {} : { cwd }),
      // nginx takes a variable of its own name for sockets to inherit.
      env: { ...process.env, NGINX: undefined, NODE_ENV: "production", ...env },
      stdin: stdin ?? "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : cause;
    throw new BenchError(`${name} cannot be started: ${reason}`, { cause });
  } finally {
    if (stdin !== null) closeSync(stdin);
  }
}

/** The port of the line that says it is ready. What is printed later is read and dropped. */
function readyPort(name: string, stdout: ReadableStream<Uint8Array>): Promise<number> {
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
