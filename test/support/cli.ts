/** The commands of the command line beside `serve`, as a user runs them; and daemons, of which nothing stays behind. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { inTime } from "./poll.ts";
import { isAlive, type ProcessKey, processesMarked } from "./processes.ts";
import { ROOT, type Scratch } from "./server.ts";

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const WITHIN = 30_000;
const MARKER = "TERCET_TEST_COMMANDS";
/** `tercet ARGS`, beside a server in the same scratch folder. */
export async function tercet(
  scratch: Scratch,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  const command = [process.execPath, join(ROOT, "src/cli/main.ts"), ...args];
  const child = Bun.spawn(command, {
    cwd: ROOT,
    env: { ...scratch.environment(), ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  try {
    const said = Promise.all([child.exited, child.stdout.text(), child.stderr.text()]);
    const [, stdout, stderr] = await inTime(`tercet ${args.join(" ")}`, WITHIN, said);
    return { code: child.exitCode, stdout, stderr };
  } finally {
    child.kill("SIGKILL");
  }
}

/** The one run directory in the scratch folder. */
export function runDirectoryIn(scratch: Scratch): string {
  const names = readdirSync(scratch.run).filter((name) => /^tercet-\d+-\w+$/.test(name));
  if (names.length !== 1) throw new Error(`run directories: ${names.join(", ")}`);
  return join(scratch.run, names[0] as string);
}

/** Runs commands that leave servers behind, and ends these. */
export class Daemons implements AsyncDisposable {
  readonly scratch: Scratch;
  readonly #mark = crypto.randomUUID();
  /** By which they are known. */
  readonly environment = { [MARKER]: this.#mark };

  constructor(scratch: Scratch) {
    this.scratch = scratch;
  }

  run(...args: string[]): Promise<Outcome> {
    return tercet(this.scratch, args, this.environment);
  }

  /** Every process that is alive of those that were started. */
  remaining(): ProcessKey[] {
    return processesMarked(`${MARKER}=${this.#mark}`).filter(isAlive);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (let left = this.remaining(); left.length > 0; left = this.remaining()) {
      for (const { pid } of left) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // It has ended meanwhile.
        }
      }
      await Bun.sleep(20);
    }
    this.scratch[Symbol.dispose]();
  }
}
