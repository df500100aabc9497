/** Finds the server that a command means, by `--run-dir` or `--port`, and connects to its control socket. */
import { lstatSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { ControlClient, ControlError } from "../manager/control-client.ts";
import {
  controlSocketIn,
  knownRunDirectories,
  othersRunDirectories,
  usualRunDirectories,
} from "../manager/run-directory.ts";
import { checkAddress, OptionError } from "../options.ts";
import { numberOf, portFlag } from "./flags.ts";

/**
 * Milliseconds within which a server answers that is well: a process that does not answer its manager within a second is
 * told of as silent.
 */
export const ANSWER_TIMEOUT = 10_000;

export interface ServerFlags {
  readonly port: string;
  readonly runDir?: string;
}

/** Has a command take the flags that name a server. */
export function withServerFlags(command: Command): Command {
  return command
    .addOption(portFlag("of the server"))
    .option(
      "--run-dir <folder>",
      "the server's run directory, where it was started with one, or with port 0",
    );
}

/** @throws ControlError where there is none: its line names those that there are; OptionError (both as rejections) */
export async function connectTo(flags: ServerFlags): Promise<ControlClient> {
  // An unset variable of a script, and not the working directory.
  if (flags.runDir === "") throw new OptionError('option "run-dir" is ""; it must be a path to a folder');
  if (flags.runDir !== undefined) {
    const directory = resolve(flags.runDir);
    const client = await connectIn(directory);
    if (client !== null) return client;
    throw await noServer(`with the run directory ${directory}`);
  }
  const port = numberOf(flags.port);
  checkAddress("::", port);
  const directories = usualRunDirectories(port);
  for (const directory of directories) {
    const client = isOwn(directory) ? await connectIn(directory) : null;
    if (client !== null) return client;
  }
  const place =
    port === 0
      ? "one that was started with it is found by --run-dir"
      : `its run directory would be ${directories[0]}`;
  throw await noServer(`on port ${port} (${place})`, othersRunDirectories(port));
}

/** Null where no server has it. */
async function connectIn(directory: string): Promise<ControlClient | null> {
  try {
    return await ControlClient.connect(controlSocketIn(directory));
  } catch (error) {
    if (error instanceof ControlError && error.isAbsent) return null;
    throw error;
  }
}

/** What another user has put in its place in a shared folder is not asked. */
function isOwn(directory: string): boolean {
  try {
    const { uid } = lstatSync(directory);
    return uid === (process.geteuid?.() ?? uid);
  } catch {
    // It is not there, or not for this user to see.
    return false;
  }
}

/** @param foreign run directories that may be what is meant, of servers that are not asked */
async function noServer(where: string, foreign: readonly string[] = []): Promise<ControlError> {
  const others: string[] = [];
  for (const directory of knownRunDirectories().filter(isOwn)) {
    const client = await connectIn(directory);
    client?.[Symbol.dispose]();
    if (client !== null) others.push(`--run-dir ${directory}`);
  }
  const hint = others.length === 0 ? "" : `; there is ${others.join(", ")}`;
  const hintAtForeign =
    foreign.length === 0 ? "" : `; another user may have one: --run-dir ${foreign.join(", ")}`;
  return new ControlError(`no server is running ${where}${hintAtForeign}${hint}`, { isAbsent: true });
}
