/**
 * What /proc says of the processes a test has started: who descends from whom, who is still there, how much memory
 * each holds. A process is known by its id and its start time, so that an id used again is not taken for it.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface ProcessKey {
  readonly pid: number;
  /** Clock ticks after boot. */
  readonly startTime: string;
}

function read(path: string): string | null {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // The process ended between the listing and the reading: it is simply not there.
    return null;
  }
}

/** Null where there is no such process, or only its zombie. */
export function keyOf(pid: number): ProcessKey | null {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === null) return null;
  // The command name, in parentheses, may hold spaces and parentheses; the fields after it cannot.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state] = fields;
  const startTime = fields[19];
  if (startTime === undefined || state === "Z" || state === "X") return null;
  return { pid, startTime };
}

export function isAlive(key: ProcessKey): boolean {
  return keyOf(key.pid)?.startTime === key.startTime;
}

/** Children, children's children and so on; without `pid` itself. */
export function descendantsOf(pid: number): ProcessKey[] {
  const found: ProcessKey[] = [];
  const pending = [pid];
  for (let parent = pending.pop(); parent !== undefined; parent = pending.pop()) {
    for (const child of childrenOf(parent)) {
      const key = keyOf(child);
      if (key === null) continue;
      found.push(key);
      pending.push(child);
    }
  }
  return found;
}

function childrenOf(pid: number): number[] {
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch {
    // Ended meanwhile: its children, if any, have another parent now.
    return [];
  }
  return threads.flatMap((thread) =>
    (read(`/proc/${pid}/task/${thread}/children`) ?? "").split(" ").filter(Boolean).map(Number),
  );
}

/** Every live process whose environment has `marker`, also when its parent has gone. */
export function processesMarked(marker: string): ProcessKey[] {
  const found: ProcessKey[] = [];
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const pid = Number(entry);
    if (pid === process.pid || !read(`/proc/${pid}/environ`)?.includes(marker)) continue;
    const key = keyOf(pid);
    if (key !== null) found.push(key);
  }
  return found;
}

/** The environment that the process was started with. */
export function environmentOf(pid: number): string {
  return read(`/proc/${pid}/environ`) ?? "";
}

/** What the descriptors of a process are of; behind the path of a file that has no name any more is " (deleted)". */
export function openFilesOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return []; // It was closed meanwhile.
    }
  });
}

export function commandLine(pid: number): string {
  return (read(`/proc/${pid}/cmdline`) ?? "").replaceAll("\0", " ").trim();
}

/** Resident memory in bytes. @throws Error where the process has gone. */
export function residentBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/status`) ?? "");
  if (match === null) throw new Error(`process ${pid} has gone`);
  return Number(match[1]) * 1024;
}

/** Runs `work`. @returns the most bytes that the process held beyond what it did before */
export async function growthDuring(pid: number, work: () => Promise<void>): Promise<number> {
  const before = residentBytes(pid);
  let grown = 0;
  const watch = setInterval(() => {
    grown = Math.max(grown, residentBytes(pid) - before);
  }, 50);
  try {
    await work();
  } finally {
    clearInterval(watch);
  }
  return grown;
}
