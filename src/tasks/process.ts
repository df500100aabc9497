/** The task worker process: does what the manager says, opens the queue, and listens for its clients. */
import { AsyncLocalStorage } from "node:async_hooks";
import { rmSync } from "node:fs";
import { createServer, type Server as SocketServer } from "node:net";
import { logTo, logUncaught } from "../log.ts";
import type { ToTaskWorker } from "../manager/messages.ts";
import type { ResolvedTasks } from "../options.ts";
import { OwnVitals } from "../vitals.ts";
import { ManagerLink, type MessageListener } from "../worker/manager-link.ts";
import { Deadline } from "./deadline.ts";
import { MemoryQueue } from "./memory-queue.ts";
import type { TaskQueue, TaskQueueEvents } from "./queue.ts";
import { type TaskRunner, TaskWorker } from "./task-worker.ts";

export interface TaskWorkerHooks {
  /** Makes the handler: what it throws ends the start. */
  load(): TaskRunner | Promise<TaskRunner>;
  /** The task worker is about to take tasks. @param port where the server listens */
  started(port: number): void | Promise<void>;
  stopping(): void | Promise<void>;
  message: MessageListener;
}

type StartMessage = Extract<ToTaskWorker, { type: "start" }>;

export class TaskWorkerProcess {
  /** To the manager. */
  readonly link: ManagerLink<ToTaskWorker>;
  readonly #tasks: ResolvedTasks;
  readonly #hooks: TaskWorkerHooks;
  readonly #log: (line: string) => void;
  readonly #vitals: OwnVitals;
  readonly #clients: SocketServer;
  /** Resolves when tasks are no longer waited for. */
  readonly #late = Promise.withResolvers<void>();
  /** Resolves when there is nothing left to do. */
  readonly #rested = Promise.withResolvers<void>();
  #worker: TaskWorker | null = null;
  #isLeaving = false;

  constructor(id: number, tasks: ResolvedTasks, hooks: TaskWorkerHooks) {
    this.#tasks = tasks;
    this.#hooks = hooks;
    this.#log = logTo(`task worker ${id}`);
    this.#vitals = new OwnVitals(this.#log);
    this.#clients = createServer((socket) => this.#worker?.attach(socket));
    this.link = new ManagerLink(tasks, hooks.message, this.#log);
  }

  /** Says hello to the manager, and from then on does what it says. */
  run(): void {
    logUncaught(this.#log);
    this.link.open((message) => this.#told(message));
  }

  #told(message: ToTaskWorker): void {
    switch (message.type) {
      case "start":
        this.#start(message).catch((error: Error) => this.link.fail(error.message));
        return;
      case "stats":
        this.link.send({ type: "stats", call: message.call, stats: this.#stats() });
        return;
      case "retire":
        // It has all the time that the manager gives it.
        void this.#leave(Number.POSITIVE_INFINITY, true);
        return;
      case "shutdown":
        void this.#leave(message.timeout, false);
        return;
    }
  }

  async #start({ port, socket, runDirectory, maxTasks }: StartMessage): Promise<void> {
    // One task begins behind another, and is not to go on in its context.
    const handler = AsyncLocalStorage.bind(await this.#hooks.load());
    const queue = await this.#openQueue();
    await this.#hooks.started(port);
    const deadline = Deadline.open(runDirectory, this.#tasks.timeout > 0, this.#log);
    this.#worker = new TaskWorker(queue, handler, this.#tasks, maxTasks, deadline, {
      spent: () => this.link.send({ type: "spent" }),
      rested: () => this.#rested.resolve(),
      look: () => this.link.tasks?.look(),
      log: this.#log,
    });
    // A task may end the process; how others have ended in the same turn is told all the same.
    process.on("exit", () => this.#worker?.flush());
    await this.#listen(socket);
    this.link.send({ type: "ready" });
    void this.#worker.claim();
  }

  async #openQueue(): Promise<TaskQueue> {
    const { durable, maxQueue } = this.#tasks;
    if (durable === null) return new MemoryQueue(maxQueue);
    const events: TaskQueueEvents = {
      available: () => void this.#worker?.claim(),
      ended: (id, outcome) => this.#worker?.ended(id, outcome),
      untold: (ids) => this.#worker?.untold(ids),
      log: this.#log,
    };
    // Loaded where it is used: it brings SQLite.
    const { SqliteQueue } = await import("./sqlite-queue.ts");
    return SqliteQueue.open({ path: durable, maxQueue }, events);
  }

  #listen(path: string): Promise<void> {
    rmSync(path, { force: true });
    return new Promise((resolve, reject) => {
      this.#clients.once("error", reject);
      this.#clients.listen(path, resolve);
    });
  }

  #stats() {
    const counts = this.#worker?.counts() ?? { inFlight: 0, queued: 0, tasks: 0 };
    return { ...this.#vitals.read(), ...counts };
  }

  /**
   * @param timeout milliseconds for the tasks that it has
   * @param givesBack others take those that have not begun
   */
  async #leave(timeout: number, givesBack: boolean): Promise<void> {
    if (timeout !== Number.POSITIVE_INFINITY) setTimeout(() => this.#late.resolve(), timeout);
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    if (this.#worker === null) this.#rested.resolve();
    void this.#worker?.retire(givesBack);
    await Promise.race([this.#rested.promise, this.#late.promise]);
    const { inFlight, queued } = this.#stats();
    const lost = this.#tasks.durable === null ? inFlight + queued : inFlight;
    if (lost > 0) this.#log(`given up: ${lost} tasks that were not done in time`);
    await this.#hooks.stopping();
    await Promise.race([this.link.settled(), this.#late.promise]);
    this.#clients.close();
    await this.#worker?.close();
    await this.link.tasks?.close();
    process.exit(0);
  }
}
