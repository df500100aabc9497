/** What is told of a process in a pool, whether it answers or not. */
import { now } from "../clock.ts";
import type { Vitals } from "../vitals.ts";
import type { Pulse } from "./heartbeat.ts";
import type { ProcessStats, WorkerStats } from "./messages.ts";
import type { Member, PoolChild } from "./pool.ts";

/**
 * Null where the process has ended.
 * @param answer what it said just now; null where it said nothing in time
 * @param nothing stands for what was never said
 */
export function memberStats<V extends Vitals>(
  { slot, child, state, startedAt }: Member<PoolChild>,
  answer: V | null,
  pulse: Pulse<V> | undefined,
  nothing: V,
): (ProcessStats & Omit<V, "cpuTime"> & Pick<WorkerStats, "state">) | null {
  if (!child.alive) return null;
  const { cpuTime: _, ...counts } = answer ?? pulse?.vitals ?? nothing;
  const shown = state === "serving" ? "ready" : state === "ready" ? "starting" : state;
  return {
    id: slot.id,
    pid: child.pid,
    state: answer === null && state !== "starting" ? "silent" : shown,
    uptime: Math.round(now() - startedAt),
    restarts: slot.restarts,
    cpu: pulse?.cpu ?? 0,
    ...counts,
  };
}
