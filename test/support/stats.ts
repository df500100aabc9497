/** `server.stats()` as the tests read it: by a request for `/stats`, which is itself in flight while it is answered. */
import type { ExchangeSnapshot, Protocol, ProtocolCounts, ServerStats } from "../../src/index.ts";
import type { Client } from "./client.ts";
import { until } from "./poll.ts";

export type { ServerStats } from "../../src/index.ts";

export async function readStats(client: Client): Promise<ServerStats> {
  const response = await client.request({ path: "/stats" });
  const text = await response.body.text();
  if (response.status !== 200) throw new Error(`/stats was answered with ${response.status}: ${text}`);
  return JSON.parse(text);
}

/** Every exchange in flight but the ones that ask for `/stats`. */
export function othersInFlight(stats: ServerStats): ExchangeSnapshot[] {
  return stats.reactors.flatMap((reactor) =>
    reactor.exchanges.filter((exchange) => exchange.path !== "/stats"),
  );
}

/** Waits until `count` exchanges for which `matches` holds are in flight. */
export async function untilInFlight(
  client: Client,
  count: number,
  matches: (exchange: ExchangeSnapshot) => boolean = () => true,
): Promise<ExchangeSnapshot[]> {
  return until(`${count} exchanges in flight`, 10_000, async () => {
    const found = othersInFlight(await readStats(client)).filter(matches);
    if (found.length !== count) throw new Error(`in flight: ${JSON.stringify(found)}`);
    return found;
  });
}

/** Waits until nothing is in flight but the question itself, by every count there is. */
export async function untilIdle(client: Client, within = 10_000): Promise<ServerStats> {
  return until("nothing in flight", within, async () => {
    const stats = await readStats(client);
    const active = stats.reactors
      .flatMap((reactor) => Object.values(reactor.protocols))
      .reduce((sum, counts) => sum + counts.active, 0);
    const ofReactors = stats.reactors.reduce((sum, { inFlight }) => sum + inFlight, 0);
    const ofWorkers = stats.workers.reduce((sum, { inFlight }) => sum + inFlight, 0);
    const listed = stats.reactors.reduce((sum, { exchanges }) => sum + exchanges.length, 0);
    const counts = [stats.inFlight, active, ofReactors, ofWorkers, listed];
    if (counts.some((count) => count !== 1)) throw new Error(`in flight: ${JSON.stringify(stats)}`);
    return stats;
  });
}

/** All reactors' counts of one protocol, added up. */
export function countsOf(stats: ServerStats, protocol: Protocol): ProtocolCounts {
  const sum = { active: 0, completed: 0, aborted: 0, failed: 0, rejected: 0 };
  for (const reactor of stats.reactors) {
    const counts = reactor.protocols[protocol];
    if (counts === undefined) continue;
    for (const key of ["active", "completed", "aborted", "failed", "rejected"] as const) {
      sum[key] += counts[key];
    }
  }
  return sum;
}

/** Workers that were started in place of others. */
export function restartsOf({ workers }: ServerStats): number {
  return workers.reduce((sum, { restarts }) => sum + restarts, 0);
}

/** Waits until one more worker than before has been replaced, and all serve. */
export function untilRestarted(client: Client, before: ServerStats, within: number): Promise<ServerStats> {
  return until("a new worker", within, async () => {
    const stats = await readStats(client);
    const isWhole = stats.workers.every(({ state }) => state === "ready");
    return isWhole && restartsOf(stats) > restartsOf(before) && stats;
  });
}

/** Kills a worker that serves with SIGKILL, at random, each 100 ms. @returns how many were killed */
export async function killWorkers(client: Client, isOver: (killed: number) => boolean): Promise<number> {
  const killed = new Set<number>();
  for (; !isOver(killed.size); await Bun.sleep(100)) {
    const { workers } = await readStats(client);
    const serving = workers.filter(({ state, pid }) => state === "ready" && !killed.has(pid));
    const victim = serving[Math.floor(Math.random() * serving.length)]?.pid;
    if (victim === undefined) continue;
    process.kill(victim, "SIGKILL");
    killed.add(victim);
  }
  return killed.size;
}
