/** The report of `npm run bench`: what was asked of the project, and what was measured, in Markdown and charts. */
import { barChart } from "./charts.ts";
import { PROTOCOLS, type Protocol } from "./load.ts";
import { DOWN, FILE, greetingName, IDLE, type Metric, QUIC_IDLE, SIZES, UP } from "./loads.ts";
import { table } from "./markdown.ts";
import type { Report } from "./render.ts";
import type { Results, Series } from "./results.ts";
import { SERVERS } from "./servers.ts";
import { median } from "./statistics.ts";
import { judge, TARGETS, wasLimit } from "./targets.ts";

const BODIES = [DOWN, UP, FILE];
const IDLES = [IDLE, QUIC_IDLE];

/** Whole figures with their thousands apart, small ones with three places. */
const SHOW: Readonly<Record<Metric, { unit: string; show: (value: number) => string }>> = {
  requestsPerSecond: { unit: "requests/s", show: (value) => Math.round(value).toLocaleString("en") },
  megabytesPerSecond: { unit: "MB/s", show: (value) => value.toFixed(0) },
  p50: { unit: "p50, ms", show: (value) => value.toFixed(3) },
  p99: { unit: "p99, ms", show: (value) => value.toFixed(3) },
  bytesPerConnection: { unit: "KiB a connection", show: (value) => (value / 1024).toFixed(1) },
};

export function reportOf(results: Results): Report {
  const files: Record<string, string> = {};
  const parts = ["## Targets", targetTable(results)];
  for (const protocol of PROTOCOLS) {
    const names = namesOf(protocol).filter((name) => seriesOf(results, name).length > 0);
    if (names.length === 0) continue;
    const file = `${protocol.toLowerCase().replaceAll(/[^a-z0-9]/g, "")}.svg`;
    files[file] = greetings(results, protocol);
    parts.push(`## Hello, world over ${protocol}`, `![requests/s over ${protocol}](${file})`);
    for (const name of names) parts.push(loadTable(results, name, ["requestsPerSecond", "p50", "p99"]));
  }
  const bodies = BODIES.filter((name) => seriesOf(results, name).length > 0);
  if (bodies.length > 0) {
    files["bodies.svg"] = bars(results, "Bodies over HTTP/3", bodies, "megabytesPerSecond");
    parts.push("## Bodies", "![MB/s of bodies](bodies.svg)");
    for (const name of bodies) parts.push(loadTable(results, name, ["megabytesPerSecond"]));
  }
  const known = new Set([...PROTOCOLS.flatMap(namesOf), ...BODIES, ...IDLES]);
  const others = new Set(
    results.series.map(({ comparison }) => comparison).filter((name) => !known.has(name)),
  );
  for (const name of others) parts.push(loadTable(results, name, ["requestsPerSecond", "p99"]));
  const idle = IDLES.filter((name) => seriesOf(results, name).length > 0);
  if (idle.length > 0) parts.push("## Idle connections");
  for (const name of idle) parts.push(loadTable(results, name, ["bytesPerConnection", "requestsPerSecond"]));
  return { title: "The benchmark", parts, files };
}

function namesOf(protocol: Protocol): string[] {
  return SIZES.map(([connections, streams]) => greetingName(protocol, connections, streams));
}

function seriesOf(results: Results, comparison: string): Series[] {
  return results.series.filter((series) => series.comparison === comparison);
}

export function figureOf({ runs, error }: Series, metric: Metric): number {
  return error === null ? median(runs.map((run) => run[metric] ?? Number.NaN)) : Number.NaN;
}

/** As it was called then; a server that was not there has today's name. */
function labelOf(results: Results, server: string): string {
  const today: Readonly<Record<string, { readonly label: string }>> = SERVERS;
  return results.servers.find(({ name }) => name === server)?.label ?? today[server]?.label ?? server;
}

function targetTable(results: Results): string {
  const rows = TARGETS.map((target) => {
    const { ratio, each, verdict } = judge(results, target);
    const pair = `${labelOf(results, target.of)} ÷ ${labelOf(results, target.to)}`;
    const measured = Number.isNaN(ratio) ? "" : ratio.toFixed(2);
    const single = each.map((value) => value.toFixed(2)).join(" ");
    const { unit } = SHOW[target.metric];
    return [target.comparison, unit, pair, `${target.bound} ${target.ratio}`, measured, single, verdict];
  });
  const head = ["load", "figure", "ratio of", "target", "measured", "each repetition", ""];
  return table(head, rows, [4]);
}

function loadTable(results: Results, name: string, metrics: readonly Metric[]): string {
  const head = [name, ...metrics.map((metric) => SHOW[metric].unit), "each repetition", ""];
  const rows = seriesOf(results, name).map((series) => {
    const label = labelOf(results, series.server);
    if (series.error !== null) return [label, ...metrics.map(() => ""), "", "an error: no figure"];
    const [first = "requestsPerSecond"] = metrics;
    const each = series.runs.map((run) => SHOW[first].show(run[first] ?? Number.NaN)).join(" · ");
    const cells = metrics.map((metric) => SHOW[metric].show(figureOf(series, metric)));
    const limited = first !== "bytesPerConnection" && wasLimit(series.runs);
    return [label, ...cells, each, limited ? "the generator was the limit" : ""];
  });
  return table(
    head,
    rows,
    metrics.map((_, index) => index + 1),
  );
}

/** 1 × 1 is a matter of latency, and has no place among rates. */
function greetings(results: Results, protocol: Protocol): string {
  const names = namesOf(protocol).slice(0, 2);
  return bars(results, `Hello, world over ${protocol}`, names, "requestsPerSecond");
}

function bars(results: Results, title: string, names: readonly string[], metric: Metric): string {
  const groups = names.map(
    (name) => new Map(seriesOf(results, name).map((series) => [series.server, series])),
  );
  const servers = results.servers.filter(({ name }) => groups.some((group) => group.has(name)));
  return barChart({
    title,
    unit: `${SHOW[metric].unit}, median of ${results.repetitions}`,
    rows: servers.map(({ label }) => label),
    series: names.map((name, index) => ({
      name,
      values: servers.map((server) => {
        const series = groups[index]?.get(server.name);
        const value = series === undefined ? Number.NaN : figureOf(series, metric);
        return Number.isNaN(value) ? null : value;
      }),
    })),
  });
}
