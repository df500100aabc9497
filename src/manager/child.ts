/** One process under the manager: what it was told, what it said, and how it ended. */
import { type ChildProcess, fork } from "node:child_process";
import { now } from "../clock.ts";
import {
  type FromReactor,
  type FromWorker,
  type ReactorCounts,
  type ToReactor,
  type ToWorker,
  toldIn,
  type WorkerCounts,
} from "./messages.ts";

export type ReactorChild = Child<ToReactor, FromReactor, ReactorCounts>;
export type WorkerChild = Child<ToWorker, FromWorker, WorkerCounts>;

export interface ChildSpec {
  readonly script: string;
  readonly args: readonly string[];
  readonly execArgv: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Undefined for this process's own. */
  readonly cwd: string | undefined;
}

interface Said {
  readonly type: string;
}

interface StatsAnswer<Stats> extends Said {
  readonly type: "stats";
  readonly call: number;
  readonly stats: Stats;
}

export interface ChildEvents<From, Stats> {
  message(message: From): void;
  /** What it says of itself, asked or not. */
  stats?(stats: Stats): void;
  /** @param cause such as "exit code 1" or "signal SIGKILL" */
  exit(cause: string, wasKilled: boolean): void;
}

export class Child<To extends Said, From extends Said, Stats> {
  readonly pid: number;
  /** Resolves when the process has ended. */
  readonly exited: Promise<void>;
  readonly #process: ChildProcess;
  readonly #calls = new Map<number, (stats: Stats | null) => void>();
  #lastCall = 0;
  /** Bytes that it was sent and has not taken. */
  #untaken = 0;
  /** When it took something last, or had everything, milliseconds since the Unix epoch. */
  #tookAt = 0;
  #alive = true;

  constructor(spec: ChildSpec, events: ChildEvents<From, Stats>) {
    this.#process = fork(spec.script, spec.args, {
      execArgv: [...spec.execArgv],
      // Where a debugger waits for this process (an editor's), no other can listen: that process would end.
      env: { ...spec.env, BUN_INSPECT: undefined, BUN_INSPECT_NOTIFY: undefined },
      cwd: spec.cwd,
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      serialization: "advanced",
    });
    this.pid = this.#process.pid ?? 0;
    this.#process.on("message", (sent) => {
      const message = toldIn(sent);
      if (message !== undefined) this.#said(message as unknown as From, events);
    });
    this.exited = new Promise((resolve) => {
      const end = (cause: string, wasKilled: boolean) => {
        if (!this.#alive) return;
        this.#alive = false;
        for (const answer of this.#calls.values()) answer(null);
        events.exit(cause, wasKilled);
        resolve();
      };
      this.#process.on("exit", (code, signal) => {
        end(signal ? `signal ${signal}` : `exit code ${code}`, signal === "SIGKILL");
      });
      this.#process.on("error", (error) => end(error.message, false));
    });
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Bytes of messages that wait for it, where it has taken none for so many milliseconds; else 0. */
  waitingFor(milliseconds: number): number {
    return now() - this.#tookAt > milliseconds ? this.#untaken : 0;
  }

  /** @param bytes of a message that may be large, or one of many */
  send(message: To, bytes = 0): void {
    // A process that has just died can be told nothing, and its exit is told to the manager.
    if (!this.#alive || !this.#process.connected) return;
    if (this.#untaken === 0) this.#tookAt = now();
    this.#untaken += bytes;
    this.#process.send(message, () => {
      this.#untaken -= bytes;
      this.#tookAt = now();
    });
  }

  kill(signal: "SIGKILL"): void {
    if (this.#alive) this.#process.kill(signal);
  }

  /**
   * Null where the process does not answer in time.
   * @param timeout milliseconds
   */
  ask(question: (call: number) => To, timeout: number): Promise<Stats | null> {
    if (!this.#alive) return Promise.resolve(null);
    const call = ++this.#lastCall;
    return new Promise((resolve) => {
      const answered = (stats: Stats | null) => {
        clearTimeout(timer);
        this.#calls.delete(call);
        resolve(stats);
      };
      const timer = setTimeout(answered, timeout, null);
      this.#calls.set(call, answered);
      this.send(question(call));
    });
  }

  #said(message: From, events: ChildEvents<From, Stats>): void {
    if (message.type === "stats") {
      const { call, stats } = message as unknown as StatsAnswer<Stats>;
      if (this.#alive) events.stats?.(stats);
      this.#calls.get(call)?.(stats);
    } else events.message(message);
  }
}
