/**
 * `npm run chaos`: each scenario in turn, for minutes, and a table of what happened. The exit code is 1 where a promise was
 * broken, or a scenario could not be run.
 *
 *   npm run chaos -- durable-tasks …    these alone
 *   npm run chaos -- --list             what there is
 */
import { parseArgs } from "node:util";
import { durableTasks } from "./durable-tasks.ts";
import { overload } from "./overload.ts";
import type { Outcome, Scenario } from "./scenario.ts";
import { UNDER_LOAD } from "./under-load.ts";

const SCENARIOS: readonly Scenario[] = [...UNDER_LOAD, overload, durableTasks];

async function outcomeOf(scenario: Scenario): Promise<Outcome> {
  try {
    return await scenario.run((line) => console.error(`${scenario.name}: ${line}`));
  } catch (error) {
    console.error(error);
    return { measured: "", broken: [`it could not be run: ${(error as Error).message.split("\n")[0]}`] };
  }
}

function table(rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const [head = []] = rows;
  return [line(head), line(head.map(() => "---")), ...rows.slice(1).map(line)].join("\n");
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { list: { type: "boolean" } } });
const unknown = positionals.filter((name) => !SCENARIOS.some((scenario) => scenario.name === name));
if (unknown.length > 0) {
  console.error(
    `there is no scenario ${unknown.join(", ")}; there are ${SCENARIOS.map(({ name }) => name).join(", ")}`,
  );
  process.exit(1);
}
const picked = SCENARIOS.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
if (values.list) for (const { name, promise } of picked) console.log(`${name}: ${promise}`);
else {
  const rows = [["scenario", "promise", "measured", ""]];
  let isBroken = false;
  for (const scenario of picked) {
    const { measured, broken } = await outcomeOf(scenario);
    isBroken ||= broken.length > 0;
    const verdict = broken.length === 0 ? "kept" : `BROKEN: ${broken.join("; ")}`;
    rows.push([scenario.name, scenario.promise, measured, verdict]);
  }
  console.log(table(rows));
  process.exit(isBroken ? 1 : 0);
}
