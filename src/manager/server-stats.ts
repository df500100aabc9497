/** What reactors and workers say of themselves, when they are asked. */

import { now } from "../clock.ts";
import type { ReactorChild, WorkerChild } from "./child.ts";
import type { Pulse } from "./heartbeat.ts";
import { memberStats } from "./member-stats.ts";
import type { ReactorCounts, ReactorStats, WorkerCounts, WorkerStats } from "./messages.ts";
import type { Member } from "./pool.ts";

/** Milliseconds within which a process that is well says how it is. */
export const STATS_TIMEOUT = 1000;

const NO_COUNTS: WorkerCounts = { rss: 0, cpuTime: 0, inFlight: 0, requests: 0, exchanges: null };

type ToldStats = WorkerStats & Pick<WorkerCounts, "exchanges">;

/** Null where it has ended, or never said anything. */
export async function reactorStats(
  { slot, child, startedAt }: Member<ReactorChild>,
  pulse: Pulse<ReactorCounts> | undefined,
  detailed: boolean,
): Promise<ReactorStats | null> {
  const answer = await child.ask(detailed ? inDetail : briefly, STATS_TIMEOUT);
  const counts = answer ?? pulse?.vitals;
  if (!child.alive || counts === undefined) return null;
  const { cpuTime: _, ...own } = counts;
  return {
    id: slot.id,
    pid: child.pid,
    state: answer === null ? "silent" : "ready",
    uptime: Math.round(now() - startedAt),
    restarts: slot.restarts,
    cpu: pulse?.cpu ?? 0,
    ...own,
  };
}

/** Null where it has ended. */
export async function workerStats(
  member: Member<WorkerChild>,
  pulse: Pulse<WorkerCounts> | undefined,
  detailed: boolean,
): Promise<ToldStats | null> {
  const { child, state } = member;
  const ask = detailed ? inDetail : briefly;
  const answer = state === "starting" ? null : await child.ask(ask, STATS_TIMEOUT);
  return memberStats(member, answer, pulse, NO_COUNTS);
}

/** In the mode `base` a worker is its own reactor; null in the other. */
export function listenerStats({ exchanges, state, ...own }: ToldStats): ReactorStats | null {
  if (exchanges === null) return null;
  const { id, pid, uptime, restarts, rss, cpu } = own;
  return {
    id,
    pid,
    state: state === "silent" ? "silent" : "ready",
    uptime,
    restarts,
    rss,
    cpu,
    ...exchanges,
  };
}

/** A question for the counts and every exchange in flight. */
function inDetail(call: number) {
  return { type: "stats", call, detailed: true } as const;
}

/** A question for the counts. */
export function briefly(call: number) {
  return { type: "stats", call, detailed: false } as const;
}
