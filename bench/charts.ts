/** Charts as SVG, drawn by ECharts without a browser. They say nothing of what they show: report.ts and scale-report.ts do. */
import { init } from "echarts";

const WIDTH = 860;
/** Pixels of a bar and its label, of what is between two rows, and of what is around all of them. */
const BAR = 19;
const BETWEEN = 10;
const AROUND = 110;
const LINE_HEIGHT = 380;
/** They are shown on pages that may be dark. */
const BASE = {
  backgroundColor: "#ffffff",
  animation: false,
  textStyle: { fontFamily: "sans-serif" },
  color: ["#2f6fdb", "#e07b39", "#3a9d5d", "#8a5cc2", "#777777"],
};

const GRID = { left: 40, right: 70, top: 70, bottom: 40, containLabel: true };

export interface BarChart {
  readonly title: string;
  /** What the figures are: `requests/s`. */
  readonly unit: string;
  readonly rows: readonly string[];
  /** One figure a row; null where there is none. */
  readonly series: readonly { readonly name: string; readonly values: readonly (number | null)[] }[];
}

export interface LineChart {
  readonly title: string;
  readonly unit: string;
  /** What grows. */
  readonly axis: string;
  readonly scale: "linear" | "log";
  readonly series: readonly {
    readonly name: string;
    readonly points: readonly (readonly [number, number])[];
  }[];
}

/** Lying bars: a group a row, the first on top. */
export function barChart({ title, unit, rows, series }: BarChart): string {
  return draw(AROUND + rows.length * (BAR * series.length + BETWEEN), {
    ...BASE,
    title: { text: title, subtext: unit, left: 16, top: 8 },
    legend: { right: 16, top: 12, itemGap: 28, show: series.length > 1 },
    grid: GRID,
    xAxis: { type: "value", axisLabel: { formatter: shown } },
    yAxis: { type: "category", data: [...rows], inverse: true, axisTick: { show: false } },
    series: series.map(({ name, values }) => ({
      name,
      type: "bar",
      barGap: "10%",
      data: [...values],
      label: {
        show: true,
        position: "right",
        formatter: ({ value }: { value: unknown }) => shown(Number(value)),
      },
    })),
  });
}

export function lineChart({ title, unit, axis, scale, series }: LineChart): string {
  return draw(LINE_HEIGHT, {
    ...BASE,
    title: { text: title, subtext: unit, left: 16, top: 8 },
    legend: { right: 16, top: 12 },
    grid: GRID,
    xAxis: {
      type: scale === "log" ? "log" : "value",
      logBase: 2,
      min: "dataMin",
      max: "dataMax",
      name: axis,
      nameLocation: "middle",
      nameGap: 26,
      axisLabel: { formatter: shown },
      splitLine: { show: false },
    },
    yAxis: { type: "value", min: 0, axisLabel: { formatter: shown } },
    series: series.map(({ name, points }) => ({
      name,
      type: "line",
      data: points.map((point) => [...point]),
      symbol: "circle",
      symbolSize: 6,
    })),
  });
}

function shown(value: number): string {
  const digits = value !== 0 && Math.abs(value) < 10 ? 2 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

function draw(height: number, option: Parameters<ReturnType<typeof init>["setOption"]>[0]): string {
  const chart = init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height });
  try {
    chart.setOption(option);
    // An element a line: then a change can be read.
    return `${chart.renderToSVGString().replaceAll("><", ">\n<")}\n`;
  } finally {
    chart.dispose();
  }
}
