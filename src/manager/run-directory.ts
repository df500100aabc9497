/**
 * The folder by which a running server is found: its control socket, its process id, and the folder in which its processes
 * meet. It is one server's at a time. What a server has left behind that could not clean up is taken over by the next.
 */
import {
  chownSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  type Stats,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { remove } from "../removal.ts";
import { FileLock } from "./file-lock.ts";
import { Libc } from "./libc.ts";
import { PidFile, pidIn } from "./pid-file.ts";
import type { Identity } from "./privileges.ts";
import { StartError } from "./start-error.ts";

export interface RunDirectorySpec {
  /** Null for the default one of the port. */
  readonly path: string | null;
  readonly port: number;
  /** Another file for the process id; null for none. */
  readonly pidFile: string | null;
  /** Whose the folder of the processes is to be; null where they stay what the manager is. */
  readonly identity: Identity | null;
}

const FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const MODE = 0o700;
const CONTROL_SOCKET = "control.sock";
const PID_FILE = "tercet.pid";
const MEETING_PREFIX = "tercet-";
const OF_SOME_USER = /^tercet-\d+-(\d+)$/;
/** What a server may have left in its run directory. */
const REMAINS = /^(?:control\.sock|tercet\.pid|tercet-\w{6})$/;
/** Two servers may start and stop at one moment: how often what has just gone is made again. */
const ATTEMPTS = 5;
/** Why a folder may stay: it is not ours to remove, or somebody else has something in it. */
const STAYS = new Set(["ENOTEMPTY", "EACCES", "EPERM", "EBUSY", "EROFS", "ENOENT"]);

/** Where a server's control socket is. */
export function controlSocketIn(runDirectory: string): string {
  return join(runDirectory, CONTROL_SOCKET);
}

/** Where a server on this port may be found that was not told its run directory, the likeliest first. */
export function usualRunDirectories(port: number): string[] {
  const own = defaultRunDirectory(port) ?? [];
  return [...new Set([own, join(tmpdir(), nameOf(port)), join("/tmp", nameOf(port))].flat())];
}

/** This user's run directories in the usual places, whether or not there is a server. */
export function knownRunDirectories(): string[] {
  return usuallyNamed((name) => name.startsWith(nameOf("")));
}

/** What has the name of another user's run directory for this port. */
export function othersRunDirectories(port: number): string[] {
  const own = nameOf(port);
  return usuallyNamed((name) => name !== own && OF_SOME_USER.exec(name)?.[1] === String(port));
}

function usuallyNamed(isMeant: (name: string) => boolean): string[] {
  return [...new Set([tmpdir(), "/tmp"])].flatMap((folder) =>
    namesIn(folder)
      .filter(isMeant)
      .map((name) => join(folder, name)),
  );
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // It is not there, or not for this user to read.
    return [];
  }
}

/** Of a server that was not told another; null where it has a random name, as for port 0. */
export function defaultRunDirectory(port: number): string | null {
  // A unit of systemd may have several, separated by colons.
  const [ofUnit = ""] = (process.env.RUNTIME_DIRECTORY ?? "").split(":");
  if (ofUnit !== "") return resolve(ofUnit);
  return port === 0 ? null : join(tmpdir(), nameOf(port));
}

/** Not in `$XDG_RUNTIME_DIR`, which goes when its user logs out: a server may stay. */
function nameOf(port: number | ""): string {
  return `tercet-${process.geteuid?.() ?? 0}-${port}`;
}

export class RunDirectory {
  readonly path: string;
  /** Where the processes meet: reactors' sockets, what workers run, uploads. Theirs alone. */
  readonly meeting: string;
  /** What the processes are to remove where the manager can do it no more: nothing that may be another server's by then. */
  readonly remains: string;
  /** Systemd removes nothing old from folders that are locked (tmpfiles.d(5)). */
  readonly #locks: FileLock[];
  readonly #pidFile: PidFile | null;
  readonly #log: (line: string) => void;

  /** @throws StartError (as a rejection) where it cannot be this server's */
  static async take(spec: RunDirectorySpec, log: (line: string) => void): Promise<RunDirectory> {
    const libc = Libc.open();
    if (libc === null)
      log("there is no C library to lock the run directory with: a second server goes unnoticed");
    const given = spec.path ?? defaultRunDirectory(spec.port);
    const path = given ?? makeUnique(nameOf(""));
    const lock = takeLock(path, libc);
    if (lock === null) {
      const pid = await pidIn(join(path, PID_FILE));
      throw new StartError(
        `a server with the run directory ${path} is running, process ${pid}; another one needs another --run-dir`,
      );
    }
    const locks = [lock];
    let pidFile: PidFile | null = null;
    try {
      removeRemains(path, log);
      if (spec.pidFile !== null) pidFile = await PidFile.take(spec.pidFile, libc);
      writePid(join(path, PID_FILE));
      const { identity } = spec;
      // Another user cannot pass through a folder that is this user's alone.
      const meeting = makeUnique(MEETING_PREFIX, identity === null ? path : tmpdir());
      if (identity !== null) {
        chownSync(meeting, identity.uid, identity.gid);
        const ofMeeting = FileLock.take(meeting, FLAGS, libc);
        if (ofMeeting !== null) locks.push(ofMeeting);
      }
      const remains = given === null && identity === null ? path : meeting;
      return new RunDirectory(path, meeting, remains, locks, pidFile, log);
    } catch (error) {
      pidFile?.release(log);
      removeRemains(path, log);
      removeEmpty(path, log);
      lock[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(
    path: string,
    meeting: string,
    remains: string,
    locks: FileLock[],
    pidFile: PidFile | null,
    log: (line: string) => void,
  ) {
    this.path = path;
    this.meeting = meeting;
    this.remains = remains;
    this.#locks = locks;
    this.#pidFile = pidFile;
    this.#log = log;
  }

  /** Removes all that the server has made in it, and it. */
  release(): void {
    remove(this.meeting, this.#log);
    this.#pidFile?.release(this.#log);
    // Somebody may have removed it, and another server have made its own.
    if (this.#locks[0]?.holds(this.path)) {
      removeRemains(this.path, this.#log);
      removeEmpty(this.path, this.#log);
    }
    for (const lock of this.#locks.splice(0)) lock[Symbol.dispose]();
  }
}

function writePid(path: string): void {
  try {
    writeFileSync(path, `${process.pid}\n`);
  } catch (error) {
    throw new StartError(`the file ${path} cannot be written: ${(error as Error).message}`, { cause: error });
  }
}

function makeUnique(prefix: string, parent = tmpdir()): string {
  try {
    return mkdtempSync(join(parent, prefix));
  } catch (error) {
    throw new StartError(`no run directory can be made in ${parent}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** @returns null where a living server has it */
function takeLock(path: string, libc: Libc | null): FileLock | null {
  for (let attempt = 1; ; attempt++) {
    make(path);
    try {
      return FileLock.take(path, FLAGS, libc);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" && attempt < ATTEMPTS) continue;
      throw new StartError(`the run directory ${path} cannot be used: ${message}`, { cause: error });
    }
  }
}

/** Makes it, or sees to it that what is there is this user's alone: in a folder that all can write, others may be first. */
function make(path: string): void {
  try {
    mkdirSync(path, { mode: MODE });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT")
      throw new StartError(`the run directory ${path} cannot be made: its parent is not there`);
    if (code !== "EEXIST")
      throw new StartError(`the run directory ${path} cannot be made: ${message}`, { cause: error });
  }
  const fault = runDirectoryFault(path);
  if (fault !== null) throw new StartError(`the run directory ${path} ${fault}`);
}

/** Why what is there cannot be a run directory of this user's, behind its path; null where it can, or nothing is there. */
export function runDirectoryFault(path: string): string | null {
  let stats: Stats | undefined;
  try {
    stats = lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    return `cannot be looked at (${(error as NodeJS.ErrnoException).code})`;
  }
  if (stats === undefined) return null;
  if (stats.isSymbolicLink()) return "is a symbolic link: name the folder itself";
  if (!stats.isDirectory()) return "is no folder";
  const user = process.geteuid?.() ?? stats.uid;
  if (stats.uid !== user)
    return `belongs to user ${stats.uid}, and this is user ${user}: choose another (--run-dir)`;
  const mode = stats.mode & 0o777;
  if (mode === MODE) return null;
  const fault = `has the mode 0${mode.toString(8)}, and it must be its user's alone`;
  // Such as /tmp or /run: closed, it would be missed by all who have something in it.
  if (namesIn(path).some((name) => !REMAINS.test(name)))
    return `${fault}, and there are other files in it: name a new folder in it, ${join(path, "tercet")}`;
  return `${fault}: chmod 700 ${path} (in a unit of systemd: RuntimeDirectoryMode=0700)`;
}

function removeRemains(path: string, log: (line: string) => void): void {
  try {
    // Whoever clears the temporary folder may have been here.
    if (!existsSync(path)) return;
    for (const name of readdirSync(path)) {
      if (REMAINS.test(name)) remove(join(path, name), log);
    }
  } catch (error) {
    // Its disk fails, or it is no folder any more: that is no reason for another end.
    log(`${path} is not cleared: ${(error as Error).message}`);
  }
}

function removeEmpty(path: string, log: (line: string) => void): void {
  try {
    rmdirSync(path);
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    if (!STAYS.has(code)) log(`${path} is not removed: ${message}`);
  }
}
