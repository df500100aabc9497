/** Starts reactors and workers, renews and replaces them, and brings them all down. Carries no traffic. */
import { basename, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { now } from "../clock.ts";
import type { Parts } from "../clone/parts.ts";
import type { Protocol } from "../exchange.ts";
import { engineHeaderBytes } from "../listeners/listener.ts";
import type { ListenConfig } from "../listeners/open.ts";
import { MAX_DELAY } from "../option-checks.ts";
import type { ResolvedOptions, ResolvedTasks } from "../options.ts";
import { stuckAfter } from "../reactor/stuck.ts";
import { remove } from "../removal.ts";
import type { ServerAccess } from "../server-access.ts";
import type { TableOperation } from "../sharing/operation.ts";
import type { TaskClient } from "../tasks/client.ts";
import { progressPath } from "../wire/progress.ts";
import { CertificateError } from "./certificate.ts";
import { CertificateRenewal } from "./certificate-renewal.ts";
import { Child, type ChildSpec, type ReactorChild, type WorkerChild } from "./child.ts";
import { baseConfig, listenConfig, type ManagerConfig, reactorConfig } from "./configs.ts";
import { Heartbeat } from "./heartbeat.ts";
import { MemoryLimit } from "./memory-limit.ts";
import {
  type FromReactor,
  type FromTaskWorker,
  type FromWorker,
  type MessageSender,
  type ReactorCounts,
  type ServerStats,
  TASK_WORKER_ID_VARIABLE,
  WORKER_ID_VARIABLE,
  type WorkerCounts,
} from "./messages.ts";
import { type ChildTold, MemberError, Pool, type PoolSpec } from "./pool.ts";
import { environmentOf, IDENTITY_VARIABLE } from "./privileges.ts";
import { ReloadError } from "./reload-error.ts";
import { Scaler } from "./scaler.ts";
import { briefly, listenerStats, reactorStats, STATS_TIMEOUT, workerStats } from "./server-stats.ts";
import { floodOf, type Participant, Sharing } from "./sharing.ts";
import { checkPortIsFree, checkRuntime, checkSocketPath } from "./start-checks.ts";
import { SHUT_DOWN, StartError } from "./start-error.ts";
import { type TaskWorkerChild, TaskWorkers } from "./task-workers.ts";
import { Totals } from "./totals.ts";
import { WorkingDirectory } from "./working-directory.ts";

export interface Address {
  readonly port: number;
  readonly protocols: readonly Protocol[];
}

const REACTOR_SCRIPT = fileURLToPath(new URL("../reactor/main.ts", import.meta.url));
/** Milliseconds for which it is kept what a worker did that has ended. */
const PROGRESS_KEPT = 5000;
/** What a worker loads before anything else where it has to become another user. */
const BECOME_SCRIPT = fileURLToPath(new URL("./become.ts", import.meta.url));
/** By so much of `maxRequests` workers differ, so that they are not all replaced at a time. */
const MAX_REQUESTS_JITTER = 0.1;

/**
 * Milliseconds for which a reactor's allocator keeps what is free before it returns it to the system: with its own
 * default, 10, it returns under load what the next request asks back, at 3 % of the reactor's time.
 */
const PURGE_DELAY = "1000";
/** Milliseconds: nothing that a reactor does takes so long, but a function of `dispatch` that never returns. */
const REACTOR_STUCK_AFTER = 10_000;
/** What becomes of those who ask while no process listens. */
const NOBODY_ANSWERED = "nobody is answered";
/** The runtime's flag for a debugger, and where it listens. */
const INSPECT = /^(--inspect(?:-wait|-brk)?)(?:=(.*))?$/;
/** In the latter: a port, or behind a host, and perhaps before a path. */
const INSPECT_PORT = /(?<=^|:)\d+(?=\/|$)/;
const SHUTTING_DOWN = "the server is shutting down";
const LISTENS_ALONE = 'in the mode "base" the HTTP/3 engine "quic" cannot share its port with new code';

export class Manager implements ServerAccess {
  readonly #config: ManagerConfig;
  readonly #log: (line: string) => void;
  readonly #reactors: Pool<ReactorChild>;
  readonly #workers: Pool<WorkerChild>;
  readonly #taskWorkers: TaskWorkers | null;
  readonly #sharing = new Sharing(() =>
    [this.#workers.members, this.#taskWorkers?.members ?? []].flat().map(({ child }) => child),
  );
  readonly #certificates: CertificateRenewal;
  readonly #scaler: Scaler;
  readonly #totals = new Totals();
  readonly #workingDirectory = new WorkingDirectory();
  readonly #reactorPulse: Heartbeat<ReactorChild, ReactorCounts>;
  readonly #workerPulse: Heartbeat<WorkerChild, WorkerCounts>;
  /** When each worker was last seen to have a request, milliseconds since the Unix epoch. */
  readonly #lastBusy = new WeakMap<WorkerChild, { requests: number; at: number }>();
  /** In the mode `base`: resolves when the worker listens. */
  readonly #listening = new WeakMap<WorkerChild, PromiseWithResolvers<void>>();
  readonly #memoryLimit: MemoryLimit<WorkerChild>;
  #address: Address | null = null;
  #heardAt = 0;
  #failStart: (error: StartError) => void = () => {};
  #isRunning = false;
  #isStopping = false;
  #stopped: Promise<void> | null = null;
  #reload: Promise<void> | null = null;
  /** A reload that was asked for while another was under way. */
  #nextReload: Promise<void> | null = null;
  /** Told when a handler asks for the server's shutdown. */
  onShutdownAsked: () => void = () => {};
  /** Told when a reload begins, whoever asked for it. */
  onReloading: () => void = () => {};
  /** Workers of the mode `base` that are stuck, and of which the log says so. */
  readonly #toldStuck = new WeakSet<WorkerChild>();
  /** Workers that were killed, for they were stuck. */
  readonly #killed = new WeakSet<WorkerChild>();
  /** Told how it ended: with an error the old code still serves. */
  onReloaded: (error: Error | null) => void = () => {};

  constructor(config: ManagerConfig, log: (line: string) => void) {
    const { workers, workerIdleTimeout } = config.options;
    this.#config = config;
    this.#log = log;
    this.#certificates = new CertificateRenewal(config.options, config.certificates, log);
    this.#reactors = new Pool(this.#reactorSpec());
    this.#workers = new Pool(this.#workerSpec());
    this.#taskWorkers = config.tasks && this.#makeTaskWorkers(config.tasks);
    this.#memoryLimit = new MemoryLimit(config.options.maxMemory, "worker", log);
    this.#scaler = new Scaler(workers, workerIdleTimeout);
    this.#reactorPulse = new Heartbeat(
      () => this.#reactors.serving,
      (child) => child.ask(briefly, REACTOR_STUCK_AFTER),
      (child, counts) => this.#checkReactor(child, counts),
    );
    this.#workerPulse = new Heartbeat(
      () => this.#workers.serving,
      (child) => child.ask(briefly, this.#stuckAfter),
      (child, counts) => this.#checkWorker(child, counts),
    );
  }

  /**
   * Resolves when every reactor listens and every worker is ready.
   * @throws StartError (as a rejection); nothing is left running then
   */
  async start(): Promise<Address> {
    const { options } = this.#config;
    const failed = new Promise<never>((_, reject) => {
      this.#failStart = reject;
    });
    // It may be told of before anybody waits for it.
    failed.catch(() => {});
    // The first finds the port that the others share.
    const started = async () => {
      if (options.mode === "base") {
        await this.#workers.start(1);
        await Promise.all([this.#workers.start(this.#scaler.count - 1), this.#taskWorkers?.start()]);
        return;
      }
      await this.#reactors.start(1);
      await Promise.all([
        this.#reactors.start(options.reactors - 1),
        this.#workers.start(this.#scaler.count),
        this.#taskWorkers?.start(),
      ]);
    };
    try {
      checkRuntime(this.#config);
      checkSocketPath(this.#socketPath(options.reactors));
      await checkPortIsFree(this.#config);
      if (this.#isStopping) throw new StartError(SHUT_DOWN);
      await Promise.race([started(), failed]);
      this.#isRunning = true;
      return this.#address as Address;
    } catch (error) {
      await this.stop(0);
      if (error instanceof MemberError) throw new StartError(error.message);
      throw error;
    }
  }

  /** Where it listens; null until it does. */
  get address(): Address | null {
    return this.#address;
  }

  get state(): "starting" | "serving" | "reloading" | "stopping" {
    if (this.#isStopping) return "stopping";
    if (!this.#isRunning) return "starting";
    return this.#reload === null ? "serving" : "reloading";
  }

  /** Workers that serve. */
  get workerCount(): number {
    return this.#workers.serving.length;
  }

  /** When a process that listens, or did, last said so or how it is, milliseconds since the Unix epoch. */
  get heardAt(): number {
    return this.#heardAt;
  }

  /** @param detailed with every exchange in flight */
  async stats({ detailed } = { detailed: true }): Promise<ServerStats> {
    const reactors = this.#reactors.members.map((member) =>
      reactorStats(member, this.#reactorPulse.pulseOf(member.child), detailed),
    );
    const workers = this.#workers.members.map((member) =>
      workerStats(member, this.#workerPulse.pulseOf(member.child), detailed),
    );
    const told = (await Promise.all(workers)).filter((stats) => stats !== null);
    const present = [...(await Promise.all(reactors)), ...told.map(listenerStats)].filter(
      (stats) => stats !== null,
    );
    return {
      pid: process.pid,
      inFlight: present.reduce((sum, stats) => sum + stats.inFlight, 0),
      totals: this.#totals.sum(),
      reactors: present,
      workers: told.map(({ exchanges: _, ...stats }) => stats),
      taskWorkers: (await this.#taskWorkers?.stats()) ?? [],
    };
  }

  get tasks(): TaskClient | null {
    return this.#taskWorkers?.client ?? null;
  }

  broadcast(parts: Parts): void {
    this.#sharing.broadcast(parts, { role: "manager", id: 0, pid: process.pid });
  }

  operate(operation: TableOperation): Promise<unknown> {
    return this.#sharing.operate(operation);
  }

  /**
   * Has new workers, which load the code anew, take the place of those that serve; resolves when they have. What is asked for
   * while one is under way comes after it.
   * @throws ReloadError (as a rejection)
   */
  reload(): Promise<void> {
    if (this.#reload === null) {
      this.#reload = this.#renew().finally(() => {
        this.#reload = null;
      });
      return this.#reload;
    }
    this.#nextReload ??= this.#reload
      .catch(() => {})
      .then(() => {
        this.#nextReload = null;
        return this.reload();
      });
    return this.#nextReload;
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
    this.#reactors.kill();
    this.#workers.kill();
    this.#taskWorkers?.kill();
  }

  /** Has a worker of the mode `base` listen; resolves when it does. */
  #listen(child: WorkerChild): Promise<void> {
    const listening = Promise.withResolvers<void>();
    this.#listening.set(child, listening);
    child.send({ type: "listen", config: this.#listenConfig(true) });
    return listening.promise;
  }

  async #renew(): Promise<void> {
    const { reloadStrategy, reloadTimeout } = this.#config.options;
    try {
      this.#mustGoOn();
      if (!this.#isRunning) throw new ReloadError("the server has not started yet");
      if (listensAlone(this.#config)) throw new ReloadError(LISTENS_ALONE);
      this.onReloading();
      const certificates = this.#certificates.read();
      const together = reloadStrategy === "all-at-once";
      // First, so that what new code hands over new code runs.
      await this.#taskWorkers?.renew(together, reloadTimeout);
      this.#mustGoOn();
      await this.#certificates.spread(certificates, this.#reactors, () =>
        this.#workers.renew(together, reloadTimeout),
      );
      this.onReloaded(null);
    } catch (error) {
      const isExpected = error instanceof MemberError || error instanceof CertificateError;
      const reason = this.#isStopping ? SHUTTING_DOWN : (error as Error).message;
      const failure = isExpected ? new ReloadError(reason) : (error as Error);
      this.onReloaded(failure);
      throw failure;
    }
  }

  /** @throws ReloadError where the server does not */
  #mustGoOn(): void {
    if (this.#isStopping) throw new ReloadError(SHUTTING_DOWN);
  }

  async #stop(timeout: number): Promise<void> {
    this.#isStopping = true;
    this.#failStart(new StartError(SHUT_DOWN));
    this.#reactorPulse.stop();
    this.#workerPulse.stop();
    const deadline = performance.now() + timeout;
    await this.#reactors.stop(timeout);
    await this.#workers.stop(Math.max(0, deadline - performance.now()));
    await this.#taskWorkers?.stop(Math.max(0, deadline - performance.now()));
  }

  #reactorSpec(): PoolSpec<ReactorChild> {
    return {
      name: "reactor",
      outage: NOBODY_ANSWERED,
      start: (id, told) => this.#startReactor(id, told),
      awaited: () => "it does not listen yet",
      leave: (child, timeout) => child.send({ type: "shutdown", timeout }),
      switched: (used) => {
        for (const child of used) {
          child.send({ type: "employ", used: pidsOf(this.#workers.serving), retired: [] });
          // The others were told when it began.
          if (this.#workers.isOut) child.send({ type: "unserved" });
        }
      },
      ended: (child) => this.#totals.ended(child),
      unserved: () => {},
      log: this.#log,
    };
  }

  #startReactor(id: number, told: ChildTold): ReactorChild {
    const { options } = this.#config;
    const socketPath = this.#socketPath(id);
    remove(socketPath, this.#log);
    const child: ReactorChild = new Child(
      {
        script: REACTOR_SCRIPT,
        args: [],
        execArgv: listeningArgs(options),
        env: { MIMALLOC_PURGE_DELAY: PURGE_DELAY, ...process.env },
        cwd: this.#workingDirectory.another,
      },
      {
        message: (message) => this.#reactorSaid(id, message, told),
        stats: ({ protocols }) => this.#totals.heard(child, protocols),
        exit: told.exit,
      },
    );
    const listen = this.#listenConfig(options.reactors > 1);
    child.send({
      type: "start",
      config: reactorConfig(this.#config, { id, listen, socketPath, isRunning: this.#isRunning }),
    });
    return child;
  }

  #reactorSaid(id: number, message: FromReactor, told: ChildTold): void {
    switch (message.type) {
      case "ready":
        this.#address ??= { port: message.port, protocols: message.protocols };
        this.#heardAt = now();
        // Those that were told where the reactors are before there was this one.
        for (const { child, state } of this.#workers.members) {
          if (state !== "retiring") child.send({ type: "connect", socket: this.#socketPath(id) });
        }
        told.ready();
        return;
      case "failed":
        told.failed(message.reason);
        this.#failStart(new StartError(message.reason));
        return;
      case "stuck":
        this.#kill(message.pid, "has stopped answering");
        return;
      case "broken":
        this.#kill(message.pid, "has broken its channel");
        return;
      case "certificate":
        this.#certificates.answered(id, message.failure);
        return;
      case "waiting":
        this.#scaler.waits(message.wait, this.#workers.serving.length);
        this.#scale();
        return;
    }
  }

  #workerSpec(): PoolSpec<WorkerChild> {
    const isBase = this.#config.options.mode === "base";
    return {
      name: "worker",
      outage: isBase ? NOBODY_ANSWERED : "requests get 503",
      start: (id, told) => this.#startWorker(id, told),
      awaited: (child) => this.#awaited(child),
      leave: (child, timeout) => child.send({ type: "shutdown", timeout }),
      ...(isBase && { open: (child) => this.#listen(child) }),
      switched: (used, retired) => {
        if (isBase) for (const child of retired) child.send({ type: "retire" });
        for (const reactor of this.#reactors.serving) {
          reactor.send({ type: "employ", used: pidsOf(used), retired: pidsOf(retired) });
        }
      },
      ended: (child) => {
        this.#totals.ended(child);
        // What a worker that was killed could not take away itself.
        remove(this.#uploadsPath(child.pid), this.#log);
        // The reactors look at what it did last.
        const path = progressPath(this.#config.directory, child.pid);
        setTimeout(() => remove(path, this.#log), PROGRESS_KEPT).unref();
      },
      unserved: () => {
        for (const reactor of this.#reactors.serving) reactor.send({ type: "unserved" });
      },
      log: this.#log,
    };
  }

  #startWorker(id: number, told: ChildTold): WorkerChild {
    const { options } = this.#config;
    const listening = options.mode === "base" ? baseWorkerArgs(options) : [];
    const spec = this.#script({ [WORKER_ID_VARIABLE]: String(id) }, listening);
    const child: WorkerChild = new Child(spec, {
      message: (message) => this.#workerSaid(child, id, message, told),
      stats: ({ exchanges }) => {
        if (exchanges !== null) this.#totals.heard(child, exchanges.protocols);
      },
      exit: told.exit,
    });
    return child;
  }

  /** The user's script, as a process that finds in its environment what it is. */
  #script(role: NodeJS.ProcessEnv, execArgv: readonly string[] = []): ChildSpec {
    const { identity } = this.#config;
    const [, script = "", ...args] = process.argv;
    const become = identity && { ...environmentOf(identity), [IDENTITY_VARIABLE]: JSON.stringify(identity) };
    return {
      script,
      args,
      execArgv: [...(become === null ? [] : ["--import", BECOME_SCRIPT]), ...runtimeArgs(), ...execArgv],
      env: { ...process.env, ...become, ...role },
      cwd: this.#workingDirectory.another,
    };
  }

  /** What a worker or task worker has not done that is not ready. */
  #awaited(child: Participant): string {
    const { module } = this.#config;
    const [, script = ""] = process.argv;
    if (!this.#sharing.has(child)) {
      const { path } = this.#workingDirectory;
      return `${path === null ? script : relative(path, script)} has not come to server.start()`;
    }
    return module === null ? "a workerStart listener has not finished" : `${module} has not finished loading`;
  }

  #makeTaskWorkers(tasks: ResolvedTasks): TaskWorkers {
    return new TaskWorkers({
      options: this.#config.options,
      tasks,
      runDirectory: this.#config.directory,
      fork: (id, told, said) => {
        const child: TaskWorkerChild = new Child(this.#script({ [TASK_WORKER_ID_VARIABLE]: String(id) }), {
          message: (message) => said(child, message),
          exit: told.exit,
        });
        return child;
      },
      awaited: (child) => this.#awaited(child),
      port: () => this.#address?.port ?? 0,
      jittered,
      tellWorkers: (message) => {
        for (const { child } of this.#workers.members) child.send(message);
      },
      said: (child, id, message, told) => {
        this.#processSaid(child, { role: "taskWorker", id, pid: child.pid }, message, told);
      },
      log: this.#log,
    });
  }

  #workerSaid(child: WorkerChild, id: number, message: FromWorker, told: ChildTold): void {
    const { options } = this.#config;
    if (message.type === "hello") {
      child.send({
        type: "start",
        port: this.#address?.port ?? 0,
        sockets: this.#reactors.slots.flatMap((slot) => (slot.serving ? this.#socketPath(slot.id) : [])),
        runDirectory: this.#config.directory,
        uploads: this.#uploadsPath(child.pid),
        maxRequests: jittered(options.maxRequests),
        base: options.mode === "base" ? baseConfig(this.#config, this.#isRunning) : null,
      });
      this.#taskWorkers?.introduce(child);
    } else if (message.type === "spent") {
      this.#recycle(child, `it has answered ${options.maxRequests} requests`);
      return;
    } else if (message.type === "listening") {
      this.#address ??= { port: message.port, protocols: message.protocols };
      this.#heardAt = now();
      this.#listening.get(child)?.resolve();
      return;
    }
    this.#processSaid(child, { role: "worker", id, pid: child.pid }, message, told);
  }

  /** What workers and task workers say alike. */
  #processSaid(
    child: Participant,
    from: MessageSender,
    message: FromWorker | FromTaskWorker,
    told: ChildTold,
  ): void {
    switch (message.type) {
      case "hello":
        this.#sharing.join(child);
        return;
      case "ready":
        told.ready();
        return;
      case "failed":
        told.failed(message.reason);
        this.#failStart(new StartError(message.reason));
        return;
      case "ask":
        void this.#answer(child, message.call, message.what);
        return;
      case "shutdownServer":
        this.onShutdownAsked();
        return;
      case "broadcast":
      case "table":
        this.#sharing.heard(child, from, message);
        return;
    }
  }

  async #answer(child: Participant, call: number, what: "stats" | "reload"): Promise<void> {
    try {
      const value = await (what === "stats" ? this.stats() : this.reload());
      child.send({ type: "answer", call, value });
    } catch (error) {
      child.send({ type: "refusal", call, reason: (error as Error).message });
    }
  }

  /** Milliseconds after which a worker that says nothing is stuck. */
  get #stuckAfter(): number {
    const { mode, requestTimeout } = this.#config.options;
    if (mode === "base") return stuckAfter(requestTimeout);
    // Twice as long as a reactor waits, which knows the exchange at fault: it is to be the first to find it.
    return Math.min(MAX_DELAY, 2 * Math.max(requestTimeout, STATS_TIMEOUT));
  }

  /** The connections of one that is stuck are lost either way; another takes new ones. */
  #checkReactor(child: ReactorChild, counts: ReactorCounts | null): void {
    if (counts !== null) this.#heardAt = now();
    else if (child.alive && !this.#isStopping) {
      const id = this.#reactors.slotOf(child)?.id;
      const silent = `has not answered for ${REACTOR_STUCK_AFTER / 1000} s`;
      this.#log(`reactor ${id} (${child.pid}) ${silent}: it is killed, and its connections with it`);
      child.kill("SIGKILL");
    }
  }

  #checkWorker(child: WorkerChild, counts: WorkerCounts | null): void {
    const { requestTimeout } = this.#config.options;
    if (!child.alive || this.#isStopping) return;
    if (counts === null) {
      const reason = floodOf(child);
      if (reason !== null) this.#kill(child.pid, reason);
      else if (requestTimeout > 0) this.#kill(child.pid, "has stopped answering");
      else this.#tellStuck(child);
      return;
    }
    this.#toldStuck.delete(child);
    const at = now();
    if (this.#config.options.mode === "base") this.#heardAt = at;
    const slot = this.#workers.slotOf(child);
    const reason = slot && this.#memoryLimit.look(child, slot.id, counts.rss, at);
    if (reason) this.#recycle(child, reason);
    const before = this.#lastBusy.get(child);
    const isBusy = counts.inFlight > 0 || before === undefined || before.requests !== counts.requests;
    if (isBusy) this.#lastBusy.set(child, { requests: counts.requests, at });
    // A reload has a new one in its place under way, and would fail with that one's end.
    else if (this.#reload === null && child === this.#workers.slots.at(-1)?.serving?.child) {
      this.#scaler.idles(at - before.at);
      this.#scale();
    }
  }

  /** In the mode `process` the reactors tell, by the exchange's name. */
  #tellStuck(child: WorkerChild): void {
    if (this.#config.options.mode === "process" || this.#toldStuck.has(child)) return;
    this.#toldStuck.add(child);
    const slot = this.#workers.members.find((member) => member.child === child)?.slot;
    const advice = "its connections wait until it does; with requestTimeout it would be replaced";
    this.#log(
      `worker ${slot?.id} (${child.pid}) has not answered for ${this.#stuckAfter / 1000} s: ${advice}`,
    );
  }

  /** A worker that says nothing is stuck in a loop; one that says what nobody understands cannot be talked to. */
  #kill(pid: number, reason: string): void {
    const member = this.#workers.members.find(({ child }) => child.pid === pid);
    // Several reactors may find the same.
    if (member === undefined || this.#killed.has(member.child)) return;
    this.#killed.add(member.child);
    this.#log(`worker ${member.slot.id} (${pid}) ${reason}: it is killed`);
    member.child.kill("SIGKILL");
  }

  #recycle(child: WorkerChild, reason: string): void {
    if (this.#isStopping) return;
    void this.#workers.recycle(child, reason, this.#config.options.reloadTimeout);
  }

  #scale(): void {
    if (this.#scaler.count === this.#workers.slots.length) return;
    this.#log(`${this.#scaler.count} workers instead of ${this.#workers.slots.length}`);
    this.#workers.resize(this.#scaler.count, this.#config.options.reloadTimeout);
  }

  #listenConfig(reusePort: boolean): ListenConfig {
    const port = this.#address?.port ?? this.#config.port;
    return listenConfig(this.#config, { port, reusePort, tls: this.#certificates.current });
  }

  #socketPath(reactorId: number): string {
    return join(this.#config.directory, `reactor-${reactorId}.sock`);
  }

  /** Where a worker keeps the files that it receives. */
  #uploadsPath(workerPid: number): string {
    const directory = this.#config.options.upload.directory ?? this.#config.directory;
    return join(directory, `${basename(this.#config.directory)}-uploads-${workerPid}`);
  }
}

/** What this process was given for the runtime; but a debugger listens on a port of its own, which it prints. */
function runtimeArgs(): string[] {
  return process.execArgv.map((arg) =>
    arg.replace(INSPECT, (_, flag: string, where = "0") => `${flag}=${where.replace(INSPECT_PORT, "0")}`),
  );
}

/** Arguments of the runtime, for a process that listens. */
function listeningArgs({ maxHeaderBytes }: ResolvedOptions): string[] {
  return [`--max-http-header-size=${engineHeaderBytes(maxHeaderBytes)}`];
}

/** The same, for one that runs the user's code. */
function baseWorkerArgs(options: ResolvedOptions): string[] {
  // That an engine is experimental, whoever chose it knows.
  const quiet = options.quic === null ? [] : ["--disable-warning=ExperimentalWarning"];
  return [...listeningArgs(options), ...quiet];
}

/** No second process can listen beside one that does, so that none can take its place while it serves. */
function listensAlone({ options, certificates }: ManagerConfig): boolean {
  return options.mode === "base" && options.quic !== null && certificates !== null;
}

function pidsOf(children: readonly { readonly pid: number }[]): number[] {
  return children.map(({ pid }) => pid);
}

function jittered(maxRequests: number): number {
  return Math.ceil(maxRequests * (1 - Math.random() * MAX_REQUESTS_JITTER));
}
