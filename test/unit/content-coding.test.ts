/** Which responses are compressed, and what their heads say then, without a socket. */
import { heapStats } from "bun:jsc";
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Fields, ResponseHead } from "../../src/exchange.ts";
import { ContentCoding, codedHead, notModifiedHead } from "../../src/http/content-coding.ts";
import { type ResolvedCompression, resolveOptions } from "../../src/options.ts";
import { requestHead } from "../support/request-head.ts";

const options = resolveOptions({}).compression as ResolvedCompression;
const coding = new ContentCoding(options);

function head(fields: Fields, status = 200): ResponseHead {
  return Object.freeze({ status, fields: Object.freeze([...fields]) });
}

const ACCEPTS = requestHead(["accept-encoding", "gzip, deflate, br, zstd"]);
const JSON_TYPE = ["content-type", "application/json"];

describe("what is compressed", () => {
  const planned: [string, Fields, number?][] = [
    ["a text", ["content-type", "text/html; charset=utf-8"]],
    ["an event stream", ["content-type", "text/event-stream"]],
    ["a suffix", ["content-type", "application/problem+json"]],
    ["any case", ["content-type", " Application/JSON ;v=1"]],
    ["an error", JSON_TYPE, 404],
    ["with other directives", [...JSON_TYPE, "cache-control", "no-cache, max-age=1"]],
    ["with one that only ends alike", [...JSON_TYPE, "cache-control", "x-no-transform"]],
  ];
  for (const [what, fields, status] of planned) {
    test(what, () => expect(coding.plan(ACCEPTS, head(fields, status))?.coding).toBe("zstd"));
  }

  const left: [string, Fields, number?][] = [
    ["no type", ["content-length", "5000"]],
    ["another type", ["content-type", "image/png"]],
    ["a type that only begins alike", ["content-type", "application/jsonx"]],
    ["an encoded one", [...JSON_TYPE, "content-encoding", "gzip"]],
    ["one said to be identity", [...JSON_TYPE, "content-encoding", "identity"]],
    ["no-transform", [...JSON_TYPE, "cache-control", "public, No-Transform"]],
    [
      "no-transform in a second line",
      [...JSON_TYPE, "cache-control", "public", "cache-control", "no-transform"],
    ],
    ["a digest of the bytes", [...JSON_TYPE, "content-digest", "sha-256=:AAAA:"]],
    ["a digest of the representation", [...JSON_TYPE, "repr-digest", "sha-256=:AAAA:"]],
    ["205", JSON_TYPE, 205],
    ["206", JSON_TYPE, 206],
    ["416", JSON_TYPE, 416],
  ];
  for (const [what, fields, status] of left) {
    test(`not ${what}`, () => expect(coding.plan(ACCEPTS, head(fields, status))).toBeNull());
  }

  test("several lines of Accept-Encoding are one list", () => {
    const two = requestHead(["accept-encoding", "gzip;q=0.5", "accept-encoding", "br"]);
    expect(coding.plan(two, head(JSON_TYPE))?.coding).toBe("br");
  });

  test("nothing for who has no Accept-Encoding, refuses all, or likes it better as it is", () => {
    for (const fields of [
      [],
      ["accept-encoding", ""],
      ["accept-encoding", "*;q=0"],
      ["accept-encoding", "identity, br;q=0.1"],
    ]) {
      const plan = coding.plan(requestHead(fields), head(JSON_TYPE));
      expect(plan?.coding).toBeNull();
      expect(plan?.head.fields).toEqual([...JSON_TYPE, "vary", "accept-encoding"]);
    }
  });

  test("whatever clients and handlers say, nothing of it is kept for long", () => {
    const said = (i: number, length: number) => `x-${i}`.padEnd(length, "x");
    const held = () => {
      Bun.gc(true);
      return heapStats().heapSize + heapStats().extraMemorySize;
    };
    const before = held();
    for (const [count, length] of [
      [20_000, 250],
      [200, 50_000],
    ] as const) {
      for (let i = 0; i < count; i++) {
        const type = ["content-type", `application/json;${said(i, length)}`];
        expect(coding.plan(requestHead(["accept-encoding", said(i, length)]), head(type))?.coding).toBeNull();
      }
    }
    expect(held() - before).toBeLessThan(2_000_000);
  });

  test("of the offered codings alone", () => {
    const gzipOnly = new ContentCoding({ ...options, codings: ["gzip"] });
    expect(
      gzipOnly.plan(requestHead(["accept-encoding", "zstd, br, gzip;q=0.1"]), head(JSON_TYPE))?.coding,
    ).toBe("gzip");
    expect(gzipOnly.plan(requestHead(["accept-encoding", "zstd, br"]), head(JSON_TYPE))?.coding).toBeNull();
  });
});

describe("the head", () => {
  const varied = (vary: Fields) => coding.plan(ACCEPTS, head([...JSON_TYPE, ...vary]))?.head.fields.slice(2);

  test("Vary is merged", () => {
    expect(varied([])).toEqual(["vary", "accept-encoding"]);
    expect(varied(["vary", "cookie"])).toEqual(["vary", "cookie, accept-encoding"]);
    for (const own of ["Origin, Accept-Encoding", "Accept-Encoding, Origin"])
      expect(varied(["vary", own])).toEqual(["vary", own]);
    expect(varied(["vary", ""])).toEqual(["vary", "accept-encoding"]);
    expect(varied(["vary", "*"])).toEqual(["vary", "*"]);
    expect(varied(["vary", "origin", "vary", "x-accept-encoding"])).toEqual([
      "vary",
      "origin",
      "vary",
      "x-accept-encoding, accept-encoding",
    ]);
  });

  test("a strong tag becomes weak, a weak one stays, length and ranges go", () => {
    const given = head([
      "etag",
      '"a"',
      "content-length",
      "9",
      "accept-ranges",
      "bytes",
      "x",
      "content-length",
    ]);
    expect(codedHead(given, "br", 5).fields).toEqual([
      ...["etag", 'W/"a"', "x", "content-length"],
      ...["content-encoding", "br", "content-length", "5"],
    ]);
    const tagged = (tag: string) => codedHead(head(["etag", tag]), "br", null).fields;
    for (const [own, sent] of [
      ['W/"a"', 'W/"a"'],
      ['"\xe9"', 'W/"\xe9"'],
      // These are no tags.
      ["a", "a"],
      ['"a" "b"', '"a" "b"'],
    ] as const)
      expect(tagged(own)).toEqual(["etag", sent, "content-encoding", "br"]);
  });

  test("a 304 has the tag that the client was given", () => {
    const unchanged = head(["etag", '"a"'], 304);
    const asks = (...lines: string[]) =>
      notModifiedHead(requestHead(lines.flatMap((value) => ["if-none-match", value])), unchanged);
    for (const lines of [['"b", W/"a"'], ['"b"', 'W/"a"']])
      expect(asks(...lines).fields).toEqual(["etag", 'W/"a"', "vary", "accept-encoding"]);
    expect(asks('"a"')).toBe(unchanged);
    expect(asks("*")).toBe(unchanged);
    for (const left of [{ ...unchanged, verbatim: true }, head(["etag", 'W/"a"'], 304), head([], 304)])
      expect(notModifiedHead(requestHead(["if-none-match", 'W/"a"']), left)).toBe(left);
  });

  test("whatever it is, it is never changed, varies where it is compressed, and is not compressed twice", () => {
    const name = fc.constantFrom("vary", "etag", "content-type", "cache-control", "content-length", "x-a");
    const value = fc.oneof(
      fc.string(),
      fc.constantFrom("text/html", "application/json", '"a"', "*", "cookie", "max-age=1", "accept-encoding"),
    );
    const lines = fc.array(fc.tuple(name, value)).map((each) => each.flat());
    fc.assert(
      fc.property(lines, fc.string(), fc.integer({ min: 200, max: 599 }), (fields, accepted, status) => {
        const given = head(fields, status);
        const plan = coding.plan(
          requestHead(["accept-encoding", accepted, "accept-encoding", "*;q=0.5"]),
          given,
        );
        if (plan === null) return;
        expect(plan.head.fields.join().toLowerCase()).toMatch(/vary,.*(?:accept-encoding|\*)/s);
        expect(plan.coding).not.toBeNull();
        const coded = codedHead(plan.head, plan.coding ?? "br", 1);
        expect(coded.fields.filter((text, i) => i % 2 === 0 && text === "content-length")).toHaveLength(1);
        expect(coding.plan(ACCEPTS, coded)).toBeNull();
        expect(coding.plan(ACCEPTS, { ...coded, verbatim: false })).toBeNull();
      }),
      { numRuns: 2000 },
    );
  });
});
