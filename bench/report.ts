/** The report: medians over the repetitions, ratios, targets, and a table of them that reads well as plain text. */
import { COMPARISONS, type Measurement, type Metric, type Target } from "./load.ts";
import type { ServerName } from "./servers.ts";
import { median } from "./statistics.ts";

/** Every measurement of one load, in the order taken. */
export type Samples = Readonly<Record<ServerName, readonly Measurement[]>>;

/** A generator this busy (in cores) was itself what limited the run. */
const BUSY = 0.95;

const SHOWN: Readonly<Record<Metric, { label: string; show: (value: number) => string }>> = {
  requestsPerSecond: { label: "requests/s", show: (value) => Math.round(value).toLocaleString("en") },
  megabytesPerSecond: { label: "MB/s", show: (value) => value.toFixed(0) },
  p50: { label: "p50, ms", show: (value) => value.toFixed(3) },
  p99: { label: "p99, ms", show: (value) => value.toFixed(3) },
};

const HEAD = [
  "load",
  "",
  "raw Bun.serve",
  "Tercet",
  "ratio",
  "each repetition",
  "fetch form",
  "ratio",
  "target",
  "",
];

function row(samples: Samples, metric: Metric, target: Target | null): string[] {
  const { label, show } = SHOWN[metric];
  const values = (name: ServerName) => samples[name].map((measurement) => measurement[metric]);
  const [raw, event, fetch] = [values("raw"), values("event"), values("fetch")];
  // Neighbours in time are compared: the machine's own speed drifts more than the ratio does.
  const ratios = event.map((value, index) => value / (raw[index] ?? Number.NaN));
  const fetchRatios = fetch.map((value, index) => value / (raw[index] ?? Number.NaN));
  const ratio = median(ratios);
  const each = ratios.map((value) => value.toFixed(2)).join(" ");
  const fetchCells = [show(median(fetch)), median(fetchRatios).toFixed(2)];
  const cells = [label, show(median(raw)), show(median(event)), ratio.toFixed(2), each, ...fetchCells];
  if (target?.metric !== metric) return [...cells, "", ""];
  return [...cells, `${target.bound} ${target.ratio}`, verdict(samples, ratio, target)];
}

/** With the generator at its limit on the raw server the ratio flatters Tercet: then a target is not shown to be met. */
function verdict(samples: Samples, ratio: number, target: Target): string {
  const cores = median(samples.raw.map((measurement) => measurement.generatorCores));
  const met = target.bound === "at least" ? ratio >= target.ratio : ratio <= target.ratio;
  if (cores < BUSY) return met ? "met" : "missed";
  return met ? "not shown: the generator was the limit" : "missed, with the generator at its limit";
}

/** `results` has the samples of each load by its name. */
export function table(results: ReadonlyMap<string, Samples>): string {
  const rows = [HEAD];
  for (const { load, metrics, target } of COMPARISONS) {
    const samples = results.get(load.name);
    if (samples === undefined) continue;
    for (const [index, metric] of metrics.entries()) {
      rows.push([index === 0 ? load.name : "", ...row(samples, metric, target)]);
    }
  }
  const widths = HEAD.map((_, column) => Math.max(3, ...rows.map((cells) => cells[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => pad(cell, column, widths[column] ?? 0)).join(" | ")} |`;
  const rule = widths.map((width, column) =>
    isNumber(column) ? `${"-".repeat(width - 1)}:` : "-".repeat(width),
  );
  return [line(HEAD), line(rule), ...rows.slice(1).map(line)].join("\n");
}

function isNumber(column: number): boolean {
  return [2, 3, 4, 6, 7].includes(column);
}

function pad(cell: string, column: number, width: number): string {
  return isNumber(column) ? cell.padStart(width) : cell.padEnd(width);
}
