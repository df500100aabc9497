/** The `priority` field, RFC 9218 §4. */
import { describe, expect, test } from "bun:test";
import { formatPriority, parsePriority } from "../../src/http/priority.ts";

describe("priority", () => {
  const values: [value: string, meant: unknown][] = [
    ["u=5, i", { urgency: 5, incremental: true }],
    ["i,u=0", { urgency: 0, incremental: true }],
    ["i=?0", { incremental: false }],
    ["i=?1;a=b, u=7;c", { urgency: 7, incremental: true }],
    ["u=1, u=2", { urgency: 2 }],
    ["", null],
    ["x=1", null],
    ["u=8", null],
    ["u=-1", null],
    ["u=1.5", null],
    ["u", null],
    ["u=8, i", { incremental: true }],
    ["i=1", null],
    ["====", null],
  ];
  for (const [value, meant] of values) {
    test(`${JSON.stringify(value)} is read as RFC 9218 §4 has it`, () =>
      expect(parsePriority(value)).toEqual(meant as never));
  }

  test("is written as it is read", () => {
    expect(formatPriority({ urgency: 0, incremental: true })).toBe("u=0, i");
    expect(formatPriority({ incremental: false })).toBe("i=?0");
    expect(formatPriority({})).toBe("");
    for (const urgency of [-1, 8, 1.5, Number.NaN]) {
      expect(() => formatPriority({ urgency })).toThrow(
        `priority: the urgency is ${urgency}, not a whole number`,
      );
    }
    expect(() => formatPriority({ urgent: 1 } as never)).toThrow(
      'priority: there is no option "urgent"; there are urgency, incremental',
    );
  });
});
