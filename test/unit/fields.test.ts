/** What makes a request malformed or too large, rule by rule, without a socket. */
import { describe, expect, test } from "bun:test";
import type { Fields, Protocol } from "../../src/exchange.ts";
import {
  isForbiddenTrailer,
  malformedFieldLine,
  malformedTrailers,
  readRequestSection,
  refusalOf,
  unsendableFieldLine,
} from "../../src/http/fields.ts";

const LIMITS = { maxHeaderBytes: 4096, maxBodyBytes: 1000 };

type Head = Parameters<typeof refusalOf>[0];

function statusOf(change: Partial<Head>, hasBody = false): number | null {
  const head: Head = {
    protocol: "HTTP/3",
    method: "GET",
    scheme: "https",
    authority: "localhost:9501",
    path: "/a?b=c",
    fields: ["accept", "*/*"],
    receivedAt: 0,
    remoteAddress: "127.0.0.1",
    remotePort: 1,
    localPort: 2,
    session: "",
    sendsInterim: true,
    sendsTrailers: true,
    stream: 0,
    ...change,
  };
  return refusalOf(head, hasBody, LIMITS)?.status ?? null;
}

describe("a request", () => {
  test("that keeps to the rules is let through on every protocol", () => {
    for (const protocol of ["HTTP/1.1", "HTTP/2", "HTTP/3"] as Protocol[])
      expect(statusOf({ protocol })).toBeNull();
  });

  test("has a method that is a token (RFC 9110 §9.1)", () => {
    expect(statusOf({ method: "PURGE" })).toBeNull();
    expect([statusOf({ method: "" }), statusOf({ method: "GE T" }), statusOf({ method: "G\r\nX" })]).toEqual([
      400, 400, 400,
    ]);
  });

  test("with CONNECT is not served (RFC 9110 §9.3.6)", () => {
    expect(statusOf({ method: "CONNECT", path: "" })).toBe(501);
  });

  test("has a target in origin form, or an asterisk with OPTIONS (RFC 9112 §3.2)", () => {
    expect(statusOf({ method: "OPTIONS", path: "*" })).toBeNull();
    const wrong = ["", "*", "a", "/ b", "/a#b", "/\x00", "/\x7f", "/é"];
    expect(wrong.map((path) => statusOf({ path }))).toEqual(wrong.map(() => 400));
  });

  test("names an authority on HTTP/2 and HTTP/3 (RFC 9113 §8.3.1, RFC 9114 §4.3.1)", () => {
    expect(statusOf({ authority: "" })).toBe(400);
    expect(statusOf({ authority: "", protocol: "HTTP/1.1" })).toBeNull();
    for (const authority of [
      "user@host",
      "a b",
      "a/b",
      "a?b",
      "a#b",
      "a\\b",
      'a"b',
      "a<b>",
      "a^b",
      "a`b",
      "a{b}",
    ])
      expect(statusOf({ authority })).toBe(400);
    for (const authority of ["[::1]:80", "a.example", "xn--bcher-kva.example:1", "a_b~-%41!$&'()*+,;=Z9"]) {
      expect(statusOf({ authority })).toBeNull();
    }
  });

  test("has no field of the connection on HTTP/2 and HTTP/3 (RFC 9113 §8.2.2, RFC 9114 §4.2)", () => {
    for (const name of ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]) {
      expect(statusOf({ fields: [name, "x"], protocol: "HTTP/2" })).toBe(400);
      expect(statusOf({ fields: [name, "x"], protocol: "HTTP/3" })).toBe(400);
      expect(statusOf({ fields: [name, "chunked"], protocol: "HTTP/1.1" })).toBeNull();
    }
  });

  test('says nothing but "trailers" in te on HTTP/2 and HTTP/3 (RFC 9113 §8.2.2, RFC 9114 §4.2)', () => {
    expect(statusOf({ fields: ["te", "trailers"] })).toBeNull();
    expect(statusOf({ fields: ["te", "gzip"] })).toBe(400);
  });

  test("has one content-length, which is a number (RFC 9110 §8.6)", () => {
    const of = (...fields: Fields) => statusOf({ method: "POST", fields }, true);
    expect(of("content-length", "12")).toBeNull();
    expect(of("content-length", "12", "content-length", "12")).toBeNull();
    const wrong = ["", "-1", "+1", "1.5", "0x10", "1e3", " 1", "12, 12", "99999999999999999999"];
    expect(wrong.map((value) => of("content-length", value))).toEqual(wrong.map(() => 400));
    expect(of("content-length", "12", "content-length", "13")).toBe(400);
  });

  test("has the body that its content-length promises (RFC 9113 §8.1.1, RFC 9114 §4.1.2)", () => {
    expect(statusOf({ fields: ["content-length", "1"] }, false)).toBe(400);
    expect(statusOf({ fields: ["content-length", "0"] }, false)).toBeNull();
  });

  test("that came as early data has a safe method, or is 425 (RFC 8470 §5.2)", () => {
    const early: Fields = ["early-data", "1"];
    expect(["GET", "HEAD", "OPTIONS"].map((method) => statusOf({ method, fields: early }))).toEqual([
      null,
      null,
      null,
    ]);
    expect(["POST", "PUT", "DELETE", "PURGE"].map((method) => statusOf({ method, fields: early }))).toEqual([
      425, 425, 425, 425,
    ]);
  });

  test("is early with any value of early-data, and with several (RFC 8470 §5.1)", () => {
    for (const value of ["0", "", "?0"]) {
      expect(statusOf({ method: "POST", fields: ["early-data", value] })).toBe(425);
      expect(statusOf({ fields: ["early-data", value, "early-data", "1"] })).toBeNull();
    }
  });

  test("over maxHeaderBytes is 431, counted with 32 a field line (RFC 9114 §4.2.2)", () => {
    const room = LIMITS.maxHeaderBytes - "/a?b=c".length - "localhost:9501".length - 32 - 1;
    expect(statusOf({ fields: ["a", "x".repeat(room)] })).toBeNull();
    expect(statusOf({ fields: ["a", "x".repeat(room + 1)] })).toBe(431);
    expect(statusOf({ fields: Array.from({ length: 300 }, () => ["a", "b"]).flat() })).toBe(431);
    expect(statusOf({ path: `/${"x".repeat(5000)}` })).toBe(431);
  });

  test("over a bound of its listener's own is 431, too, and a larger one allows no more", () => {
    const long = { fields: ["a", "x".repeat(2000)] };
    expect(statusOf({ ...long, maxHeaderBytes: 1024 })).toBe(431);
    expect(statusOf({ ...long, maxHeaderBytes: 100_000 })).toBeNull();
    expect(statusOf({ fields: ["a", "x".repeat(5000)], maxHeaderBytes: 100_000 })).toBe(431);
  });

  test("that declares more than maxBodyBytes is 413", () => {
    expect(statusOf({ fields: ["content-length", "1000"] }, true)).toBeNull();
    expect(statusOf({ fields: ["content-length", "1001"] }, true)).toBe(413);
  });
});

describe("a field line", () => {
  test("has a name that is a token in lower case (RFC 9110 §5.1, RFC 9113 §8.2.1)", () => {
    expect(malformedFieldLine("x-a_b.c~1", "v")).toBeNull();
    for (const name of ["", "X-A", "a b", "a:b", "é", "a\x00"])
      expect(malformedFieldLine(name, "v")).toContain("name");
  });

  test("has a value without CR, LF, NUL, or blanks around it (RFC 9110 §5.5, RFC 9113 §8.2.1)", () => {
    for (const value of ["", "a b", "a\tb", "é"]) expect(malformedFieldLine("a", value)).toBeNull();
    for (const value of ["a\r", "a\nb", "\x00", " a", "a\t"])
      expect(malformedFieldLine("a", value)).toContain("value");
  });

  test("is sent with as many bytes as an engine's encoder takes, with 32 for the line, and not with one more", () => {
    expect(unsendableFieldLine("abc", "v".repeat(65_500))).toBeNull();
    expect(unsendableFieldLine("abc", "v".repeat(65_501))).toBe('"abc" has 65504 bytes, over 65503');
  });
});

describe("a header section of HTTP/2 or HTTP/3", () => {
  const [METHOD, SCHEME, AUTHORITY, PATH] = [
    [":method", "GET"],
    [":scheme", "https"],
    [":authority", "a.example"],
    [":path", "/"],
  ] as const;
  const CONNECT = [":method", "CONNECT"] as const;
  const wrongIn = (...lines: (readonly [string, string])[]) => readRequestSection(lines.flat()).malformed;

  test("is taken apart, its regular fields in order", () => {
    const lines = [METHOD, SCHEME, AUTHORITY, PATH, ["b", "1"], ["a", "2"], ["b", "3"]];
    expect(readRequestSection(lines.flat())).toEqual({
      method: "GET",
      path: "/",
      authority: "a.example",
      fields: ["b", "1", "a", "2", "b", "3"],
      malformed: null,
    });
  });

  test("has the pseudo fields in any order, and host for :authority (RFC 9114 §4.3.1)", () => {
    expect(wrongIn(PATH, AUTHORITY, METHOD, SCHEME)).toBeNull();
    expect(readRequestSection([METHOD, SCHEME, PATH, ["host", "b"]].flat())).toMatchObject({
      authority: "b",
      malformed: null,
    });
    expect(wrongIn(METHOD, SCHEME, AUTHORITY, PATH, ["host", "A.example"])).toBeNull();
    expect(wrongIn(METHOD, SCHEME, [":authority", "A.example"], PATH, ["host", "a.example"])).toBeNull();
  });

  const wrong: [what: string, lines: (readonly [string, string])[], message: string][] = [
    ["nothing at all", [], '":method" is missing'],
    ["no :method", [SCHEME, AUTHORITY, PATH], '":method" is missing'],
    ["no :scheme", [METHOD, AUTHORITY, PATH], '":scheme" is missing'],
    ["no :path", [METHOD, SCHEME, AUTHORITY], '":path" is missing'],
    ["two :method", [METHOD, METHOD, SCHEME, AUTHORITY, PATH], '":method" is given twice'],
    ["two :scheme", [METHOD, SCHEME, SCHEME, AUTHORITY, PATH], '":scheme" is given twice'],
    ["two :authority", [METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH], '":authority" is given twice'],
    ["two :path", [METHOD, SCHEME, AUTHORITY, PATH, PATH], '":path" is given twice'],
    [
      "a pseudo field after a regular one",
      [METHOD, SCHEME, AUTHORITY, ["a", "b"], PATH],
      '":path" comes after',
    ],
    ["a response's pseudo field", [METHOD, SCHEME, AUTHORITY, PATH, [":status", "200"]], "no request has"],
    ["an unknown pseudo field", [METHOD, SCHEME, AUTHORITY, PATH, [":a", "b"]], "no request has"],
    [
      "extended CONNECT, which is not offered",
      [CONNECT, SCHEME, AUTHORITY, PATH, [":protocol", "x"]],
      "no request",
    ],
    [
      "an empty :authority",
      [METHOD, SCHEME, [":authority", ""], PATH, ["host", "a"]],
      '":authority" is empty',
    ],
    ["a host that disagrees", [METHOD, SCHEME, AUTHORITY, PATH, ["host", "b"]], "host disagrees"],
    ["two hosts", [METHOD, SCHEME, PATH, ["host", "a"], ["host", "a"]], "host is given twice"],
    ["a scheme with a blank", [METHOD, [":scheme", "ht tps"], AUTHORITY, PATH], '":scheme" is no scheme'],
    ["CONNECT with a :path", [CONNECT, AUTHORITY, PATH], "CONNECT has :authority"],
    ["CONNECT with a :scheme", [CONNECT, SCHEME, AUTHORITY], "CONNECT has :authority"],
    ["CONNECT without :authority", [CONNECT, ["host", "a"]], "CONNECT has :authority"],
    ["an upper-case name", [METHOD, SCHEME, AUTHORITY, PATH, ["A", "b"]], "lower case"],
    ["an empty name", [METHOD, SCHEME, AUTHORITY, PATH, ["", "b"]], "a field name"],
    ["a line break in a value", [METHOD, SCHEME, AUTHORITY, PATH, ["a", "b\r\nc: d"]], 'the value of "a"'],
  ];
  for (const [what, lines, message] of wrong) {
    test(`is malformed with ${what}, whatever follows that`, () => {
      expect(wrongIn(...lines)).toContain(message);
      expect(wrongIn(...lines, ["z", "1"])).toContain(message);
    });
  }

  test("is well formed as CONNECT has it (RFC 9113 §8.5, RFC 9114 §4.4)", () => {
    expect(wrongIn(CONNECT, AUTHORITY)).toBeNull();
  });
});

describe("a trailer section of HTTP/2 or HTTP/3", () => {
  test("has regular fields, in lower case, and none of the connection (RFC 9113 §8.1, RFC 9114 §4.3)", () => {
    expect(malformedTrailers([])).toBeNull();
    expect(malformedTrailers(["x-sum", "1", "x-sum", "2"])).toBeNull();
    expect(malformedTrailers([":path", "/"])).toContain("pseudo field");
    expect(malformedTrailers(["a", "1", "Upper", "2"])).toContain("lower case");
    expect(malformedTrailers(["connection", "close"])).toContain("connection");
    expect(malformedTrailers(["a", "b\nc"])).toContain('the value of "a"');
  });

  test("has nothing that frames, routes, authenticates, controls or describes the message (RFC 9110 §6.5.1)", () => {
    const wrong = ["transfer-encoding", "content-length", "host", "trailer", "te", "cache-control", "expect"];
    wrong.push("max-forwards", "range", "authorization", "cookie", "set-cookie");
    wrong.push("content-encoding", "content-type", "content-range", "connection");
    expect(wrong.filter((name) => !isForbiddenTrailer(name))).toEqual([]);
    expect(["etag", "server-timing", "x-sum"].filter(isForbiddenTrailer)).toEqual([]);
  });
});
