/** `Server`: what a user's script holds. It says which process does what, and knows no sockets. */

import type { Protocol } from "./exchange.ts";
import type { ExchangeHandler, RequestHandler } from "./handler/run.ts";
import { requestHandler } from "./handler/run.ts";
import { logTo } from "./log.ts";
import { loadCertificate, selfSignedCertificate } from "./manager/certificate.ts";
import { checkFolders } from "./manager/folders.ts";
import { identityOf } from "./manager/identity.ts";
import { Manager } from "./manager/manager.ts";
import type { ServerStats } from "./manager/messages.ts";
import { Operator } from "./manager/operator.ts";
import { RunDirectory } from "./manager/run-directory.ts";
import {
  checkAddress,
  OptionError,
  type ResolvedOptions,
  resolveOptions,
  type ServerOptions,
} from "./options.ts";
import { WorkerProcess } from "./worker/process.ts";
import { workerId } from "./worker/role.ts";

export interface ServerEvents {
  /** In the manager, when every reactor listens and every worker is ready. */
  start(server: Server): unknown;
  /** In a worker, before it takes its first request. What it throws keeps the worker from starting. */
  workerStart(server: Server, workerId: number): unknown;
  /** In a worker, when it leaves. */
  workerStop(server: Server, workerId: number): unknown;
  /** In a worker, for each request. There is one listener. */
  request: RequestHandler;
  /** In the manager, when every other process has left. */
  shutdown(server: Server): unknown;
}

/** Makes a worker's handler, for the options that the server was given. */
export type HandlerLoader = (options: ResolvedOptions) => ExchangeHandler | Promise<ExchangeHandler>;

type EventName = keyof ServerEvents;
type Lifecycle = Exclude<EventName, "request">;

const EVENT_NAMES = [
  "start",
  "workerStart",
  "workerStop",
  "request",
  "shutdown",
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
  readonly #listeners: { [Name in Lifecycle]: ServerEvents[Name][] } = {
    start: [],
    workerStart: [],
    workerStop: [],
    shutdown: [],
  };
  #options: ServerOptions;
  #load: HandlerLoader | null = null;
  #manager: Manager | null = null;
  #operator: Operator | null = null;
  #worker: WorkerProcess | null = null;
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
   * Sets options, beside those set before.
   * @throws OptionError for one that is wrong; Error after `start`
   */
  set(options: ServerOptions): this {
    this.#mustNotRun("set");
    const merged = { ...this.#options, ...options };
    resolveOptions(merged);
    this.#options = merged;
    return this;
  }

  /** @throws TypeError for an event that does not exist, or a second `request` listener */
  on<Name extends EventName>(event: Name, listener: ServerEvents[Name]): this {
    if (!EVENT_NAMES.includes(event)) {
      throw new TypeError(`there is no event "${event}"; there are ${EVENT_NAMES.join(", ")}`);
    }
    if (typeof listener !== "function") throw new TypeError(`the listener of "${event}" is not a function`);
    if (event !== "request") {
      (this.#listeners[event as Lifecycle] as unknown[]).push(listener);
      return this;
    }
    return this.handleWith((options) => requestHandler(listener as RequestHandler, options));
  }

  /**
   * Has each worker make its handler when it starts.
   * @internal
   */
  handleWith(load: HandlerLoader): this {
    if (this.#load !== null) throw new TypeError('there is a "request" listener already');
    this.#load = load;
    return this;
  }

  /**
   * Starts the server. In the manager, which is the process that the user started, it resolves when everything is
   * ready; in a worker it never resolves, so that what follows it runs only once.
   * @throws OptionError, CertificateError, or StartError for a port in use, a handler that does not load… (as a
   * rejection); nothing is left running then
   */
  start(): Promise<void> {
    this.#mustNotRun("start");
    const options = resolveOptions(this.#options);
    const load = this.#load;
    if (load === null)
      return Promise.reject(new OptionError('there is no handler: call server.on("request", …)'));
    return workerId === null ? this.#startManager(options) : this.#startWorker(workerId, options, load);
  }

  /** Counts and memory of every process, and the exchanges in flight. In the manager and in workers. */
  stats(): Promise<ServerStats> {
    const source = this.#manager ?? this.#worker;
    return source?.stats() ?? Promise.reject(new Error("stats: the server has not started"));
  }

  /**
   * Loads the code anew: new workers start and become ready, then take every new request, and the old ones finish what they
   * have (up to `reloadTimeout`) and leave. No connection closes, and no request fails. A certificate that is given by
   * paths is read again. Resolves when the new ones serve. In the manager and in workers; SIGHUP to the manager does it, too.
   * @throws ReloadError (as a rejection) where the new code does not load: the old still serves then
   */
  reload(): Promise<void> {
    if (this.#worker !== null) return this.#worker.reloadServer();
    return this.#manager?.reload() ?? Promise.reject(new Error("reload: the server has not started"));
  }

  /**
   * Shuts the server down: no new requests, those in flight finish (up to `shutdownTimeout`), every process leaves.
   * Resolves when that is done; in a worker, when it was asked for.
   */
  async shutdown(): Promise<void> {
    if (this.#worker !== null) this.#worker.shutdownServer();
    if (this.#manager === null) return;
    this.#operator?.stopping();
    try {
      await this.#manager.stop(resolveOptions(this.#options).shutdownTimeout);
      await this.#emit("shutdown");
    } finally {
      this.#operator?.close();
    }
  }

  async #startManager(options: ResolvedOptions): Promise<void> {
    const { user, group, runDirectory, pidFile } = options;
    const identity = identityOf(user, group);
    await checkFolders(options);
    const certificate = await this.#certificate(options);
    const port = this.#askedPort;
    const directory = await RunDirectory.take({ path: runDirectory, port, pidFile, identity }, this.#log);
    const { meeting, remains } = directory;
    const config = { host: this.host, port, options, certificate, identity, directory: meeting, remains };
    const manager = new Manager(config, this.#log);
    const operator = new Operator(this, manager, directory, this.#log);
    this.#manager = manager;
    this.#operator = operator;
    this.#runDirectory = directory.path;
    try {
      await operator.open();
      const address = await manager.start();
      this.#port = address.port;
      this.#protocols = address.protocols;
      await this.#emit("start");
      operator.ready();
    } catch (error) {
      await manager.stop(0);
      operator.close();
      throw error;
    }
  }

  #startWorker(id: number, options: ResolvedOptions, load: HandlerLoader): Promise<never> {
    this.#worker = new WorkerProcess(id, options, {
      load: () => load(options),
      started: async (port) => {
        this.#port = port;
        for (const listener of this.#listeners.workerStart) await listener(this, id);
      },
      listening: (port) => {
        this.#port = port;
      },
      stopping: async () => {
        for (const listener of this.#listeners.workerStop) await listener(this, id);
      },
    });
    this.#worker.run();
    return new Promise(() => {});
  }

  async #certificate(options: ResolvedOptions) {
    if (options.tls === false) {
      if (options.http3 !== "off") this.#log("plain HTTP/1.1: HTTP/2 and HTTP/3 need TLS, which is off");
      return null;
    }
    if (options.tls !== null) return loadCertificate(options.tls);
    const made = await selfSignedCertificate(Date.now());
    this.#log(`no certificate given: using a self-signed one for localhost, kept in ${made.path}`);
    return made;
  }

  async #emit(event: "start" | "shutdown"): Promise<void> {
    for (const listener of this.#listeners[event]) await listener(this);
  }

  #mustNotRun(call: string): void {
    if (this.#manager !== null || this.#worker !== null)
      throw new Error(`${call}: the server was started already`);
  }
}
