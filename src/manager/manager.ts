/** Starts reactors and workers, replaces those that die, and brings them all down. Carries no traffic. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Protocol } from "../exchange.ts";
import { engineHeaderBytes } from "../listeners/listener.ts";
import { bindTcp, bindUdp } from "../listeners/ports.ts";
import type { ResolvedOptions } from "../options.ts";
import type { Certificate } from "./certificate.ts";
import { Child } from "./child.ts";
import {
  type FromReactor,
  type FromWorker,
  type ReactorStats,
  type ServerStats,
  type ToReactor,
  type ToWorker,
  WORKER_ID_VARIABLE,
  type WorkerCounts,
  type WorkerStats,
} from "./messages.ts";
import { RestartPolicy } from "./restart-policy.ts";

/** The server could not start: the message says why in one line. */
export class StartError extends Error {
  readonly code = "TERCET_START";
  override readonly name = "StartError";
}

export interface Address {
  readonly port: number;
  readonly protocols: readonly Protocol[];
}

export interface ManagerConfig {
  readonly host: string;
  readonly port: number;
  readonly options: ResolvedOptions;
  /** Null for plain HTTP/1.1. */
  readonly certificate: Certificate | null;
}

const REACTOR_SCRIPT = fileURLToPath(new URL("../reactor/main.ts", import.meta.url));
/** Milliseconds for a process to leave after it was told to; then it is killed. */
const LEAVE_TIMEOUT = 3000;
/** Milliseconds within which a process that is well says how it is. */
const STATS_TIMEOUT = 1000;
/** `sockaddr_un` has room for 108 bytes with the closing NUL. */
const MAX_SOCKET_PATH_BYTES = 107;

type WorkerChild = Child<ToWorker, FromWorker, WorkerCounts>;
type ReactorChild = Child<ToReactor, FromReactor, ReactorStats>;

/** A place for a process: the same id, policy and count through all the processes that fill it. */
interface Slot<AnyChild> {
  readonly id: number;
  readonly policy: RestartPolicy;
  child: AnyChild | null;
  ready: boolean;
  restarts: number;
}

/**
 * Milliseconds for which a reactor's allocator keeps what is free before it returns it to the system: with its own
 * default, 10, it returns under load what the next request asks back, at 3 % of the reactor's time.
 */
const PURGE_DELAY = "1000";

export class Manager {
  readonly #config: ManagerConfig;
  readonly #log: (line: string) => void;
  readonly #runDirectory: string;
  readonly #reactors: readonly Slot<ReactorChild>[];
  readonly #workers: readonly Slot<WorkerChild>[];
  readonly #restarts = new Set<NodeJS.Timeout>();
  /** Workers that are being asked whether they still answer. */
  readonly #probed = new Set<WorkerChild>();
  readonly #started = Promise.withResolvers<Address>();
  #state: "starting" | "running" | "stopping" = "starting";
  #address: Address | null = null;
  #stopped: Promise<void> | null = null;
  /** Told when a handler asks for the server's shutdown. */
  onShutdownAsked: () => void = () => {};

  constructor(config: ManagerConfig, log: (line: string) => void) {
    this.#config = config;
    this.#log = log;
    // 0700 from the start: only this user's processes reach the workers' sockets.
    this.#runDirectory = mkdtempSync(join(tmpdir(), "tercet-"));
    this.#reactors = slots(config.options.reactors);
    this.#workers = slots(config.options.workers);
  }

  /**
   * Resolves when every reactor listens and every worker is ready.
   * @throws StartError (as a rejection); nothing is left running then
   */
  async start(): Promise<Address> {
    try {
      this.#checkSocketPath();
      await this.#checkPortIsFree();
      // The first finds the port that the others share.
      this.#startReactor(this.#reactors[0] as Slot<ReactorChild>);
      const address = await this.#started.promise;
      this.#state = "running";
      return address;
    } catch (error) {
      await this.stop(0);
      throw error;
    }
  }

  async stats(): Promise<ServerStats> {
    const reactors = this.#reactors.map(({ child }) => child?.stats(askStats, STATS_TIMEOUT));
    const workers = this.#workers.map((slot) => workerStats(slot));
    const present = (await Promise.all(reactors)).filter((stats) => stats != null);
    return {
      pid: process.pid,
      inFlight: present.reduce((sum, stats) => sum + stats.inFlight, 0),
      reactors: present,
      workers: (await Promise.all(workers)).filter((stats) => stats !== null),
    };
  }

  /**
   * Ends everything: no new requests, those in flight finish, and what goes on after them (`waitUntil`), the processes
   * leave, nothing stays behind.
   * @param timeout milliseconds for both
   */
  stop(timeout: number): Promise<void> {
    this.#stopped ??= this.#stop(timeout);
    return this.#stopped;
  }

  /** Ends every process at once. */
  kill(): void {
    for (const { child } of [...this.#reactors, ...this.#workers]) child?.kill("SIGKILL");
  }

  async #stop(timeout: number): Promise<void> {
    this.#state = "stopping";
    const deadline = performance.now() + timeout;
    for (const timer of this.#restarts) clearTimeout(timer);
    await leave(this.#reactors, { type: "shutdown", timeout }, timeout + LEAVE_TIMEOUT);
    const left = Math.max(0, deadline - performance.now());
    await leave(this.#workers, { type: "shutdown", timeout: left }, left + LEAVE_TIMEOUT);
    rmSync(this.#runDirectory, { recursive: true, force: true });
  }

  #startReactor(slot: Slot<ReactorChild>): void {
    const { options } = this.#config;
    const started = Date.now();
    const socketPath = this.#socketPath(slot.id);
    rmSync(socketPath, { force: true });
    const child: ReactorChild = new Child(
      {
        script: REACTOR_SCRIPT,
        args: [],
        execArgv: [`--max-http-header-size=${engineHeaderBytes(options.maxHeaderBytes)}`],
        env: { MIMALLOC_PURGE_DELAY: PURGE_DELAY, ...process.env },
      },
      {
        message: (message) => this.#reactorSaid(slot, message),
        exit: (cause) =>
          this.#exited(slot, `reactor ${slot.id}`, cause, started, () => this.#startReactor(slot)),
      },
    );
    slot.child = child;
    child.send({
      type: "start",
      config: {
        id: slot.id,
        host: this.#config.host,
        port: this.#address?.port ?? this.#config.port,
        reusePort: options.reactors > 1,
        tls: this.#config.certificate,
        http3: options.http3,
        keepAliveTimeout: options.keepAliveTimeout,
        limits: options,
        static: options.static,
        socketPath,
      },
    });
  }

  #reactorSaid(slot: Slot<ReactorChild>, message: FromReactor): void {
    if (message.type === "failed") this.#failed(message.reason);
    if (message.type === "overdue") void this.#probe(message.workerId);
    if (message.type !== "ready") return;
    slot.ready = true;
    if (this.#address === null) {
      this.#address = { port: message.port, protocols: message.protocols };
      for (const other of this.#reactors) if (other !== slot) this.#startReactor(other);
      for (const worker of this.#workers) this.#startWorker(worker);
    }
    for (const { child } of this.#workers)
      child?.send({ type: "connect", socket: this.#socketPath(slot.id) });
    this.#checkStarted();
  }

  /** A worker that let a request become overdue may be stuck in a loop: one that says nothing is replaced. */
  async #probe(workerId: number): Promise<void> {
    const slot = this.#workers[workerId - 1];
    const child = slot?.child ?? null;
    if (child === null || this.#probed.has(child)) return;
    this.#probed.add(child);
    const timeout = Math.max(this.#config.options.requestTimeout, STATS_TIMEOUT);
    const stats = await child.stats(askStats, timeout);
    this.#probed.delete(child);
    if (stats !== null || !child.alive) return;
    this.#log(`worker ${workerId} has said nothing for ${timeout} ms: it is killed`);
    child.kill("SIGKILL");
  }

  #startWorker(slot: Slot<WorkerChild>): void {
    const started = Date.now();
    const [, script = "", ...args] = process.argv;
    const child: WorkerChild = new Child(
      {
        script,
        args,
        execArgv: process.execArgv,
        env: { ...process.env, [WORKER_ID_VARIABLE]: String(slot.id) },
      },
      {
        message: (message) => this.#workerSaid(slot, child, message),
        exit: (cause) => {
          // A worker that was killed could not.
          rmSync(this.#uploadsPath(slot.id), { recursive: true, force: true });
          this.#exited(slot, `worker ${slot.id}`, cause, started, () => this.#startWorker(slot));
        },
      },
    );
    slot.child = child;
  }

  #workerSaid(slot: Slot<WorkerChild>, child: WorkerChild, message: FromWorker): void {
    switch (message.type) {
      case "hello": {
        const ready = this.#reactors.filter((reactor) => reactor.ready);
        const sockets = ready.map(({ id }) => this.#socketPath(id));
        const port = this.#address?.port ?? 0;
        child.send({ type: "start", port, sockets, uploads: this.#uploadsPath(slot.id) });
        return;
      }
      case "ready":
        slot.ready = true;
        this.#checkStarted();
        return;
      case "failed":
        if (this.#state === "starting") this.#failed(message.reason);
        else if (this.#state === "running") this.#log(`worker ${slot.id}: ${message.reason}`);
        return;
      case "getStats":
        void this.stats().then((stats) => child.send({ type: "serverStats", call: message.call, stats }));
        return;
      case "shutdownServer":
        this.onShutdownAsked();
        return;
    }
  }

  #checkStarted(): void {
    if (this.#state !== "starting" || this.#address === null) return;
    if ([...this.#reactors, ...this.#workers].every(({ ready }) => ready))
      this.#started.resolve(this.#address);
  }

  #failed(reason: string): void {
    this.#started.reject(new StartError(reason));
  }

  #exited(slot: Slot<unknown>, name: string, cause: string, started: number, again: () => void): void {
    const wasReady = slot.ready;
    slot.child = null;
    slot.ready = false;
    if (this.#state === "stopping") return;
    if (this.#state === "starting") {
      this.#failed(`${name} ended (${cause}) before the server was ready`);
      return;
    }
    slot.restarts++;
    const delay = slot.policy.delayAfter(Date.now() - started, wasReady);
    this.#log(`${name} ended (${cause}); a new one starts ${delay === 0 ? "at once" : `in ${delay} ms`}`);
    const timer = setTimeout(() => {
      this.#restarts.delete(timer);
      again();
    }, delay);
    this.#restarts.add(timer);
  }

  #socketPath(reactorId: number): string {
    return join(this.#runDirectory, `reactor-${reactorId}.sock`);
  }

  /** Where a worker keeps the files that it receives. */
  #uploadsPath(workerId: number): string {
    const directory = this.#config.options.upload.directory ?? this.#runDirectory;
    return join(directory, `${basename(this.#runDirectory)}-uploads-${workerId}`);
  }

  #checkSocketPath(): void {
    const path = this.#socketPath(this.#config.options.reactors);
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
      throw new StartError(
        `the unix socket ${path} has a longer path than ${MAX_SOCKET_PATH_BYTES} bytes: set TMPDIR`,
      );
    }
  }

  /** Reactors that share a port would share it with a stranger too: whether it is free is asked without SO_REUSEPORT. */
  async #checkPortIsFree(): Promise<void> {
    const { host, port, options, certificate } = this.#config;
    if (port === 0 || options.reactors === 1) return;
    try {
      await bindTcp(host, port);
      if (certificate !== null && options.http3 !== "off") await bindUdp(host, port);
    } catch (error) {
      if ((error as { code?: string }).code !== "EADDRINUSE") return;
      throw new StartError(`port ${port} on ${host} is in use`, { cause: error });
    }
  }
}

function askStats(call: number) {
  return { type: "stats", call } as const;
}

async function workerStats(slot: Slot<WorkerChild>): Promise<WorkerStats | null> {
  const { id, child, ready, restarts } = slot;
  if (child === null) return null;
  const counts = ready ? await child.stats(askStats, STATS_TIMEOUT) : null;
  if (!child.alive) return null;
  const state = ready ? (counts === null ? "silent" : "ready") : "starting";
  return { id, pid: child.pid, state, restarts, ...(counts ?? { rss: 0, inFlight: 0, requests: 0 }) };
}

interface Leaving<To> {
  readonly exited: Promise<void>;
  send(message: To): void;
  kill(signal: "SIGKILL"): void;
}

function slots<AnyChild>(count: number): Slot<AnyChild>[] {
  return Array.from({ length: count }, (_, index) => ({
    id: index + 1,
    policy: new RestartPolicy(),
    child: null,
    ready: false,
    restarts: 0,
  }));
}

async function leave<To>(
  places: readonly { readonly child: Leaving<To> | null }[],
  message: To,
  timeout: number,
): Promise<void> {
  const children = places.flatMap(({ child }) => child ?? []);
  for (const child of children) child.send(message);
  const timer = setTimeout(() => {
    for (const child of children) child.kill("SIGKILL");
  }, timeout);
  await Promise.all(children.map((child) => child.exited));
  clearTimeout(timer);
}
