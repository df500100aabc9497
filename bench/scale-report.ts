/** The report of `npm run bench:scale`: how figures follow from what grows, in tables and lines. */
import { lineChart } from "./charts.ts";
import { table } from "./markdown.ts";
import type { Report } from "./render.ts";
import { figureOf } from "./report.ts";
import type { Results, Series } from "./results.ts";
import { SCALES, type ScaleShape } from "./scales.ts";

const UNITS = {
  requestsPerSecond: "requests/s",
  megabytesPerSecond: "MB/s",
  p50: "p50, ms",
  p99: "p99, ms",
  bytesPerConnection: "bytes a connection",
} as const;

export function scaleReportOf(results: Results): Report {
  const files: Record<string, string> = {};
  const parts: string[] = [];
  for (const scale of SCALES) {
    const series = results.series.filter(({ comparison }) => comparison === scale.name);
    if (series.length === 0) continue;
    parts.push(`## ${scale.name}`);
    for (const metric of scale.metrics) {
      const file = `scale-${scale.id}-${metric === "p99" ? "p99" : "rate"}.svg`;
      files[file] = lines(results, scale, series, metric);
      parts.push(`![${UNITS[metric]}: ${scale.name}](${file})`);
    }
    parts.push(tableOf(results, scale, series));
  }
  return { title: "Costs as work grows", parts, files };
}

function serversOf(results: Results, series: readonly Series[]) {
  return results.servers.filter(({ name }) => series.some(({ server }) => server === name));
}

function tableOf(results: Results, scale: ScaleShape, series: readonly Series[]): string {
  const servers = serversOf(results, series);
  const columns = servers.flatMap((server) => scale.metrics.map((metric) => ({ server, metric })));
  const head = [scale.axis, ...columns.map(({ server, metric }) => `${server.label}: ${UNITS[metric]}`)];
  const rows = [...new Set(series.map(({ x }) => x))].map((x) => [
    Number(x).toLocaleString("en"),
    ...columns.map(({ server, metric }) => {
      const found = series.find((one) => one.x === x && one.server === server.name);
      const value = found === undefined ? Number.NaN : figureOf(found, metric);
      if (Number.isNaN(value)) return "";
      return value.toLocaleString("en", { maximumFractionDigits: metric === "p99" ? 3 : 0 });
    }),
  ]);
  return table(
    head,
    rows,
    head.map((_, index) => index),
  );
}

function lines(
  results: Results,
  scale: ScaleShape,
  series: readonly Series[],
  metric: ScaleShape["metrics"][number],
) {
  return lineChart({
    title: scale.name,
    unit: UNITS[metric],
    axis: scale.axis,
    scale: scale.shape,
    series: serversOf(results, series).map(({ name, label }) => ({
      name: label,
      points: series
        .filter(({ server, error }) => server === name && error === null)
        .map((one) => [one.x ?? Number.NaN, figureOf(one, metric)] as const)
        // A logarithmic axis has no place for 0, which the table shows.
        .filter(([x, y]) => !Number.isNaN(x + y) && (x > 0 || scale.shape === "linear")),
    })),
  });
}
