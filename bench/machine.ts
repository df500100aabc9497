/** What a result depends on beside the code: the machine, its system, and the versions of what ran. */
import { arch, availableParallelism, cpus, release, totalmem, type } from "node:os";
import { runToEnd } from "./child.ts";
import type { Machine, Project } from "./results.ts";

const ROOT = `${import.meta.dir}/..`;

export function describeMachine(): Machine {
  const processor = cpus()[0]?.model.trim() || arch();
  return {
    processor,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: `${type()} ${release()}`,
  };
}

/** For the name of a file: `amd-epyc-2-cores`. */
export function slugOf({ processor, cores }: Machine): string {
  const name = processor
    .toLowerCase()
    .replaceAll(/\(r\)|\(tm\)|\bcpu\b|\bprocessor\b|@.*/g, "")
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "");
  return `${name}-${cores}-cores`;
}

/** The version of this package, and the commit it was measured at: with a `+` where files were changed since. */
export async function describeProject(signal: AbortSignal): Promise<Project> {
  const { version } = (await Bun.file(`${ROOT}/package.json`).json()) as { version: string };
  return { version, commit: await commit(signal) };
}

async function commit(signal: AbortSignal): Promise<string | null> {
  const git = (...args: string[]) => runToEnd(["git", "-C", ROOT, ...args], signal);
  try {
    const { stdout: hash } = await git("rev-parse", "--short=12", "HEAD");
    const { stdout: changes } = await git("status", "--porcelain", "--untracked-files=no");
    return `${hash.trim()}${changes === "" ? "" : "+"}`;
  } catch {
    signal.throwIfAborted();
    // No git here, or no repository: the version must do.
    return null;
  }
}

/** The first line a program prints of its version, without its name; null where it does not run. */
export async function versionOf(command: readonly string[], signal: AbortSignal): Promise<string | null> {
  try {
    const { stdout, stderr } = await runToEnd(command, signal);
    const [, version] = /(\d+\.\d+(?:\.\d+)?)/.exec(stdout + stderr) ?? [];
    return version ?? null;
  } catch {
    signal.throwIfAborted();
    // What does not run is told where it is needed.
    return null;
  }
}
