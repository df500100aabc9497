/** What the project asks of itself: ratios between neighbours in time, and whether they were reached. */
import { DOWN, FILE, greetingName, IDLE, type Metric, UP } from "./loads.ts";
import type { Results, Run } from "./results.ts";
import type { ServerName } from "./servers.ts";
import { median } from "./statistics.ts";

export interface Target {
  readonly comparison: string;
  readonly metric: Metric;
  readonly of: ServerName;
  /** What it is compared with. */
  readonly to: ServerName;
  readonly bound: "at least" | "at most";
  readonly ratio: number;
}

const least = (
  comparison: string,
  metric: Metric,
  of: ServerName,
  to: ServerName,
  ratio: number,
): Target => ({
  comparison,
  metric,
  of,
  to,
  bound: "at least",
  ratio,
});
const most = (...target: Parameters<typeof least>): Target => ({ ...least(...target), bound: "at most" });

const [SMALL, LARGE, ONE] = [
  greetingName("HTTP/3", 10, 10),
  greetingName("HTTP/3", 50, 20),
  greetingName("HTTP/3", 1, 1),
];
const RATE = "requestsPerSecond";

export const TARGETS: readonly Target[] = [
  least(SMALL, RATE, "process", "raw", 0.55),
  least(LARGE, RATE, "process", "raw", 0.75),
  ...[SMALL, LARGE].flatMap((load) => [
    least(load, RATE, "base", "raw", 0.85),
    least(load, RATE, "process", "nginx-node", 3),
    least(load, RATE, "process", "caddy-node", 8),
    least(load, RATE, "process", "caddy", 1.7),
    least(load, RATE, "quic", "node-quic", 0.4),
  ]),
  ...(["HTTP/2", "HTTP/1.1"] as const).flatMap((protocol) =>
    (
      [
        [10, 10],
        [50, 20],
      ] as const
    ).flatMap(([connections, streams]) => {
      const load = greetingName(protocol, connections, streams);
      return [least(load, RATE, "process", "node-http2", 0.6), least(load, RATE, "base", "node-http2", 0.8)];
    }),
  ),
  least(DOWN, "megabytesPerSecond", "process", "raw", 0.6),
  least(UP, "megabytesPerSecond", "process", "raw", 0.6),
  least(FILE, "megabytesPerSecond", "process", "raw", 0.9),
  most(ONE, "p50", "process", "raw", 2),
  most(ONE, "p99", "process", "raw", 3),
  most(IDLE, "bytesPerConnection", "process", "raw", 1.2),
];

/** A generator this busy (in cores) was itself what limited the run. */
const BUSY = 0.95;

export interface Verdict {
  /** The median; NaN where it was not measured. */
  readonly ratio: number;
  readonly each: readonly number[];
  readonly verdict: string;
}

/** What a run of one server is to the run of another next to it: the machine's own speed drifts more than that does. */
function ratiosOf(of: readonly Run[], to: readonly Run[], metric: Metric): number[] {
  return of.map((run, index) => (run[metric] ?? Number.NaN) / (to[index]?.[metric] ?? Number.NaN));
}

export function judge(results: Results, target: Target): Verdict {
  const { comparison, metric, of, to, bound } = target;
  const find = (server: ServerName) =>
    results.series.find((series) => series.comparison === comparison && series.server === server);
  const [mine, other] = [find(of), find(to)];
  if (mine === undefined || other === undefined) return unknown("not measured");
  if (mine.error !== null || other.error !== null) return unknown("not shown: errors");
  const each = ratiosOf(mine.runs, other.runs, metric);
  const ratio = median(each);
  if (Number.isNaN(ratio)) return unknown("not measured");
  const met = bound === "at least" ? ratio >= target.ratio : ratio <= target.ratio;
  if (metric === "bytesPerConnection" || !wasLimit(other.runs))
    return { ratio, each, verdict: met ? "met" : "missed" };
  // With the generator at its limit on the other server the ratio flatters ours: then nothing is shown to be met.
  const verdict = met ? "not shown: the generator was the limit" : "missed, with the generator at its limit";
  return { ratio, each, verdict };
}

/** The generator, and not the server, was what limited the runs. */
export function wasLimit(runs: readonly Run[]): boolean {
  return median(runs.map(({ generatorCores }) => generatorCores ?? 0)) >= BUSY;
}

function unknown(verdict: string): Verdict {
  return { ratio: Number.NaN, each: [], verdict };
}
