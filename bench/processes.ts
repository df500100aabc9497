/** What the processes of a server take, by /proc of Linux. Where there is none, every answer is null. */
import { readFileSync } from "node:fs";
import { descendantsOf } from "../test/support/processes.ts";

/** Clock ticks a second, as /proc counts them: the same on every Linux. */
const TICKS = 100;

const KIB = 1024;

function read(path: string): string | null {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // Not Linux; or the process has ended since it was listed.
    return null;
  }
}

/** `roots`, and all that descend from them. */
function treeOf(roots: readonly number[]): number[] {
  return roots.flatMap((root) => [root, ...descendantsOf(root).map(({ pid }) => pid)]);
}

/** Seconds of processor time that the processes have taken, and all that descend from them. */
export function cpuSecondsOf(roots: readonly number[]): number | null {
  return sumOf(treeOf(roots), (pid) => {
    const stat = read(`/proc/${pid}/stat`);
    if (stat === null) return null;
    // The command name, in parentheses, may hold spaces and parentheses; the fields after it cannot.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
  });
}

/** Bytes of memory that they hold; of what several of them share, each has its part. */
export function memoryOf(roots: readonly number[]): number | null {
  return sumOf(treeOf(roots), (pid) => {
    const [, kib] = /^Pss:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/smaps_rollup`) ?? "") ?? [];
    return kib === undefined ? null : Number(kib) * KIB;
  });
}

function sumOf(pids: readonly number[], of: (pid: number) => number | null): number | null {
  const values = pids.map(of).filter((value) => value !== null);
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0);
}

/** Seconds of processor time that everything on this machine has taken, and that other machines have taken from it. */
export function machineCpuSeconds(): number | null {
  const [, ticks] = /^cpu +(.*)$/m.exec(read("/proc/stat") ?? "") ?? [];
  if (ticks === undefined) return null;
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = ticks.split(" ").map(Number);
  return (user + nice + system + irq + softirq + steal) / TICKS;
}
