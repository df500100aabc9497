/**
 * Starts the real server as a user would, in processes of its own, and sees to it that nothing of it stays behind:
 * no process, no file, no port, also when a test fails. Use it with `await using`.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CERTIFICATE } from "./certificate.ts";
import { inTime, until } from "./poll.ts";
import { commandLine, descendantsOf, isAlive, type ProcessKey, processesMarked } from "./processes.ts";

/** The project's folder. */
export const ROOT = join(import.meta.dir, "../..");

const READY = /^tercet: ready on (https?):\/\/\S+:(\d+) \((.*)\)$/m;
const START_WITHIN = 20_000;
const STOP_WITHIN = 15_000;
const SAID_WITHIN = 5_000;
const MARKER = "TERCET_TEST_RUN";
/** What systemd may have set for whoever runs the tests. */
const OF_SYSTEMD = ["RUNTIME_DIRECTORY", "LOGS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/** The environment variable by which fixtures get their options, as JSON. */
export const OPTIONS_VARIABLE = "TERCET_TEST_OPTIONS";

/** The mode of servers for which a test names none: `process`, or what the environment says. */
export const MODE = process.env.TERCET_TEST_MODE ?? "process";

/**
 * The HTTP/3 engine of the servers that say nothing else. By this variable the suites run with the other one, too:
 * `npm run test:quic`.
 */
export const ENGINE = process.env.TERCET_TEST_HTTP3 === "quic" ? "quic" : "native";

export type OptionValue = string | number | boolean;

/** The options with the engine of this run, where they name none. `quic` shares its port with nobody. */
function withEngine<Value>(
  options: Readonly<Record<string, Value>>,
): Record<string, Value | string | number> {
  if (ENGINE === "native" || options.http3 !== undefined) return options;
  const alone = Number.isInteger(options.reactors) ? { reactors: 1 } : {};
  return { ...options, http3: ENGINE, ...alone };
}

/** A folder for one server: its certificate, and all the temporary files it makes. */
export class Scratch implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "tercet-test-"));
  readonly cert = join(this.path, "cert.pem");
  readonly key = join(this.path, "key.pem");
  /** TMPDIR and XDG_RUNTIME_DIR of the server. */
  readonly run = join(this.path, "run");

  static async make(): Promise<Scratch> {
    const scratch = new Scratch();
    const pem = await CERTIFICATE;
    writeFileSync(scratch.cert, pem.cert);
    writeFileSync(scratch.key, pem.key, { mode: 0o600 });
    mkdirSync(scratch.run, { mode: 0o700 });
    return scratch;
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Of a program that keeps all it has in this folder. */
  environment(): Record<string, string | undefined> {
    const { NODE_ENV: _, ...inherited } = process.env;
    for (const name of OF_SYSTEMD) delete inherited[name];
    return {
      ...inherited,
      TMPDIR: this.run,
      XDG_RUNTIME_DIR: this.run,
      XDG_CACHE_HOME: this.file("cache"),
      XDG_STATE_HOME: this.file("state"),
    };
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** What a process has said and how it ended. */
export class Program implements AsyncDisposable {
  readonly scratch: Scratch;
  readonly exited: Promise<number | string>;
  stdout = "";
  stderr = "";
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #marker: string;
  readonly #seen = new Map<string, ProcessKey>();
  readonly #watch: ReturnType<typeof setInterval>;
  #hasEnded = false;

  constructor(
    scratch: Scratch,
    command: readonly string[],
    env: Readonly<Record<string, string>> = {},
    cwd = ROOT,
  ) {
    const run = crypto.randomUUID();
    this.scratch = scratch;
    this.#marker = `${MARKER}=${run}`;
    this.#child = Bun.spawn([...command], {
      cwd,
      env: { ...scratch.environment(), [MARKER]: run, ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const said = Promise.all([
      this.#collect(this.#child.stdout, (text) => {
        this.stdout += text;
      }),
      this.#collect(this.#child.stderr, (text) => {
        this.stderr += text;
      }),
    ]);
    this.#watch = setInterval(() => this.#remember(), 200);
    this.exited = this.#child.exited.then(async (code) => {
      // What was said last may still be in the pipe. A process left behind would hold it open for ever.
      await Promise.race([said, Bun.sleep(500)]);
      return this.#child.signalCode ?? code;
    });
  }

  async #collect(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) add(decoder.decode(chunk, { stream: true }));
  }

  #remember(): void {
    for (const key of descendantsOf(this.pid)) this.#seen.set(`${key.pid} ${key.startTime}`, key);
  }

  get pid(): number {
    return this.#child.pid;
  }

  get hasExited(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Waits until the program has said it to stderr: what it did may be seen before what it says of it. */
  logs(what: string | RegExp): Promise<void> {
    return this.#says(what, () => this.stderr);
  }

  /** The same of stdout. */
  prints(what: string | RegExp): Promise<void> {
    return this.#says(what, () => this.stdout);
  }

  async #says(what: string | RegExp, said: () => string): Promise<void> {
    await until(`${what} to be said`, SAID_WITHIN, () => {
      if (typeof what === "string" ? said().includes(what) : what.test(said())) return true;
      throw new Error(`it was not\n${this.transcript()}`);
    });
  }

  /** Every process of this program that is alive: what it has started and what those have started. */
  remaining(): ProcessKey[] {
    this.#remember();
    const all = new Map(this.#seen);
    for (const key of processesMarked(this.#marker)) all.set(`${key.pid} ${key.startTime}`, key);
    return [...all.values()].filter(isAlive);
  }

  /** Waits for the end of the program. @returns its exit code, or the name of the signal that ended it. */
  async ended(within = STOP_WITHIN): Promise<number | string> {
    const status = await inTime(`the end of the server\n${this.transcript()}`, within, this.exited);
    this.#hasEnded = true;
    return status;
  }

  /** No process is alive and no run directory or socket file is there. @throws DeadlineError otherwise. */
  async leavesNothing(within = 1_000): Promise<void> {
    await until("nothing left behind", within, () => {
      const left = this.remaining();
      if (left.length > 0) {
        const named = left.map(({ pid }) => `${pid} ${commandLine(pid)}`);
        throw new Error(`processes are left: ${named.join("; ")}`);
      }
      const files = readdirSync(this.scratch.run);
      if (files.length > 0) throw new Error(`files are left: ${files.join(", ")}`);
      return true;
    });
  }

  /** Asks for a graceful end and holds the server to it: the exit code is 0 and nothing is left. */
  async stop(signal: NodeJS.Signals = "SIGTERM", within = STOP_WITHIN): Promise<void> {
    this.kill(signal);
    const status = await this.ended(within);
    if (status !== 0) throw new Error(`the server ended with ${status}, not 0\n${this.transcript()}`);
    await this.leavesNothing();
  }

  transcript(): string {
    return `--- stdout\n${this.stdout}--- stderr\n${this.stderr}---`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (!this.#hasEnded && !this.hasExited) await this.stop();
    } finally {
      for (const { pid } of [{ pid: this.pid }, ...this.remaining()]) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // It has ended by itself, as it should.
        }
      }
      await this.exited;
      clearInterval(this.#watch);
      this.scratch[Symbol.dispose]();
    }
  }
}

/** A server that has said that it is ready. */
export class TestServer extends Program {
  scheme = "";
  port = 0;
  /** As the ready line lists them. */
  protocols: string[] = [];

  async ready(): Promise<this> {
    try {
      await until("the ready line", START_WITHIN, () => {
        const [, scheme, port, protocols] = READY.exec(this.stdout) ?? [];
        if (scheme === undefined || port === undefined || protocols === undefined) {
          if (this.hasExited) throw new Error("the server has ended");
          return false;
        }
        this.scheme = scheme;
        this.port = Number(port);
        this.protocols = protocols.split(", ");
        return true;
      });
      return this;
    } catch (error) {
      this.kill("SIGKILL");
      await this.exited;
      const failure = new Error(`the server did not start\n${this.transcript()}`, { cause: error });
      await this[Symbol.asyncDispose]();
      throw failure;
    }
  }
}

/** The path of a script in `test/fixtures`. */
export function fixture(name: string): string {
  return join(import.meta.dir, "../fixtures", name);
}

export interface FixtureSettings {
  readonly options?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly scratch?: Scratch;
}

function fixtureEnvironment(scratch: Scratch, settings: FixtureSettings): Record<string, string> {
  const options = withEngine<unknown>({
    mode: MODE,
    tls: { cert: scratch.cert, key: scratch.key },
    workers: 1,
    reactors: 1,
    ...settings.options,
  });
  return { ...settings.env, [OPTIONS_VARIABLE]: JSON.stringify(options) };
}

/** `bun test/fixtures/NAME`: a script in the code form. One worker and one reactor where nothing else is asked. */
export async function startFixture(name: string, settings: FixtureSettings = {}): Promise<TestServer> {
  const scratch = settings.scratch ?? (await Scratch.make());
  const command = [process.execPath, fixture(name)];
  return new TestServer(scratch, command, fixtureEnvironment(scratch, settings)).ready();
}

/** The same, for a script that is expected to end by itself. */
export async function runFixture(name: string, settings: FixtureSettings = {}): Promise<Program> {
  const scratch = settings.scratch ?? (await Scratch.make());
  const command = [process.execPath, fixture(name)];
  return new Program(scratch, command, fixtureEnvironment(scratch, settings));
}

function flagsOf(scratch: Scratch, flags: Readonly<Record<string, OptionValue>>): string[] {
  const all = withEngine<OptionValue>({
    mode: MODE,
    host: "127.0.0.1",
    port: 0,
    workers: 1,
    reactors: 1,
    cert: scratch.cert,
    key: scratch.key,
    ...flags,
  });
  return Object.entries(all).flatMap(([name, value]) => {
    if (value === true) return [`--${name}`];
    return value === false ? [] : [`--${name}`, String(value)];
  });
}

export interface CliSettings {
  /** By their names on the command line; true is a flag without a value, false leaves a default of the tests out. */
  readonly flags?: Readonly<Record<string, OptionValue>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly scratch?: Scratch;
  readonly cwd?: string;
}

/** `node bin/tercet.js serve APP`, as `npx tercet serve APP` does it. */
function cliCommand(app: string, scratch: Scratch, settings: CliSettings): string[] {
  return ["node", join(ROOT, "bin/tercet.js"), "serve", app, ...flagsOf(scratch, settings.flags ?? {})];
}

export async function startCli(app: string, settings: CliSettings = {}): Promise<TestServer> {
  const scratch = settings.scratch ?? (await Scratch.make());
  return new TestServer(scratch, cliCommand(app, scratch, settings), settings.env, settings.cwd).ready();
}

/** The same, for a start that is expected to fail. */
export async function runCli(app: string, settings: CliSettings = {}): Promise<Program> {
  const scratch = settings.scratch ?? (await Scratch.make());
  return new Program(scratch, cliCommand(app, scratch, settings), settings.env);
}
