/** The worker process: does what the manager says, and joins the worker to the reactors' sockets. */
import { AsyncLocalStorage } from "node:async_hooks";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { BaseConfig, BaseServer } from "../base/base-server.ts";
import type { ConnectionInfo } from "../connection.ts";
import { background } from "../handler/background.ts";
import type { ExchangeHandler } from "../handler/run.ts";
import { uploadDirectory } from "../handler/uploads.ts";
import { ContentCoding } from "../http/content-coding.ts";
import { TrustedProxies } from "../http/proxy.ts";
import { type ListenConfig, reasonOf } from "../listeners/open.ts";
import { logTo, logUncaught } from "../log.ts";
import type { ToWorker, WorkerCounts } from "../manager/messages.ts";
import type { ResolvedOptions } from "../options.ts";
import { remove } from "../removal.ts";
import { OwnVitals } from "../vitals.ts";
import { Progress } from "../wire/progress.ts";
import type { HandlerSettings } from "./handler-exchange.ts";
import { ManagerLink, type MessageListener } from "./manager-link.ts";
import { type ConnectionListener, Worker } from "./worker.ts";

export interface WorkerHooks {
  /** Makes the handler: what it throws ends the start. */
  load(): ExchangeHandler | Promise<ExchangeHandler>;
  /**
   * The worker is about to take requests.
   * @param port where the server listens; 0 where that is not known yet
   */
  started(port: number): void | Promise<void>;
  /** It listens itself, in the mode `base`. */
  listening(port: number): void;
  stopping(): void | Promise<void>;
  message: MessageListener;
  readonly connections: ConnectionListener;
}

type StartMessage = Extract<ToWorker, { type: "start" }>;

/** Milliseconds: a reactor that lives has answered by then, and one that has died has another in its place. */
const REACHED_WITHIN = 2000;

export class WorkerProcess {
  readonly #id: number;
  readonly #settings: HandlerSettings;
  readonly #hooks: WorkerHooks;
  readonly #log: (line: string) => void;
  readonly #vitals: OwnVitals;
  /** To the manager. */
  readonly link: ManagerLink<ToWorker>;
  /** Null in the mode `base`. */
  #worker: Worker | null = null;
  /** Null in the mode `process`. */
  #base: BaseServer | null = null;
  #progress: Progress | null = null;
  /** Of reactors that the manager has named since the start, while there was no worker yet. */
  readonly #named: string[] = [];
  /** Resolves when some reactor can give it requests. */
  readonly #reached = Promise.withResolvers<void>();
  #isReached = false;
  #unreached = "";
  #remains: string | null = null;
  #isLeaving = false;
  /** Resolves when work that goes on after its response is no longer waited for. */
  readonly #late = Promise.withResolvers<void>();

  constructor(id: number, { compression, trustProxy, tasks }: ResolvedOptions, hooks: WorkerHooks) {
    this.#id = id;
    this.#settings = {
      compression: compression === false ? null : new ContentCoding(compression),
      proxies: trustProxy.length === 0 ? null : new TrustedProxies(trustProxy),
    };
    this.#hooks = hooks;
    this.#log = logTo(`worker ${id}`);
    this.#vitals = new OwnVitals(this.#log);
    background.log = this.#log;
    this.link = new ManagerLink(tasks, hooks.message, this.#log);
  }

  /** Says hello to the manager, and from then on does what it says. */
  run(): void {
    logUncaught(this.#log);
    this.link.open(
      (message) => this.#told(message),
      () => {
        // In the mode `base` there are no reactors to do it.
        if (this.#remains === null) return;
        this.#log("the manager has gone: the server ends");
        remove(this.#remains, this.#log);
      },
    );
  }

  connection(id: string): Promise<ConnectionInfo | null> {
    return this.#worker?.connection(id) ?? Promise.resolve(this.#base?.connection(id) ?? null);
  }

  #told(message: ToWorker): void {
    switch (message.type) {
      case "start":
        uploadDirectory.use(message.uploads, this.#log);
        this.#start(message).catch((error: Error) => this.link.fail(error.message));
        return;
      case "listen":
        this.#listen(message.config).catch((error: Error) => this.link.fail(reasonOf(error, message.config)));
        return;
      case "retire":
        void this.#leave(Number.POSITIVE_INFINITY);
        return;
      case "connect":
        if (this.#worker === null) this.#named.push(message.socket);
        else void this.#connect(this.#worker, message.socket);
        return;
      case "stats":
        this.link.send({ type: "stats", call: message.call, stats: this.#stats(message.detailed) });
        return;
      case "shutdown":
        void this.#leave(message.timeout);
        return;
    }
  }

  async #start(message: StartMessage): Promise<void> {
    if (message.base !== null) await this.#prepareBase(message.base);
    // Requests come many in one turn: what one enters (`enterWith`), its user for one, would be the next one's context.
    const handler = AsyncLocalStorage.bind(await this.#hooks.load());
    await this.#hooks.started(message.port);
    if (message.base === null) await this.#work(handler, message);
    else {
      const { BaseServer } = await import("../base/base-server.ts");
      const { connections } = this.#hooks;
      const events = { spent: () => this.link.send({ type: "spent" }), connections, log: this.#log };
      this.#base = await BaseServer.make(handler, this.#settings, message.base, message.maxRequests, events);
      // However it ends, but by a kill: what it has counted stays in the server's totals.
      process.on("exit", () => this.link.send({ type: "stats", call: 0, stats: this.#stats(false) }));
    }
    this.link.send({ type: "ready" });
  }

  async #prepareBase({ remains, folders }: BaseConfig): Promise<void> {
    this.#remains = remains;
    if (folders === null) return;
    const { checkFolders } = await import("../manager/folders.ts");
    await checkFolders(folders);
  }

  async #work(handler: ExchangeHandler, { sockets, runDirectory, maxRequests }: StartMessage): Promise<void> {
    this.#progress = Progress.open(runDirectory, this.#log);
    const worker = new Worker(this.#id, handler, this.#settings, maxRequests, this.#progress, {
      spent: () => this.link.send({ type: "spent" }),
      // It has all the time that the manager gives it.
      retired: () => void this.#leave(Number.POSITIVE_INFINITY),
      connections: this.#hooks.connections,
      log: this.#log,
    });
    this.#worker = worker;
    // One that has taken another's place has its path.
    const paths = new Set([...sockets, ...this.#named]);
    if (paths.size === 0) return;
    await this.#reach(Promise.all(Array.from(paths, (path) => this.#connect(worker, path))));
  }

  /**
   * Resolves when every reactor is connected, or some are and the others say nothing: they keep it from nobody else.
   * @throws Error where none is, and the manager names no other: it would take another's place, and never get a request
   */
  async #reach(connected: Promise<unknown>): Promise<void> {
    const reached = this.#reached.promise;
    await Promise.race([connected, Promise.all([reached, sleep(REACHED_WITHIN)])]);
    await Promise.race([reached, sleep(REACHED_WITHIN)]);
    if (!this.#isReached) throw new Error(`no reactor can be reached: ${this.#unreached}`);
  }

  async #listen(config: ListenConfig): Promise<void> {
    const address = await this.#base?.listen(config);
    if (address === undefined) return;
    this.#hooks.listening(address.port);
    this.link.send({ type: "listening", ...address });
  }

  /** A reactor that cannot be reached is about to be replaced, and the manager will name the new one. */
  async #connect(worker: Worker, path: string): Promise<void> {
    const late = setTimeout(() => {
      this.#log(`the reactor of ${path} has not answered for ${REACHED_WITHIN / 1000} s`);
    }, REACHED_WITHIN);
    try {
      await worker.attach(await open(path));
      this.#isReached = true;
      this.#reached.resolve();
    } catch (error) {
      this.#unreached = (error as Error).message;
      // Before the first one, `reach` tells it, unless that is because the server ends.
      if (this.#isReached) this.#log(`no channel to the reactor: ${this.#unreached}`);
    } finally {
      clearTimeout(late);
    }
  }

  #stats(detailed: boolean): WorkerCounts {
    const counts = (this.#worker ?? this.#base)?.counts() ?? { inFlight: 0, requests: 0 };
    return {
      ...this.#vitals.read(),
      ...counts,
      exchanges: this.#base?.exchangeCounts(detailed) ?? null,
    };
  }

  /** @param timeout milliseconds for requests in flight, in the mode `base`, and for work that goes on after them */
  async #leave(timeout: number): Promise<void> {
    if (timeout !== Number.POSITIVE_INFINITY) {
      setTimeout(() => this.#late.resolve(), timeout);
    }
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    await Promise.race([this.#base?.drain(timeout === Number.POSITIVE_INFINITY), this.#late.promise]);
    await Promise.race([background.settled(), this.#late.promise]);
    if (background.size > 0) this.#log(`given up at shutdown: ${background.size} promises of waitUntil`);
    await this.#hooks.stopping();
    await Promise.race([this.link.settled(), this.#late.promise]);
    await (this.#worker ?? this.#base)?.close();
    await this.link.tasks?.close();
    this.#progress?.close();
    process.exit(0);
  }
}

function open(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
    socket.once("error", reject);
  });
}
