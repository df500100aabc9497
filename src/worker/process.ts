/** The worker process: does what the manager says, and joins the worker to the reactors' sockets. */
import { connect, type Socket } from "node:net";
import { background } from "../handler/background.ts";
import type { ExchangeHandler } from "../handler/run.ts";
import { uploadDirectory } from "../handler/uploads.ts";
import { ContentCoding } from "../http/content-coding.ts";
import { TrustedProxies } from "../http/proxy.ts";
import { logTo } from "../log.ts";
import type { FromWorker, ServerStats, ToWorker } from "../manager/messages.ts";
import type { ResolvedOptions } from "../options.ts";
import { Worker, type WorkerSettings } from "./worker.ts";

export interface WorkerHooks {
  /** Makes the handler: what it throws ends the start. */
  load(): ExchangeHandler | Promise<ExchangeHandler>;
  /** The worker is about to take requests. @param port where the server listens */
  started(port: number): void | Promise<void>;
  stopping(): void | Promise<void>;
}

export class WorkerProcess {
  readonly #id: number;
  readonly #settings: WorkerSettings;
  readonly #hooks: WorkerHooks;
  readonly #log: (line: string) => void;
  readonly #calls = new Map<number, (stats: ServerStats) => void>();
  #worker: Worker | null = null;
  #lastCall = 0;

  constructor(id: number, { compression, trustProxy }: ResolvedOptions, hooks: WorkerHooks) {
    this.#id = id;
    this.#settings = {
      compression: compression === false ? null : new ContentCoding(compression),
      proxies: trustProxy.length === 0 ? null : new TrustedProxies(trustProxy),
    };
    this.#hooks = hooks;
    this.#log = logTo(`worker ${id}`);
    background.log = this.#log;
  }

  /** Says hello to the manager, and from then on does what it says. */
  run(): void {
    // The manager hears the signals; a terminal's Ctrl-C reaches every process of the group.
    process.on("SIGINT", () => {});
    process.on("SIGTERM", () => {});
    process.on("disconnect", () => process.exit(1));
    process.on("message", (message: ToWorker) => this.#told(message));
    send({ type: "hello" });
  }

  stats(): Promise<ServerStats> {
    const call = ++this.#lastCall;
    return new Promise((resolve) => {
      this.#calls.set(call, resolve);
      send({ type: "getStats", call });
    });
  }

  shutdownServer(): void {
    send({ type: "shutdownServer" });
  }

  #told(message: ToWorker): void {
    switch (message.type) {
      case "start":
        uploadDirectory.use(message.uploads);
        this.#start(message.port, message.sockets).catch((error: Error) => {
          process.send?.({ type: "failed", reason: error.message } satisfies FromWorker, () =>
            process.exit(1),
          );
        });
        return;
      case "connect":
        void this.#connect(message.socket);
        return;
      case "stats":
        send({ type: "stats", call: message.call, stats: this.#stats() });
        return;
      case "serverStats":
        this.#calls.get(message.call)?.(message.stats);
        this.#calls.delete(message.call);
        return;
      case "shutdown":
        void this.#stop(message.timeout);
        return;
    }
  }

  async #start(port: number, sockets: readonly string[]): Promise<void> {
    const handler = await this.#hooks.load();
    await this.#hooks.started(port);
    this.#worker = new Worker(this.#id, handler, this.#settings, this.#log);
    await Promise.all(sockets.map((socket) => this.#connect(socket)));
    send({ type: "ready" });
  }

  /** A reactor that cannot be reached is about to be replaced, and the manager will name the new one. */
  async #connect(path: string): Promise<void> {
    try {
      await this.#worker?.attach(await open(path));
    } catch (error) {
      this.#log(`no channel to the reactor: ${(error as Error).message}`);
    }
  }

  #stats() {
    const counts = this.#worker?.counts() ?? { inFlight: 0, requests: 0 };
    return { rss: process.memoryUsage.rss(), ...counts };
  }

  /** @param timeout milliseconds for work that goes on after its response */
  async #stop(timeout: number): Promise<void> {
    const late = new Promise((resolve) => setTimeout(resolve, timeout));
    await Promise.race([background.settled(), late]);
    if (background.size > 0) this.#log(`given up at shutdown: ${background.size} promises of waitUntil`);
    try {
      await this.#hooks.stopping();
    } catch (error) {
      this.#log(`error in workerStop: ${error instanceof Error ? error.stack : error}`);
    }
    this.#worker?.close();
    process.exit(0);
  }
}

function send(message: FromWorker): void {
  process.send?.(message);
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
