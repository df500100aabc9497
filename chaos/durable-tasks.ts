/** Durable tasks while every process is killed at random, the manager too, whereupon the server is started again. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { until } from "../test/support/poll.ts";
import { descendantsOf, environmentOf } from "../test/support/processes.ts";
import { Scratch, TestServer } from "../test/support/server.ts";
import { brokenOf, type Outcome, type Scenario } from "./scenario.ts";

export interface DurableTasksSettings {
  /** How many are enqueued. */
  readonly tasks: number;
  /** Milliseconds between two kills, on the average. */
  readonly killEvery: number;
  /** Each so many-th kill is of the manager. */
  readonly managerEach: number;
  /** Tasks done from one kill to the next, at least. */
  readonly doneBetween: number;
  /** Milliseconds for all of it. */
  readonly within: number;
}

type Role = "manager" | "reactor" | "worker" | "task worker";

const APP = join(import.meta.dir, "apps/durable.ts");
/** Whose turn it is to lose a process. */
const CHILDREN = ["task worker", "worker", "reactor"] as const;
/** Requests under way at a time, and tasks that each hands over: more than are done, so that a task worker that is killed has some. */
const CALLERS = 16;
const AT_ONCE = 10;

export const durableTasks: Scenario = {
  name: "durable-tasks",
  promise: "10,000 durable tasks, every process killed at random throughout: each is done at least once",
  run: (say) =>
    runDurableTasks({ tasks: 10_000, killEvery: 400, managerEach: 15, doneBetween: 5, within: 900_000 }, say),
};

export async function runDurableTasks(
  settings: DurableTasksSettings,
  say: (line: string) => void,
): Promise<Outcome> {
  const directory = mkdtempSync(join(tmpdir(), "tercet-chaos-"));
  const run = new DurableTasksRun(settings, directory);
  try {
    return await run.run(say);
  } finally {
    await run[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  }
}

class DurableTasksRun implements AsyncDisposable {
  readonly #settings: DurableTasksSettings;
  readonly #file: string;
  readonly #runs: string;
  readonly #kills: Record<Role, number> = { manager: 0, reactor: 0, worker: 0, "task worker": 0 };
  #server: TestServer | null = null;
  #isOver = false;

  constructor(settings: DurableTasksSettings, directory: string) {
    this.#settings = settings;
    this.#file = join(directory, "tasks.db");
    this.#runs = join(directory, "runs");
  }

  async run(say: (line: string) => void): Promise<Outcome> {
    const { tasks, within } = this.#settings;
    const began = performance.now();
    await this.#start();
    const chaos = this.#killAtRandom();
    const progress = setInterval(() => say(`${this.#done().size} of ${tasks} done`), 10_000);
    try {
      await Promise.race([this.#enqueueAll(), chaos]);
      await Promise.race([chaos, until("every task to be done", within, () => this.#isDone())]);
    } finally {
      clearInterval(progress);
      this.#isOver = true;
      await chaos;
    }
    const seconds = (performance.now() - began) / 1000;
    await this.#server?.stop();
    return this.#outcome(seconds);
  }

  #outcome(seconds: number): Outcome {
    const { tasks } = this.#settings;
    const begun = this.#noted("begun");
    const done = this.#noted("done").length;
    const ids = new Set(begun.map(([, id]) => id)).size;
    const lost = tasks - this.#done().size;
    const database = new DatabaseSync(this.#file);
    const { left } = database.prepare("SELECT count(*) AS left FROM task").get() as { left: number };
    database.close();
    const kills = Object.entries(this.#kills).map(([role, count]) => `${count} × ${role}`);
    return {
      measured:
        `${tasks} tasks in ${seconds.toFixed(0)} s, kill -9 of ${kills.join(", ")}: ${lost} lost, ` +
        `${begun.length - ids} begun again and ${done - ids} done again; ${ids - tasks} were enqueued again, for the ` +
        "answer that they were kept was lost",
      broken: brokenOf({
        [`${lost} tasks were lost`]: lost === 0,
        [`${left} tasks are left in the file`]: left === 0,
      }),
    };
  }

  async #start(): Promise<void> {
    const env = { CHAOS_DURABLE: this.#file, CHAOS_RUNS: this.#runs };
    this.#server = new TestServer(await Scratch.make(), [process.execPath, APP], env);
    await this.#server.ready();
  }

  /** Nothing is left to do, and there was something of everything to survive. */
  #isDone(): boolean {
    const isEachKilled = Object.values(this.#kills).every((count) => count > 0);
    return isEachKilled && this.#done().size === this.#settings.tasks;
  }

  #done(): Set<string | undefined> {
    return new Set(this.#noted("done").map(([number]) => number));
  }

  /** The number and the id of each run that has come so far. */
  #noted(what: "begun" | "done"): string[][] {
    if (!existsSync(this.#runs)) return [];
    const lines = readFileSync(this.#runs, "utf8").split("\n");
    return lines.flatMap((line) => (line.startsWith(what) ? [line.split(" ").slice(1)] : []));
  }

  async #enqueueAll(): Promise<void> {
    let next = 0;
    const call = async () => {
      while (next < this.#settings.tasks && !this.#isOver) {
        const from = next;
        next = Math.min(from + AT_ONCE, this.#settings.tasks);
        await this.#enqueue(from, next - 1);
      }
    };
    await Promise.all(Array.from({ length: CALLERS }, call));
  }

  /** Asks until it is told that the tasks are kept. */
  #enqueue(from: number, to: number): Promise<unknown> {
    return until(`tasks ${from} to ${to} to be kept`, this.#settings.within, async () => {
      const server = this.#server;
      if (this.#isOver) return true;
      if (server === null || server.port === 0) return false;
      try {
        const signal = AbortSignal.timeout(5000);
        const response = await fetch(`http://127.0.0.1:${server.port}/${from}/${to}`, {
          method: "POST",
          signal,
        });
        return (await response.text()) === "kept";
      } catch {
        // The server was killed meanwhile.
        return false;
      }
    });
  }

  async #killAtRandom(): Promise<void> {
    const { tasks, killEvery, managerEach, doneBetween, within } = this.#settings;
    for (let kills = 1; !this.#isOver; kills++) {
      const enough = Math.min(tasks, this.#done().size + doneBetween);
      // However slow the machine is: what never comes to work proves nothing.
      await until(
        `${doneBetween} tasks to be done`,
        within,
        () => this.#isOver || this.#done().size >= enough,
      );
      await Bun.sleep(Math.random() * 2 * killEvery);
      const server = this.#server;
      if (this.#isOver || server === null) return;
      if (kills % managerEach === 0) await this.#restart(server);
      else this.#killOne(server, CHILDREN[kills % CHILDREN.length] as Role);
    }
  }

  #killOne(server: TestServer, role: Role): void {
    const children = descendantsOf(server.pid).filter(({ pid }) => roleOf(pid) === role);
    const victim = children[Math.floor(Math.random() * children.length)];
    // It was killed just now.
    if (victim === undefined) return;
    try {
      process.kill(victim.pid, "SIGKILL");
      this.#kills[role]++;
    } catch {
      // It has ended by itself.
    }
  }

  async #restart(server: TestServer): Promise<void> {
    this.#server = null;
    server.kill("SIGKILL");
    this.#kills.manager++;
    await server.ended();
    await until("every process to end", 10_000, () => server.remaining().length === 0);
    await server[Symbol.asyncDispose]();
    await this.#start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await this.#server?.[Symbol.asyncDispose]();
  }
}

function roleOf(pid: number): Role {
  const environment = environmentOf(pid);
  if (environment.includes("TERCET_TASK_WORKER_ID=")) return "task worker";
  return environment.includes("TERCET_WORKER_ID=") ? "worker" : "reactor";
}
