/**
 * What systemd is told of a service of `Type=notify` or `notify-reload`: sd_notify(3), one datagram a message. Without
 * systemd there is nobody to tell.
 */
import { Libc } from "./libc.ts";

/** Milliseconds that systemd may be too busy to take a message. */
const SEND_TIMEOUT = 200;
/** Of WATCHDOG_USEC systemd wants a sign of life within; a late one costs the service its life. */
const BEATS_PER_WATCHDOG = 2;

/** Set by `bin/tercet.js` where it stays beside this process: its process id. */
const LAUNCHER_VARIABLE = "TERCET_LAUNCHER";

export class Systemd {
  /** The process that counts for systemd. */
  readonly #mainPid: number;
  readonly #socket: string;
  readonly #libc: Libc;
  readonly #log: (line: string) => void;
  readonly #watchdog: NodeJS.Timeout | null;

  /**
   * Null where systemd has not started this process, or wants to hear nothing. Takes its variables from the environment:
   * the processes that this one starts have nothing to tell.
   * @param isWell asked before each sign of life. @param watchdog milliseconds that systemd waits for one
   */
  static open(isWell: (watchdog: number) => boolean, log: (line: string) => void): Systemd | null {
    const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: watchdog, WATCHDOG_PID: watched } = process.env;
    const { [LAUNCHER_VARIABLE]: launcher } = process.env;
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", LAUNCHER_VARIABLE])
      delete process.env[name];
    if (socket === undefined) return null;
    const libc = Libc.open();
    if (libc === null) {
      log("systemd cannot be told anything: there is no C library that can be called");
      return null;
    }
    const isWatched = watchdog !== undefined && (watched === undefined || watched === String(process.pid));
    // The launcher hands on signals, and ends as this process does: of one that it has not started itself systemd does not
    // learn how it ended, and would not start the service again.
    const mainPid = launcher === String(process.ppid) ? process.ppid : process.pid;
    return new Systemd(mainPid, socket, isWatched ? Number(watchdog) / 1000 : 0, isWell, libc, log);
  }

  private constructor(
    mainPid: number,
    socket: string,
    watchdog: number,
    isWell: (watchdog: number) => boolean,
    libc: Libc,
    log: (line: string) => void,
  ) {
    this.#mainPid = mainPid;
    this.#socket = socket;
    this.#libc = libc;
    this.#log = log;
    const beat = () => {
      if (isWell(watchdog)) this.#tell("WATCHDOG=1");
    };
    this.#watchdog = watchdog > 0 ? setInterval(beat, watchdog / BEATS_PER_WATCHDOG) : null;
  }

  /** @param status a line for `systemctl status` */
  ready(status: string): void {
    // What systemd started may be a script, or npm, that knows nothing of signals.
    this.#tell("READY=1", `MAINPID=${this.#mainPid}`, `STATUS=${status}`);
  }

  reloading(): void {
    this.#tell("RELOADING=1", `MONOTONIC_USEC=${this.#libc.monotonicTime()}`, "STATUS=Reloading");
  }

  stopping(): void {
    this.#tell("STOPPING=1", "STATUS=Finishing what is in flight");
  }

  close(): void {
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
  }

  #tell(...lines: string[]): void {
    if (this.#libc.sendDatagram(this.#socket, lines.join("\n"), SEND_TIMEOUT)) return;
    this.#log(`systemd was not told ${lines[0]}: ${this.#socket} takes nothing`);
  }
}
