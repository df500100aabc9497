/** The manager's task workers: starts, renews, recycles and watches them, and tells everybody where they are. */
import { join } from "node:path";
import { now } from "../clock.ts";
import type { ResolvedOptions, ResolvedTasks } from "../options.ts";
import { remove } from "../removal.ts";
import { TaskClient } from "../tasks/client.ts";
import { deadlinePath, timeLeft } from "../tasks/deadline.ts";
import type { TaskWorkerAddress } from "../tasks/remote.ts";
import type { Child } from "./child.ts";
import { Heartbeat } from "./heartbeat.ts";
import { memberStats } from "./member-stats.ts";
import { MemoryLimit } from "./memory-limit.ts";
import type {
  FromTaskWorker,
  TaskWorkerCounts,
  TaskWorkerStats,
  ToProcess,
  ToTaskWorker,
} from "./messages.ts";
import { type ChildTold, type Member, Pool } from "./pool.ts";
import { briefly, STATS_TIMEOUT } from "./server-stats.ts";
import { floodOf } from "./sharing.ts";

export type TaskWorkerChild = Child<ToTaskWorker, FromTaskWorker, TaskWorkerCounts>;

const NOTHING: TaskWorkerCounts = { rss: 0, cpuTime: 0, inFlight: 0, queued: 0, tasks: 0 };

export interface TaskWorkersConfig {
  readonly options: ResolvedOptions;
  readonly tasks: ResolvedTasks;
  readonly runDirectory: string;
  /** Starts the user's script as the task worker of this id. */
  fork(
    id: number,
    told: ChildTold,
    said: (child: TaskWorkerChild, message: FromTaskWorker) => void,
  ): TaskWorkerChild;
  /** What one has not done that is not ready, for the log. */
  awaited(child: TaskWorkerChild): string;
  /** Where the server listens; 0 until it does. */
  port(): number;
  /** By so much fewer, so that not all are replaced at a time. */
  jittered(count: number): number;
  /** To every worker that has said hello. */
  tellWorkers(message: ToProcess): void;
  /** What any process says. */
  said(child: TaskWorkerChild, id: number, message: FromTaskWorker, told: ChildTold): void;
  log(line: string): void;
}

export class TaskWorkers {
  /** The manager's own. */
  readonly client: TaskClient;
  readonly #config: TaskWorkersConfig;
  readonly #pool: Pool<TaskWorkerChild>;
  readonly #pulse: Heartbeat<TaskWorkerChild, TaskWorkerCounts>;
  readonly #memoryLimit: MemoryLimit<TaskWorkerChild>;
  /** Those that have said hello. */
  readonly #listening = new WeakSet<TaskWorkerChild>();
  #isStopping = false;

  constructor(config: TaskWorkersConfig) {
    this.#config = config;
    this.client = new TaskClient(config.tasks, config.log);
    this.#pool = new Pool({
      name: "task worker",
      outage: "tasks wait",
      start: (id, told) => this.#start(id, told),
      awaited: config.awaited,
      leave: (child, timeout) => child.send({ type: "shutdown", timeout }),
      switched: (used, retired) => this.#switched(used, retired),
      ended: (child) => this.#ended(child),
      unserved: () => {},
      log: config.log,
    });
    this.#memoryLimit = new MemoryLimit(config.options.maxMemory, "task worker", config.log);
    this.#pulse = new Heartbeat(
      () => this.#pool.serving,
      (child) => child.ask(briefly, Math.max(config.tasks.timeout, STATS_TIMEOUT)),
      (child, counts) => this.#check(child, counts),
    );
  }

  /** @throws MemberError (as a rejection) */
  start(): Promise<void> {
    return this.#pool.start(this.#config.tasks.workers);
  }

  /** As `Pool.renew`. */
  renew(together: boolean, timeout: number): Promise<void> {
    return this.#pool.renew(together, timeout);
  }

  async stop(timeout: number): Promise<void> {
    this.#isStopping = true;
    this.#pulse.stop();
    await this.#pool.stop(timeout);
  }

  kill(): void {
    this.#pool.kill();
  }

  /** Every process that has not ended. */
  get members(): readonly Member<TaskWorkerChild>[] {
    return this.#pool.members;
  }

  /** Tells a process that has just said hello where the task workers are. */
  introduce(process: { send(message: ToProcess): void }): void {
    const used = this.#pool.slots.flatMap(({ id, serving }) =>
      serving ? this.#addressOf(serving.child, id) : [],
    );
    process.send({ type: "taskWorkers", used, retired: [], gone: [] });
  }

  async stats(): Promise<readonly TaskWorkerStats[]> {
    const all = await Promise.all(this.#pool.members.map((member) => this.#statsOf(member)));
    return all.filter((stats) => stats !== null);
  }

  #start(id: number, told: ChildTold): TaskWorkerChild {
    return this.#config.fork(id, told, (child, message) => this.#said(child, id, message, told));
  }

  #said(child: TaskWorkerChild, id: number, message: FromTaskWorker, told: ChildTold): void {
    const { tasks, runDirectory } = this.#config;
    if (message.type === "hello") {
      child.send({
        type: "start",
        port: this.#config.port(),
        runDirectory,
        socket: this.#addressOf(child, id).socket,
        maxTasks: this.#config.jittered(tasks.maxTasks),
      });
      this.#listening.add(child);
      this.introduce(child);
    } else if (message.type === "spent") {
      this.#recycle(child, `it has run ${tasks.maxTasks} tasks`);
      return;
    }
    this.#config.said(child, id, message, told);
  }

  #switched(used: readonly TaskWorkerChild[], retired: readonly TaskWorkerChild[]): void {
    const ids = new Map(this.#pool.members.map(({ child, slot }) => [child, slot.id]));
    const addresses = used.map((child) => this.#addressOf(child, ids.get(child) ?? 0));
    this.#tellAll(
      addresses,
      retired.map(({ pid }) => pid),
      [],
    );
    // Behind it, so that what they give back goes to others.
    for (const child of retired) child.send({ type: "retire" });
  }

  #ended(child: TaskWorkerChild): void {
    this.#tellAll([], [], [child.pid]);
    remove(deadlinePath(this.#config.runDirectory, child.pid), this.#config.log);
  }

  #tellAll(used: readonly TaskWorkerAddress[], retired: readonly number[], gone: readonly number[]): void {
    const message = { type: "taskWorkers", used, retired, gone } as const;
    this.client.employ(used, retired, gone);
    this.#config.tellWorkers(message);
    for (const { child } of this.members) if (this.#listening.has(child)) child.send(message);
  }

  #check(child: TaskWorkerChild, counts: TaskWorkerCounts | null): void {
    if (!child.alive || this.#isStopping) return;
    if (counts === null) {
      const flood = floodOf(child);
      // One that computes, and may, is left alone.
      const isLate = timeLeft(this.#config.runDirectory, child.pid) < 0;
      if (isLate || flood !== null) this.#kill(child, flood ?? "has stopped answering");
      return;
    }
    const slot = this.#pool.slotOf(child);
    const reason = slot && this.#memoryLimit.look(child, slot.id, counts.rss, now());
    if (reason) this.#recycle(child, reason);
  }

  #kill(child: TaskWorkerChild, reason: string): void {
    const member = this.#pool.members.find((one) => one.child === child);
    this.#config.log(`task worker ${member?.slot.id} (${child.pid}) ${reason}: it is killed`);
    child.kill("SIGKILL");
  }

  #recycle(child: TaskWorkerChild, reason: string): void {
    if (this.#isStopping) return;
    void this.#pool.recycle(child, reason, this.#config.options.reloadTimeout);
  }

  async #statsOf(member: Member<TaskWorkerChild>): Promise<TaskWorkerStats | null> {
    const { child, state } = member;
    const answer = state === "starting" ? null : await child.ask(briefly, STATS_TIMEOUT);
    return memberStats(member, answer, this.#pulse.pulseOf(child), NOTHING);
  }

  #addressOf({ pid }: TaskWorkerChild, id: number): TaskWorkerAddress {
    return { id, pid, socket: join(this.#config.runDirectory, `task-${pid}.sock`) };
  }
}
