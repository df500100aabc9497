/** Runs one command to its end: its output, and the processor time it took. */
import { closeSync, openSync } from "node:fs";
import { BenchError } from "./load.ts";

/** Milliseconds after which a generator that has not finished is stopped: no load takes a quarter of it. */
const TIME_LIMIT = 120_000;

interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  readonly cpuSeconds: number;
}

/**
 * @param input a file that is the command's standard input: it has it open, wherever its own root folder is
 * @throws {BenchError} where the command cannot be started, fails, or does not finish.
 */
export async function runToEnd(
  command: readonly string[],
  signal: AbortSignal,
  input: string | null = null,
): Promise<Finished> {
  signal.throwIfAborted();
  const child = start(command, signal, input);
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  signal.throwIfAborted();
  if (child.exitCode !== 0) {
    const end = child.exitCode === null ? `was ended by ${child.signalCode}` : `exited ${child.exitCode}`;
    throw new BenchError(`${shown(command)} ${end}\n${stdout}${stderr}`.trimEnd());
  }
  return { stdout, stderr, cpuSeconds: Number(child.resourceUsage()?.cpuTime.total ?? Number.NaN) / 1e6 };
}

function start(command: readonly string[], signal: AbortSignal, input: string | null) {
  const stdin = input === null ? null : openSync(input, "r");
  try {
    return Bun.spawn([...command], {
      stdin: stdin ?? "ignore",
      stdout: "pipe",
      stderr: "pipe",
      signal,
      timeout: TIME_LIMIT,
      killSignal: "SIGKILL",
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : cause;
    throw new BenchError(`cannot run ${shown(command)}: ${reason}`, { cause });
  } finally {
    if (stdin !== null) closeSync(stdin);
  }
}

/** A field of 32 KiB is nothing to read. */
function shown(command: readonly string[]): string {
  return command.map((word) => (word.length > 200 ? `${word.slice(0, 40)}…` : word)).join(" ");
}
