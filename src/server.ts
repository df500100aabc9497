/** `Server`: what a user's script holds. It says which process does what, and knows no sockets. */

import { encode } from "./clone/clone.ts";
import { checkSize, type Parts } from "./clone/parts.ts";
import {
  CONNECTION_EVENTS,
  type Connection,
  type ConnectionClose,
  type ConnectionEvent,
  type ConnectionHandshake,
  type ConnectionInfo,
  type FormerPath,
} from "./connection.ts";
import type { Protocol } from "./exchange.ts";
import type { ExchangeHandler, RequestHandler } from "./handler/run.ts";
import { requestHandler } from "./handler/run.ts";
import type { Certificates } from "./listeners/listener.ts";
import { describe, inOneLine, logTo } from "./log.ts";
import { loadCertificates, selfSignedCertificate } from "./manager/certificate.ts";
import { checkFolders } from "./manager/folders.ts";
import { identityOf } from "./manager/identity.ts";
import { Manager } from "./manager/manager.ts";
import type { MessageSender, ServerStats } from "./manager/messages.ts";
import { Operator } from "./manager/operator.ts";
import { RunDirectory } from "./manager/run-directory.ts";
import { SHUT_DOWN, StartError } from "./manager/start-error.ts";
import {
  checkAddress,
  checkKind,
  OptionError,
  type ResolvedOptions,
  type ResolvedTasks,
  resolveOptions,
  type ServerOptions,
} from "./options.ts";
import type { ServerAccess } from "./server-access.ts";
import { Messages } from "./sharing/messages.ts";
import type { Columns, TableSchema } from "./sharing/schema.ts";
import { type Table, Tables } from "./sharing/table.ts";
import type { TaskClient } from "./tasks/client.ts";
import { TaskError } from "./tasks/errors.ts";
import { TaskWorkerProcess } from "./tasks/process.ts";
import type { Task, TaskHandler, TaskOptions } from "./tasks/task.ts";
import { WorkerProcess } from "./worker/process.ts";
import { taskWorkerId, workerId } from "./worker/role.ts";

export interface ServerEvents {
  /** In the manager, when every reactor listens and every worker is ready. What it throws fails the start. */
  start(server: Server): unknown;
  /** In a worker or task worker, before it takes its first request or task. What it throws keeps it from starting. */
  workerStart(server: Server, workerId: number): unknown;
  /**
   * In a worker or task worker, when it leaves. Three seconds after `shutdownTimeout`, or `reloadTimeout`, a process that has not
   * left is killed. What it throws goes to the log.
   */
  workerStop(server: Server, workerId: number): unknown;
  /** In a worker, for each request. There is one listener. */
  request: RequestHandler;
  /** In a task worker, for each task; needs the option `tasks`. There is one listener. */
  task: TaskHandler;
  /** In workers and task workers, for each message that any process has broadcast. What it throws goes to the log. */
  message(message: unknown, from: MessageSender): unknown;
  /**
   * In the manager, when every other process has left. At a signal, `tercet stop` or a handler's `shutdown` it has what is left
   * of `shutdownTimeout`, three seconds at least: the process ends then, with 1.
   */
  shutdown(server: Server): unknown;
  /**
   * In a worker: a client has connected. This and what follows are told of the HTTP/3 engine quic, all of one connection
   * in the same worker, as long as that lives.
   */
  connect(server: Server, connection: Connection): unknown;
  /** The handshake is done, which `connect` waits for, too. */
  handshake(server: Server, connection: Connection, handshake: ConnectionHandshake): unknown;
  /** The client goes on from another address (RFC 9000 §9). */
  migrate(server: Server, connection: Connection, from: FormerPath): unknown;
  close(server: Server, connection: Connection, close: ConnectionClose): unknown;
}

/** Makes a worker's handler, for the options that the server was given. */
export type HandlerLoader = (options: ResolvedOptions) => ExchangeHandler | Promise<ExchangeHandler>;

/** Makes a task worker's handler. */
export type TaskLoader = () => TaskHandler | Promise<TaskHandler>;

type EventName = keyof ServerEvents;
type Lifecycle = Exclude<EventName, "request" | "task" | "message">;
type Listeners = { [Name in Lifecycle]: ServerEvents[Name][] };

/** The one whose `start` the workers of this process run their script up to. */
let started: Server | null = null;

/** Of a message to all. */
const MAX_MESSAGE_BYTES = 1024 * 1024;
/** Of a task worker that cannot start for its code no longer asks for one. */
const DEFAULT_TASKS = resolveOptions({ tasks: {} }).tasks as ResolvedTasks;

const EVENT_NAMES = [
  "start",
  "workerStart",
  "workerStop",
  "request",
  "task",
  "message",
  "shutdown",
  ...CONNECTION_EVENTS,
] as const satisfies EventName[];

/**
 * A server, made and started by a script that runs once in the manager and again in each worker: `start` tells them
 * apart.
 */
export class Server {
  /** The host that was asked for. */
  readonly host: string;
  readonly #askedPort: number;
  readonly #log = logTo("manager");
  readonly #listeners: Listeners = {
    start: [],
    workerStart: [],
    workerStop: [],
    shutdown: [],
    connect: [],
    handshake: [],
    migrate: [],
    close: [],
  };
  readonly #messages = new Messages();
  readonly #tables = new Tables();
  #options: ServerOptions;
  #load: HandlerLoader | null = null;
  #loadTask: TaskLoader | null = null;
  #module: string | null = null;
  #manager: Manager | null = null;
  #operator: Operator | null = null;
  #worker: WorkerProcess | TaskWorkerProcess | null = null;
  /** Null until `start`, and again where that has failed. */
  #start: Promise<void> | null = null;
  #shutdown: Promise<void> | null = null;
  /** Null until the server was started. */
  #access: ServerAccess | null = null;
  #port = 0;
  #protocols: readonly Protocol[] = [];
  #runDirectory: string | null = null;

  /**
   * @param host to listen on: a name or an address; `::` for all, of IPv6 and IPv4
   * @param port 0 to 65535, the same for TCP and UDP; 0 lets the system pick
   * @throws OptionError
   */
  constructor(host: string, port: number, options: ServerOptions = {}) {
    checkAddress(host, port);
    resolveOptions(options);
    this.host = host;
    this.#askedPort = port;
    this.#options = options;
  }

  /** The port that the server listens on; before it listens, the one that was asked for. */
  get port(): number {
    return this.#port || this.#askedPort;
  }

  /** What the server speaks; empty before it has started, and in a worker. */
  get protocols(): readonly Protocol[] {
    return this.#protocols;
  }

  /** Where its control socket is: `tercet status --run-dir` takes it. Null before it has started, and in a worker. */
  get runDirectory(): string | null {
    return this.#runDirectory;
  }

  /**
   * Sets options, beside those set before; one that is an object takes the place of the one before as a whole.
   * @throws OptionError for one that is wrong; Error after `start`
   */
  set(options: ServerOptions): this {
    this.#mustNotRun("set");
    checkKind(options);
    const merged = { ...this.#options, ...options };
    resolveOptions(merged);
    this.#options = merged;
    return this;
  }

  /** This process is a task worker (Swoole's `taskworker`): `workerStart` and `workerStop` are told in both kinds. */
  get taskWorker(): boolean {
    return taskWorkerId !== null;
  }

  /**
   * @throws TypeError for an event that does not exist, or a second `request` or `task` listener; Error in the manager after
   * the start for any but `shutdown`
   */
  on<Name extends EventName>(event: Name, listener: ServerEvents[Name]): this {
    if (!EVENT_NAMES.includes(event)) {
      throw new TypeError(`there is no event "${event}"; there are ${EVENT_NAMES.join(", ")}`);
    }
    if (typeof listener !== "function") throw new TypeError(`the listener of "${event}" is not a function`);
    // No worker runs what follows `start`, and so none would have the listener.
    if (this.#start !== null && this.#protocols.length > 0 && event !== "shutdown") {
      throw new Error(
        `on: the server was started already; a listener of "${event}" is added before start(), as workers run the script up to there`,
      );
    }
    if (event === "task") return this.taskWith(() => listener as TaskHandler);
    if (event === "message") {
      this.#messages.add(listener as ServerEvents["message"]);
      return this;
    }
    if (event !== "request") {
      (this.#listeners[event as Lifecycle] as unknown[]).push(listener);
      return this;
    }
    return this.handleWith((options) => requestHandler(listener as RequestHandler, options));
  }

  /**
   * Has each worker make its handler when it starts.
   * @param module that this loads, for the log; null for the script itself
   * @internal
   */
  handleWith(load: HandlerLoader, module: string | null = null): this {
    if (this.#load !== null) throw new TypeError('there is a "request" listener already');
    this.#load = load;
    this.#module = module;
    return this;
  }

  /**
   * Has each task worker make its handler when it starts.
   * @internal
   */
  taskWith(load: TaskLoader): this {
    if (this.#loadTask !== null) throw new TypeError('there is a "task" listener already');
    this.#loadTask = load;
    return this;
  }

  /**
   * Starts the server. In the manager, which is the process that the user started, it resolves when everything is
   * ready; in a worker it never resolves, so that what follows it runs only once.
   * @throws OptionError, CertificateError, or StartError for a port in use, a handler that does not load, a shutdown meanwhile…;
   * nothing is left running then. Error where it was started already, or another server of this process was: a process has one
   * (all as rejections)
   */
  async start(): Promise<void> {
    this.#mustNotRun("start");
    if (started !== null && started !== this) {
      throw new Error(
        started.#module === null
          ? "start: another server of this process was started, and its workers run this script up to there"
          : `start: tercet serve starts a server by itself; a script with one of its own is run by: npx bun ${started.#module}`,
      );
    }
    const options = resolveOptions(this.#options);
    const load = this.#load;
    if (load === null) throw new OptionError('there is no handler: call server.on("request", …)');
    started = this;
    if (taskWorkerId !== null) return this.#startTaskWorker(taskWorkerId, options);
    if (workerId !== null) return this.#startWorker(workerId, options, load);
    this.#start = this.#startManager(options);
    return this.#start;
  }

  /** Counts and memory of every process, and the exchanges in flight. In the manager and in workers. */
  stats(): Promise<ServerStats> {
    return this.#access?.stats() ?? Promise.reject(new Error("stats: the server has not started"));
  }

  /**
   * Has a task worker run the "task" listener on the data, and resolves with its result. In workers, in task workers, and, when
   * it has started, in the manager.
   * @param data is copied: whatever structured clone takes (HTML §2.7), of up to 256 MiB
   * @throws what the listener throws, with its name, message, stack, cause and code; CloneError, which names the part that
   * cannot be cloned; TaskTimeoutError; TaskLostError; TaskQueueFullError; TaskError where there is nobody to run it, or a
   * durable queue cannot keep it (all as rejections)
   */
  async task(data: unknown, options?: TaskOptions): Promise<unknown> {
    return this.#taskClient("task").task(data, options);
  }

  /**
   * The same, without the result: resolves when a queue has the task. What becomes of it goes to the log, under its id.
   * @throws as `task`, where no queue has it (as a rejection)
   */
  async defer(data: unknown, options?: TaskOptions): Promise<void> {
    return this.#taskClient("defer").defer(data, options);
  }

  /**
   * Tells every worker and task worker, this one too: their "message" listeners get it. What one process sends arrives in its
   * order.
   * @param message is copied: whatever structured clone takes, of up to 1 MiB, since it goes through the manager
   * @throws CloneError, which names the part that cannot be cloned; Error before the start
   */
  broadcast(message: unknown): void {
    if (this.#access === null) throw new Error("broadcast: the server has not started");
    const parts = encode(message, "broadcast", "message");
    checkSize(parts, MAX_MESSAGE_BYTES, "broadcast: message");
    this.#access.broadcast(parts);
  }

  /**
   * A small table that all processes share: best declared before the start, when it is there once they are ready, and a reload
   * whose code declares it otherwise fails.
   * @param name a letter, and at most 63 letters, digits and underscores
   * @throws TableError for a wrong schema, or another one than before
   */
  table<const C extends Columns>(name: string, schema: TableSchema<C>): Table<C> {
    return this.#tables.declare(name, schema);
  }

  /**
   * Loads the code anew: new workers and task workers start and become ready, then take every new request and task, and the old
   * ones finish what they have (up to `reloadTimeout`) and leave. No connection closes, and no request fails. Certificates
   * that are given by paths are read again. Resolves when the new ones serve. In the manager and in workers; SIGHUP, SIGUSR1
   * and SIGUSR2 to the manager do it, too.
   * @throws ReloadError (as a rejection) where the new code does not load: the old still serves then
   */
  reload(): Promise<void> {
    return this.#access?.reload() ?? Promise.reject(new Error("reload: the server has not started"));
  }

  /**
   * How a connection of the HTTP/3 engine quic is doing; null where there is none of that id, any more or at all. In
   * workers.
   * @param id the first half of `request.name`, or what an event told
   */
  connection(id: string): Promise<ConnectionInfo | null> {
    if (this.#worker instanceof WorkerProcess) return this.#worker.connection(id);
    return Promise.reject(new Error("connection: is asked in a worker, where requests are"));
  }

  /**
   * Shuts the server down: no new requests, those in flight finish (up to `shutdownTimeout`), every process leaves.
   * Resolves when that is done, however often it is called; in a worker, when it was asked for. A start that is under way fails.
   * @throws what a listener of "shutdown" throws (as a rejection)
   */
  async shutdown(): Promise<void> {
    if (this.#worker !== null) this.#worker.link.send({ type: "shutdownServer" });
    if (this.#start === null) return;
    this.#shutdown ??= this.#shutDown(this.#start);
    await this.#shutdown;
  }

  async #shutDown(start: Promise<void>): Promise<void> {
    if (this.#manager === null) {
      // No process is there yet, and none will be.
      await start.catch(() => {});
      return;
    }
    this.#operator?.stopping();
    const { shutdownTimeout } = resolveOptions(this.#options);
    const deadline = performance.now() + shutdownTimeout;
    try {
      await this.#manager.stop(shutdownTimeout);
      this.#operator?.alone(deadline - performance.now());
      const failures: unknown[] = [];
      await callEach(this.#listeners.shutdown, [this], (error) => failures.push(error));
      const [first, ...others] = failures;
      for (const error of others) this.#log(`error in shutdown: ${describe(error)}`);
      if (failures.length > 0) throw first;
    } finally {
      this.#operator?.close();
    }
  }

  async #startManager(options: ResolvedOptions): Promise<void> {
    try {
      await this.#startProcesses(options);
    } catch (error) {
      // Whoever has asked for the end, by a signal perhaps, says how this process ends.
      if (this.#manager !== null) await this.#shutdown?.catch(() => {});
      if (this.#shutdown === null) {
        this.#start = null;
        this.#manager = null;
      }
      throw error;
    }
  }

  async #startProcesses(options: ResolvedOptions): Promise<void> {
    const { user, group, runDirectory, pidFile } = options;
    const identity = identityOf(user, group);
    await checkFolders(options);
    const unheard = CONNECTION_EVENTS.filter((event) => this.#listeners[event].length > 0);
    if (unheard.length > 0 && options.quic === null)
      this.#log(`nobody tells of ${unheard.join(", ")}: only the HTTP/3 engine "quic" does`);
    const certificates = await this.#certificates(options);
    const port = this.#askedPort;
    const directory = await RunDirectory.take({ path: runDirectory, port, pidFile, identity }, this.#log);
    if (this.#shutdown !== null) {
      directory.release();
      throw new StartError(SHUT_DOWN);
    }
    const { meeting, remains } = directory;
    const tasks = this.#loadTask && options.tasks;
    const config = {
      host: this.host,
      port,
      options,
      certificates,
      identity,
      directory: meeting,
      remains,
      module: this.#module,
      tasks,
    };
    const manager = new Manager(config, this.#log);
    const operator = new Operator(this, manager, directory, this.#log);
    this.#manager = manager;
    this.#access = manager;
    this.#operator = operator;
    this.#runDirectory = directory.path;
    try {
      await this.#tables.connect((operation) => manager.operate(operation));
      await operator.open();
      const address = await manager.start();
      this.#port = address.port;
      this.#protocols = address.protocols;
      for (const listener of this.#listeners.start) await listener(this);
      operator.ready();
    } catch (error) {
      await manager.stop(0);
      operator.close();
      throw error;
    }
  }

  #startWorker(id: number, options: ResolvedOptions, load: HandlerLoader): Promise<never> {
    const tasks = this.#loadTask && options.tasks;
    const hooks = this.#hooks("worker", id, () => load(options));
    const connections = connectionListener(this, this.#listeners, logTo(`worker ${id}`));
    return this.#run(new WorkerProcess(id, { ...options, tasks }, { ...hooks, connections }));
  }

  #startTaskWorker(id: number, { tasks }: ResolvedOptions): Promise<never> {
    const hooks = this.#hooks("task worker", id, async () => {
      // The code may have lost either since the manager loaded it.
      if (this.#loadTask === null || tasks === null) throw new TaskError(this.#whyNoTasks);
      const handler = await this.#loadTask();
      return (data: unknown, task: Omit<Task, "server">) => handler(data, { ...task, server: this });
    });
    return this.#run(new TaskWorkerProcess(id, tasks ?? DEFAULT_TASKS, hooks));
  }

  #run(worker: WorkerProcess | TaskWorkerProcess): Promise<never> {
    this.#worker = worker;
    this.#access = worker.link;
    worker.run();
    return new Promise(() => {});
  }

  #hooks<Handler>(kind: string, id: number, load: () => Handler | Promise<Handler>) {
    const log = logTo(`${kind} ${id}`);
    return {
      load: async () => {
        const handler = await load();
        await this.#tables.connect((operation) => (this.#access as ServerAccess).operate(operation));
        return handler;
      },
      started: async (port: number) => {
        this.#port = port;
        try {
          for (const listener of this.#listeners.workerStart) await listener(this, id);
        } catch (thrown) {
          throw new StartError(`a workerStart listener failed: ${inOneLine(thrown)}`, { cause: thrown });
        }
      },
      listening: (port: number) => {
        this.#port = port;
      },
      stopping: () => {
        const failed = (error: unknown) => log(`error in workerStop: ${describe(error)}`);
        return callEach(this.#listeners.workerStop, [this, id], failed);
      },
      message: (parts: Parts, from: MessageSender) => this.#messages.receive(parts, from, log),
    };
  }

  #taskClient(call: string): TaskClient {
    if (this.#access === null) throw new TaskError(`${call}: the server has not started`);
    if (this.#access.tasks === null) throw new TaskError(`${call}: ${this.#whyNoTasks}`);
    return this.#access.tasks;
  }

  get #whyNoTasks(): string {
    return this.#loadTask === null
      ? 'there is nobody to run it: no listener, server.on("task", …)'
      : 'there is nobody to run it: the option "tasks" is not set';
  }

  async #certificates(options: ResolvedOptions): Promise<Certificates | null> {
    if (options.tls === false) {
      if (options.http3 !== "off") this.#log("plain HTTP/1.1: HTTP/2 and HTTP/3 need TLS, which is off");
      return null;
    }
    const sni = options.quic?.sni ?? {};
    if (options.tls !== null) return loadCertificates({ ...options.tls, sni }, Date.now(), this.#log);
    const { cert, key, path } = await selfSignedCertificate(Date.now());
    this.#log(`no certificate given: using a self-signed one for localhost, kept in ${path}`);
    return loadCertificates({ cert, key, sni }, Date.now(), this.#log);
  }

  #mustNotRun(call: string): void {
    if (this.#start !== null || this.#worker !== null)
      throw new Error(`${call}: the server was started already`);
  }
}

/** Calls listeners one after another: one that fails keeps none of the others from it. */
async function callEach<Args extends readonly unknown[]>(
  listeners: readonly ((...args: Args) => unknown)[],
  args: Args,
  failed: (error: unknown) => void,
): Promise<void> {
  for (const listener of listeners) {
    try {
      await listener(...args);
    } catch (error) {
      failed(error);
    }
  }
}

/** Calls the listeners of what happens to connections. What one throws, or rejects with, goes to the log. */
function connectionListener(server: Server, listeners: Listeners, log: (line: string) => void) {
  const call = (event: ConnectionEvent): Promise<void> => {
    const { connection } = event;
    const failed = (error: unknown) => log(`error in ${event.name} ${connection.id}: ${describe(error)}`);
    switch (event.name) {
      case "connect":
        return callEach(listeners.connect, [server, connection], failed);
      case "handshake":
        return callEach(listeners.handshake, [server, connection, event.handshake], failed);
      case "migrate":
        return callEach(listeners.migrate, [server, connection, event.from], failed);
      case "close":
        return callEach(listeners.close, [server, connection, event.close], failed);
    }
  };
  const events = new Set(CONNECTION_EVENTS.filter((event) => listeners[event].length > 0));
  return { events, told: (event: ConnectionEvent) => void call(event) };
}
