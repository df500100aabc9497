/** From a result to what is read of it: a page of Markdown and its charts, beside the JSON or in the documentation. */
import { join } from "node:path";
import { reportOf } from "./report.ts";
import { type Results, writeAll } from "./results.ts";
import { scaleReportOf } from "./scale-report.ts";

const DOCS = join(import.meta.dir, "../docs");
const PAGES = { bench: "benchmark.md", scale: "scaling.md" } as const;

export interface Report {
  readonly title: string;
  /** Of the page, in their order. A chart is there by the name of its file. */
  readonly parts: readonly string[];
  /** Charts, by the names of their files. */
  readonly files: Readonly<Record<string, string>>;
}

export interface Rendered {
  readonly markdown: string;
  readonly files: Readonly<Record<string, string>>;
}

/** @param place what stands before the names of charts */
export function render(results: Results, place = ""): Rendered {
  const { title, parts, files } = results.kind === "bench" ? reportOf(results) : scaleReportOf(results);
  const placed = parts.map((part) => part.replaceAll(/\]\(([\w-]+\.svg)\)/g, `](${place}$1)`));
  const page = [`# ${title}`, ...conditionsOf(results), ...placed, ...missingOf(results)];
  return { markdown: `${page.join("\n\n")}\n`, files };
}

/** Takes the place of what was published before. @returns the paths of what was written */
export async function publish(results: Results): Promise<string[]> {
  const { markdown, files } = render(results, "charts/");
  const pages = await writeAll(DOCS, { [PAGES[results.kind]]: markdown });
  return [...pages, ...(await writeAll(join(DOCS, "charts"), files))];
}

function conditionsOf(results: Results): string[] {
  const { kind, machine, versions, generators, project, date, took, repetitions, quick, ended } = results;
  const command = kind === "bench" ? "npm run bench" : "npm run bench:scale";
  const memory = `${Math.round(machine.memoryBytes / 2 ** 30)} GiB`;
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  const made = [...new Set(Object.values(generators))].join(", ");
  const notes = [
    ...(quick ? ["**One short repetition, for a quick look only: these are no measurements.**"] : []),
    ...(ended === null ? [] : [`**Not all was measured: ${ended}.**`]),
  ];
  return [
    `Written by \`${command}\`; do not edit.`,
    `${date.slice(0, 16).replace("T", " ")} UTC · ${machine.processor}, ${machine.cores} cores, ${memory} · ` +
      `${machine.kernel} · ${programs.join(" · ")} · load by ${made} · ` +
      `Tercet ${project.version}${project.commit === null ? "" : ` at ${project.commit}`} · ${took} s`,
    "Loads are connections × requests in flight on each. Figures are medians of " +
      `${repetitions} repetition${repetitions === 1 ? "" : "s"}, the servers loaded in turn; a ratio is the median of the ` +
      "ratios of neighbours in time. Every request behind a figure was answered 2xx, whole. Each server has one worker.",
    ...notes,
  ];
}

function missingOf({ missing, series }: Results): string[] {
  const errors = series.flatMap(({ comparison, server, x, error }) =>
    error === null
      ? []
      : [`- ${server}, ${comparison}${x === undefined ? "" : `, ${x}`}: ${firstLine(error)}`],
  );
  const absent = missing.map(({ what, how }) => `- ${what}: ${firstLine(how)}`);
  const lines = [...errors, ...absent];
  return lines.length === 0 ? [] : ["## What has no figures", lines.join("\n")];
}

function firstLine(text: string): string {
  return text.split("\n")[0] ?? "";
}
