/** Conditional requests as pure functions: RFC 9110 §13, and dates, §5.6.7. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { evaluate, formatHttpDate, parseHttpDate, rangeApplies } from "../../src/http/conditional.ts";

const DATE = "Sun, 06 Nov 1994 08:49:37 GMT";
const SECONDS = 784_111_777;
const EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT";
const LATER = "Sun, 06 Nov 1994 08:49:38 GMT";
const STRONG = { etag: '"a"', lastModified: SECONDS };
const WEAK = { etag: 'W/"a"', lastModified: SECONDS };
const NONE = { etag: null, lastModified: null };

describe("preconditions", () => {
  const cases: [string, string[], typeof STRONG | typeof NONE, string, string?][] = [
    ["none", [], STRONG, "perform"],
    ["If-Match with the tag", ["if-match", '"b", "a"'], STRONG, "perform"],
    ["If-Match without the tag", ["if-match", '"b"'], STRONG, "failed"],
    ["If-Match compares strongly: a weak tag never matches", ["if-match", 'W/"a"'], WEAK, "failed"],
    ["If-Match: *", ["if-match", "*"], NONE, "perform"],
    ["If-Match in several lines", ["if-match", '"b"', "if-match", '"a"'], STRONG, "perform"],
    ["If-Match that is no list of tags", ["if-match", "a"], STRONG, "failed"],
    ["If-Unmodified-Since the same second", ["if-unmodified-since", DATE], STRONG, "perform"],
    ["If-Unmodified-Since before the change", ["if-unmodified-since", EARLIER], STRONG, "failed"],
    [
      "If-Unmodified-Since beside If-Match is ignored",
      ["if-match", '"a"', "if-unmodified-since", EARLIER],
      STRONG,
      "perform",
    ],
    [
      "If-Unmodified-Since that is no date is ignored",
      ["if-unmodified-since", "yesterday"],
      STRONG,
      "perform",
    ],
    [
      "If-Unmodified-Since without a known time is ignored",
      ["if-unmodified-since", EARLIER],
      NONE,
      "perform",
    ],
    ["If-None-Match with the tag", ["if-none-match", '"b", "a"'], STRONG, "not modified"],
    ["If-None-Match compares weakly", ["if-none-match", 'W/"a"'], STRONG, "not modified"],
    ["If-None-Match: *", ["if-none-match", "*"], STRONG, "not modified"],
    ["If-None-Match without the tag", ["if-none-match", '"b"'], STRONG, "perform"],
    [
      "If-None-Match with a comma in the tag",
      ["if-none-match", '"a,b", "c"'],
      { ...STRONG, etag: '"c"' },
      "not modified",
    ],
    ["If-None-Match on a method that writes", ["if-none-match", '"a"'], STRONG, "failed", "PUT"],
    ["If-Modified-Since the same second", ["if-modified-since", DATE], STRONG, "not modified"],
    ["If-Modified-Since later", ["if-modified-since", LATER], STRONG, "not modified"],
    ["If-Modified-Since before the change", ["if-modified-since", EARLIER], STRONG, "perform"],
    [
      "If-Modified-Since beside If-None-Match is ignored",
      ["if-none-match", '"b"', "if-modified-since", DATE],
      STRONG,
      "perform",
    ],
    [
      "If-Modified-Since on a method that writes is ignored",
      ["if-modified-since", DATE],
      STRONG,
      "perform",
      "POST",
    ],
    [
      "If-Modified-Since in two lines is no date",
      ["if-modified-since", DATE, "if-modified-since", DATE],
      STRONG,
      "perform",
    ],
    [
      "a failed If-Match comes before If-None-Match",
      ["if-none-match", '"a"', "if-match", '"b"'],
      STRONG,
      "failed",
    ],
    [
      "a good If-Match leaves If-None-Match to decide",
      ["if-match", '"a"', "if-none-match", '"a"'],
      STRONG,
      "not modified",
    ],
  ];
  for (const [name, fields, validators, outcome, method = "GET"] of cases) {
    test(`${name}: ${outcome}`, () =>
      expect(evaluate(method, fields, validators)).toBe(outcome as "perform"));
  }

  test("no field makes it throw", () => {
    const names = fc.constantFrom("if-match", "if-none-match", "if-modified-since", "if-unmodified-since");
    const text = fc.string({ unit: "binary-ascii" });
    fc.assert(
      fc.property(names, text, (name, value) => {
        expect(["perform", "failed", "not modified"]).toContain(evaluate("GET", [name, value], STRONG));
      }),
    );
  });
});

describe("If-Range", () => {
  const now = SECONDS + 60;
  const cases: [string, string | null, boolean, typeof STRONG?][] = [
    ["absent", null, true],
    ["the tag", '"a"', true],
    ["another tag", '"b"', false],
    ["a weak tag", 'W/"a"', false, WEAK],
    ["the date", DATE, true],
    ["a later date: it is compared exactly", LATER, false],
    ["an earlier date", EARLIER, false],
    ["no validator at all", "soon", false],
  ];
  for (const [name, value, applies, validators = STRONG] of cases) {
    test(`${name}: ${applies}`, () => {
      expect(rangeApplies(value === null ? [] : ["if-range", value], validators, now)).toBe(applies);
    });
  }

  test("a date of this very second is a weak validator", () => {
    expect(rangeApplies(["if-range", DATE], STRONG, SECONDS)).toBe(false);
  });
});

describe("dates", () => {
  test("all three forms", () => {
    expect(parseHttpDate(DATE)).toBe(SECONDS);
    expect(parseHttpDate("Sunday, 06-Nov-94 08:49:37 GMT", SECONDS)).toBe(SECONDS);
    expect(parseHttpDate("Sun Nov  6 08:49:37 1994")).toBe(SECONDS);
  });

  test("a year of two digits over 50 years ahead is past", () => {
    const now = Date.UTC(2026, 0, 1) / 1000;
    expect(parseHttpDate("Sunday, 06-Nov-94 08:49:37 GMT", now)).toBe(SECONDS);
    expect(parseHttpDate("Friday, 06-Nov-76 08:49:37 GMT", now)).toBe(
      Date.UTC(2076, 10, 6, 8, 49, 37) / 1000,
    );
  });

  test("what is no date is null", () => {
    for (const text of [
      "",
      "0",
      "1994",
      "Sun, 31 Feb 1994 08:49:37 GMT",
      "Sun, 06 Nov 1994 24:00:00 GMT",
      "1994-11-06T08:49:37Z",
    ]) {
      expect(parseHttpDate(text)).toBeNull();
    }
  });

  test("what is formatted is read again", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4_102_444_800 }), (seconds) => {
        expect(parseHttpDate(formatHttpDate(seconds))).toBe(seconds);
      }),
    );
  });
});
