/** Runs one command to its end: its output, and the processor time it took. */
import { BenchError } from "./load.ts";

/** Milliseconds after which a generator that has not finished is stopped: no load takes a quarter of it. */
const TIME_LIMIT = 120_000;

interface Finished {
  readonly stdout: string;
  readonly cpuSeconds: number;
}

/** @throws {BenchError} where the command cannot be started, fails, or does not finish. */
export async function runToEnd(command: readonly string[], signal: AbortSignal): Promise<Finished> {
  signal.throwIfAborted();
  const child = start(command, signal);
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  signal.throwIfAborted();
  if (child.exitCode !== 0) {
    const end = child.exitCode === null ? `was ended by ${child.signalCode}` : `exited ${child.exitCode}`;
    throw new BenchError(`${command.join(" ")} ${end}\n${stdout}${stderr}`.trimEnd());
  }
  return { stdout, cpuSeconds: Number(child.resourceUsage()?.cpuTime.total ?? Number.NaN) / 1e6 };
}

function start(command: readonly string[], signal: AbortSignal) {
  try {
    return Bun.spawn([...command], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      signal,
      timeout: TIME_LIMIT,
      killSignal: "SIGKILL",
    });
  } catch (cause) {
    throw new BenchError(
      `cannot run ${command.join(" ")}: ${cause instanceof Error ? cause.message : cause}`,
      {
        cause,
      },
    );
  }
}
