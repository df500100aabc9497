/** Range fields as a pure function: RFC 9110 §14. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { contentRange, MAX_RANGES, parseRanges, requestedRanges } from "../../src/http/ranges.ts";

const SIZE = 10_000;

describe("one range", () => {
  const cases: [string, number, number][] = [
    ["bytes=0-499", 0, 500],
    ["bytes=500-999", 500, 500],
    ["bytes=9500-", 9500, 500],
    ["bytes=-500", 9500, 500],
    ["bytes=0-0", 0, 1],
    ["bytes=-1", 9999, 1],
    ["bytes=0-99999999999999999999", 0, SIZE],
    ["bytes=-99999999999999999999", 0, SIZE],
    ["BYTES=0-1", 0, 2],
    ["bytes= 0-1 ,", 0, 2],
  ];
  for (const [value, offset, length] of cases) {
    test(value, () => expect(parseRanges(value, SIZE)).toEqual([{ offset, length }]));
  }
});

describe("what is refused", () => {
  const values = [
    "bytes=10000-",
    "bytes=99999999999999999999-",
    "bytes=-0",
    "bytes=5-4",
    "bytes=a-b",
    "bytes=0-1,x",
    "bytes=",
    "bytes=,",
    "bytes=--5",
    "bytes=1",
    "bytes",
    "",
    `bytes=${Array.from({ length: MAX_RANGES + 1 }, () => "0-0").join(",")}`,
  ];
  for (const value of values) {
    test(value.slice(0, 40), () => expect(parseRanges(value, SIZE)).toBe("not satisfiable"));
  }

  test("any range of nothing", () => expect(parseRanges("bytes=0-", 0)).toBe("not satisfiable"));
});

test("as many as there may be", () => {
  const value = `bytes=${Array.from({ length: MAX_RANGES }, () => "0-0").join(",")}`;
  expect(parseRanges(value, SIZE)).toEqual([{ offset: 0, length: 1 }]);
});

test("an unknown unit is ignored", () => expect(parseRanges("lines=1-5", SIZE)).toBeNull());
test("the suffix of nothing is all of it", () => expect(parseRanges("bytes=-5", 0)).toBeNull());

test("ranges that lie apart stay apart, in ascending order, without those behind the end", () => {
  expect(parseRanges("bytes=-100,0-9,5000-5009,10000-", SIZE)).toEqual([
    { offset: 0, length: 10 },
    { offset: 5000, length: 10 },
    { offset: 9900, length: 100 },
  ]);
});

test("ranges that overlap, touch, or nearly touch are one", () => {
  expect(parseRanges("bytes=0-99,50-149,150-199,210-219", SIZE)).toEqual([{ offset: 0, length: 220 }]);
});

test("no set of ranges gives more than the file, or overlaps", () => {
  const spec = fc.oneof(
    fc.tuple(fc.nat(SIZE + 10), fc.nat(SIZE + 10)).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
    fc.nat(SIZE + 10).map((a) => `${a}-`),
    fc.nat(SIZE + 10).map((a) => `-${a}`),
  );
  fc.assert(
    fc.property(fc.array(spec, { minLength: 1, maxLength: MAX_RANGES }), fc.nat(SIZE), (specs, size) => {
      const ranges = parseRanges(`bytes=${specs.join(",")}`, size);
      if (ranges === null || ranges === "not satisfiable") return;
      let at = 0;
      for (const { offset, length } of ranges) {
        expect(length).toBeGreaterThan(0);
        expect(offset).toBeGreaterThanOrEqual(at);
        at = offset + length;
      }
      expect(at).toBeLessThanOrEqual(size);
    }),
  );
});

test("every byte that a set asks for, and that is there, is given", () => {
  const range = fc.tuple(fc.nat(300), fc.nat(300)).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
  fc.assert(
    fc.property(fc.array(range, { minLength: 1, maxLength: 8 }), (asked) => {
      const given = parseRanges(`bytes=${asked.map(([a, b]) => `${a}-${b}`).join(",")}`, 200);
      const has = (byte: number) =>
        Array.isArray(given) && given.some(({ offset, length }) => byte >= offset && byte < offset + length);
      for (const [first, last] of asked) {
        for (let byte = first; byte <= Math.min(last, 199); byte++) expect(has(byte)).toBe(true);
      }
    }),
  );
});

test("no text makes it throw", () => {
  fc.assert(fc.property(fc.string(), fc.nat(), (text, size) => void parseRanges(`bytes=${text}`, size)));
});

test("Content-Range", () => {
  expect(contentRange({ offset: 5, length: 10 }, 100)).toBe("bytes 5-14/100");
  expect(contentRange(null, 100)).toBe("bytes */100");
});

describe("what a request asks for", () => {
  const NOW = 1_000_000;
  const validators = { etag: '"a"', lastModified: NOW - 1 };
  const asks = (fields: readonly string[], method = "GET") =>
    requestedRanges({ method, fields }, () => validators, SIZE, NOW * 1000);
  const first = [{ offset: 0, length: 1 }];

  test("the range of a GET, and of no other method (RFC 9110 §14.2)", () => {
    expect(asks(["range", "bytes=0-0"])).toEqual(first);
    for (const method of ["HEAD", "POST"]) expect(asks(["range", "bytes=0-0"], method)).toBeNull();
    expect(asks([])).toBeNull();
  });

  test("with If-Range only where that is the representation's (RFC 9110 §13.1.5)", () => {
    const under = (value: string) => asks(["range", "bytes=0-0", "if-range", value]);
    expect(under('"a"')).toEqual(first);
    expect(under('"b"')).toBeNull();
    expect(under(new Date((NOW - 1) * 1000).toUTCString())).toEqual(first);
  });

  // The native HTTP/3 engine joins them, and every protocol is to answer the same.
  test("two lines are no range", () => {
    expect(asks(["range", "bytes=0-0", "range", "bytes=1-1"])).toBe("not satisfiable");
  });
});
