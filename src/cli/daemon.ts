/**
 * `tercet serve --daemon`: starts the server in a session of its own, with a log file for its output, and waits until it is
 * ready, or has failed.
 */
import { spawn } from "node:child_process";
import { closeSync, fstatSync, mkdirSync, openSync, readSync, type Stats } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { userFolder } from "../home.ts";
import { StartError } from "../manager/start-error.ts";

/** In the environment of the daemon: who started it waits for word from it. Taken out again before anything is started. */
const DAEMON_VARIABLE = "TERCET_DAEMON";

/** What the daemon says when it is ready. */
export interface Ready {
  readonly pid: number;
  readonly runDirectory: string;
  /** As a server in the foreground says it. */
  readonly line: string;
}

/** Says that it is ready to whoever started this process as a daemon; null where it is none. */
export function takeDaemon(): ((ready: Ready) => void) | null {
  const isDaemon = process.env[DAEMON_VARIABLE] !== undefined;
  delete process.env[DAEMON_VARIABLE];
  if (!isDaemon) return null;
  return (ready) => {
    // Whoever waited may have been killed: the server was asked for all the same.
    if (process.connected) process.send?.(ready, () => process.disconnect?.());
  };
}

/**
 * Where a daemon's log is unless it is told: systemd's place, the system's for root, or the user's own.
 * @throws StartError where there is none
 */
export function defaultLogFile(port: string): string {
  const { XDG_STATE_HOME: state } = process.env;
  const folder = process.geteuid?.() === 0 ? state || "/var/log" : userFolder(state, ".local/state");
  if (folder === null)
    throw new StartError("there is no place for a log, for this user has no home directory: give --log-file");
  return join(folder, "tercet", `${port}.log`);
}

/**
 * Starts this command again, without the flag, as a daemon.
 * @throws StartError (as a rejection) with what the daemon has said of its failure
 */
export async function startDaemon(logFile: string): Promise<void> {
  const path = resolve(logFile);
  const log = openLog(path);
  const before = fstatSync(log);
  const [, script = "", ...args] = process.argv;
  const command = [...process.execArgv, script, ...args.filter((arg) => arg !== "--daemon")];
  const child = spawn(process.execPath, command, {
    detached: true,
    stdio: ["ignore", log, log, "ipc"],
    env: { ...process.env, [DAEMON_VARIABLE]: "1" },
  });
  closeSync(log);
  // Whoever gives up waiting does not want the server either.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  const ended = new Promise<string>((told) => {
    child.once("error", ({ message }) => told(message));
    child.once("exit", (code, signal) => told(signal ? `signal ${signal}` : `exit code ${code}`));
  });
  const ready = new Promise<Ready>((told) => {
    child.once("message", (message) => told(message as Ready));
  });
  const outcome = await Promise.race([ready, ended]);
  if (typeof outcome === "string") throw new StartError(failureIn(path, before, outcome));
  console.log(
    `${outcome.line}\ntercet: process ${outcome.pid}, run directory ${outcome.runDirectory}, log ${path}`,
  );
  child.unref();
}

function openLog(path: string): number {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    return openSync(path, "a", 0o600);
  } catch (error) {
    throw new StartError(`the log file ${path} cannot be written: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** The last of its lines that the command line has written, without its name. @param before what was there before */
function failureIn(path: string, before: Stats, cause: string): string {
  // A device or a pipe may have no end.
  const said = before.isFile() ? textFrom(path, before.size) : "";
  const line = said.match(/^tercet: .*$/gm)?.at(-1);
  return (
    line?.replace("tercet: ", "") ?? `the server ended (${cause}) before it was ready; its log is ${path}`
  );
}

/** What a file has behind so many bytes: what is before them may be more than there is memory for. */
function textFrom(path: string, start: number): string {
  const file = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(Math.max(0, fstatSync(file).size - start));
    return bytes.toString("utf8", 0, readSync(file, bytes, 0, bytes.length, start));
  } finally {
    closeSync(file);
  }
}
