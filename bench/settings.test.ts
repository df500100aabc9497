/** What the benchmark's arguments ask for, and that figures of different conditions are not put beside each other. */
import { describe, expect, test } from "bun:test";
import { BenchError } from "./load.ts";
import { table } from "./markdown.ts";
import { checkSame, type Results } from "./results.ts";
import { parseSettings } from "./settings.ts";

const RESULTS: Results = {
  format: "tercet-bench/1",
  kind: "bench",
  date: "2026-11-24T14:05:00.000Z",
  took: 1,
  ended: null,
  quick: true,
  repetitions: 1,
  project: { version: "0.1.0", commit: "0123456789ab" },
  machine: { processor: "one", cores: 2, memoryBytes: 1, kernel: "Linux" },
  versions: {},
  generators: {},
  options: {},
  servers: [],
  missing: [],
  series: [],
};

describe("the arguments", () => {
  test("--only finds comparisons by a part of their names, however it is written", () => {
    const { wants } = parseSettings(["--only", "http3,idle"]);
    expect(["HTTP/3 10 × 10", "HTTP/2 10 × 10", "Idle connections"].map(wants)).toEqual([true, false, true]);
  });

  for (const args of [["--servers", "apache"], ["--reactors", "0"], ["--fast"]]) {
    test(`${args.join(" ")} is refused`, () => expect(() => parseSettings(args)).toThrow(BenchError));
  }
});

test("an earlier result is gone on with at its own commit alone", () => {
  const now = RESULTS;
  expect(() => checkSame(now, RESULTS)).not.toThrow();
  const other = { ...RESULTS, project: { version: "0.1.0", commit: "ba9876543210" } };
  expect(() => checkSame(now, other)).toThrow("commit");
});

test("a table sets numbers to the right", () => {
  expect(table(["load", "n"], [["a", "10"]], [1])).toBe("| load |   n |\n| ---- | --: |\n| a    |  10 |");
});
