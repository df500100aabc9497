/**
 * By what a running server is operated: its run directory and control socket, signals, and what systemd is told. How a
 * thing is done is the manager's and the server's; here is who may ask for it, and what they hear.
 */
import { now } from "../clock.ts";
import { describe, logUncaught } from "../log.ts";
import { VERSION } from "../version.ts";
import { OwnVitals, type Vitals } from "../vitals.ts";
import { ControlServer, type ServerStatus } from "./control.ts";
import { Heartbeat } from "./heartbeat.ts";
import type { Manager } from "./manager.ts";
import { controlSocketIn, type RunDirectory } from "./run-directory.ts";
import { onSignals } from "./signals.ts";
import { StartError } from "./start-error.ts";
import { Systemd } from "./systemd.ts";

export interface OperatedServer {
  readonly host: string;
  /** Resolves when it has shut down in good order. */
  shutdown(): Promise<void>;
}

/** Milliseconds after the last word of any reactor in which the server is still taken for well, at the least. */
const WELL_FOR = 3000;
/** Milliseconds that listeners of "shutdown" have at the least, where requests have taken all that there was. */
const LEAST_FOR_LISTENERS = 3000;

export class Operator {
  readonly #server: OperatedServer;
  readonly #manager: Manager;
  readonly #directory: RunDirectory;
  readonly #log: (line: string) => void;
  readonly #vitals: OwnVitals;
  readonly #pulse: Heartbeat<NodeJS.Process, Vitals>;
  readonly #systemd: Systemd | null;
  readonly #offSignals: () => void;
  readonly #release = () => this.#directory.release();
  #control: ControlServer | null = null;
  #offUncaught: (() => void) | null = null;
  #isReady = false;
  #isLeaving = false;
  /** Milliseconds that listeners of "shutdown" have; null as long as there are others to wait for. */
  #listenersTimeout: number | null = null;
  #isClosed = false;

  constructor(
    server: OperatedServer,
    manager: Manager,
    directory: RunDirectory,
    log: (line: string) => void,
  ) {
    this.#server = server;
    this.#manager = manager;
    this.#directory = directory;
    this.#log = log;
    this.#vitals = new OwnVitals(log);
    // Whatever ends this process but a kill takes the run directory with it.
    process.on("exit", this.#release);
    this.#pulse = new Heartbeat(
      () => [process],
      async () => this.#vitals.read(),
      () => {},
    );
    this.#systemd = Systemd.open((watchdog) => this.#isWell(watchdog), log);
    this.#offSignals = onSignals({
      leave: () => this.#leave(),
      leaveAtOnce: () => this.#leaveAtOnce(),
      // How it went is told by `reloaded`.
      reload: () => void manager.reload().catch(() => {}),
    });
    manager.onShutdownAsked = () => this.#leave();
    manager.onReloading = () => this.#systemd?.reloading();
    manager.onReloaded = (error) => this.#reloaded(error);
  }

  /** @throws StartError (as a rejection) */
  async open(): Promise<void> {
    const path = controlSocketIn(this.#directory.path);
    try {
      this.#control = await ControlServer.listen(path, {
        status: () => this.#status(),
        reload: () => this.#manager.reload(),
        stop: () => this.#leave(),
      });
    } catch (error) {
      throw new StartError(`the control socket ${path} cannot be opened: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /** Every reactor listens and every worker is ready. */
  ready(): void {
    this.#isReady = true;
    // With this process all the others would end, for an error of a timer perhaps.
    this.#offUncaught = logUncaught(this.#log);
    this.#systemd?.ready(this.#summary());
  }

  /** The server has begun to shut down. */
  stopping(): void {
    this.#systemd?.stopping();
  }

  /**
   * Every other process has left, and the server's listeners of "shutdown" are told.
   * @param timeout milliseconds that are left of `shutdownTimeout`
   */
  alone(timeout: number): void {
    this.#listenersTimeout = Math.max(Math.round(timeout), LEAST_FOR_LISTENERS);
    if (this.#isLeaving) this.#limitListeners(this.#listenersTimeout);
  }

  /** All is over. Those who asked for it learn it by the end of their connection. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#offSignals();
    this.#offUncaught?.();
    this.#pulse.stop();
    this.#systemd?.close();
    process.off("exit", this.#release);
    this.#release();
    this.#control?.close();
  }

  #leave(): void {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    // The script has called `shutdown` itself, which waits for as long as they take.
    if (this.#listenersTimeout !== null) this.#limitListeners(this.#listenersTimeout);
    this.#server.shutdown().then(
      () => process.exit(0),
      (error: unknown) => {
        this.#log(`error at shutdown: ${describe(error)}`);
        process.exit(1);
      },
    );
  }

  #leaveAtOnce(): void {
    this.#manager.kill();
    if (this.#listenersTimeout !== null) this.#giveUp("");
  }

  #limitListeners(timeout: number): void {
    setTimeout(() => this.#giveUp(` within ${timeout} ms`), timeout);
  }

  /** @param when the listener should have finished */
  #giveUp(when: string): void {
    this.#log(`given up at shutdown: a listener of "shutdown" has not finished${when}`);
    process.exit(1);
  }

  #reloaded(error: Error | null): void {
    const isServing = this.#isReady && this.#manager.state !== "stopping";
    const failed = isServing ? "reload failed, the old code still serves" : "no reload";
    const outcome = error === null ? "reloaded" : `${failed}: ${error.message}`;
    this.#log(outcome);
    if (!isServing) return;
    this.#systemd?.ready(error === null ? this.#summary() : outcome.replaceAll("\n", " "));
  }

  /** Its loop turns, or it would not be asked; and some reactor has said something lately. */
  #isWell(watchdog: number): boolean {
    if (!this.#isReady || this.#manager.state === "stopping") return true;
    return now() - this.#manager.heardAt < Math.max(watchdog, WELL_FOR);
  }

  #summary(): string {
    const { address, workerCount } = this.#manager;
    const protocols = address?.protocols.join(", ");
    return `Serving ${protocols} on port ${address?.port} with ${workerCount} ${workerCount === 1 ? "worker" : "workers"}`;
  }

  async #status(): Promise<ServerStatus> {
    const { address, state } = this.#manager;
    const { pid, reactors, ...stats } = await this.#manager.stats({ detailed: false });
    return {
      version: VERSION,
      state,
      host: this.#server.host,
      port: address?.port ?? 0,
      protocols: address?.protocols ?? [],
      runDirectory: this.#directory.path,
      manager: {
        pid,
        uptime: Math.round(process.uptime() * 1000),
        rss: this.#vitals.read().rss,
        cpu: this.#pulse.pulseOf(process)?.cpu ?? 0,
      },
      reactors: reactors.map(({ exchanges: _, ...reactor }) => reactor),
      ...stats,
    };
  }
}
