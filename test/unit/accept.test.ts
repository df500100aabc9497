/** Accept-Encoding as a pure function: RFC 9110 §12.5.3. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { acceptedEncodings } from "../../src/http/accept.ts";

const OFFERED = ["br", "zstd", "gzip"];

const cases: [string | null, string[]][] = [
  [null, ["identity"]],
  ["", ["identity"]],
  ["gzip", ["gzip", "identity"]],
  ["gzip, deflate, br, zstd", ["br", "zstd", "gzip", "identity"]],
  ["gzip;q=1.0, br;q=0.5", ["gzip", "br", "identity"]],
  ["br;q=0.001", ["br", "identity"]],
  ["br;q=0", ["identity"]],
  ["*", ["br", "zstd", "gzip", "identity"]],
  ["gzip, *;q=0", ["gzip"]],
  ["*;q=0", []],
  ["identity;q=0", []],
  ["identity;q=0, gzip", ["gzip"]],
  ["identity, gzip;q=0.5", ["identity", "gzip"]],
  ["identity;q=0.5, *;q=0", ["identity"]],
  ["*;q=0.5, br;q=0", ["zstd", "gzip", "identity"]],
  ["BR ; Q=0.7 , X-GZIP", ["gzip", "br", "identity"]],
  ["br;q=2, gzip;level=1, zstd;q=abc", ["identity"]],
  [",, ,gzip,", ["gzip", "identity"]],
];
for (const [value, accepted] of cases) {
  test(`${value === null ? "no field" : JSON.stringify(value)}: ${accepted.join(", ") || "nothing"}`, () => {
    expect(acceptedEncodings(value, OFFERED)).toEqual(accepted);
  });
}

test("nothing is given that was refused or not offered, and nothing makes it throw", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      for (const coding of acceptedEncodings(text, OFFERED))
        expect([...OFFERED, "identity"]).toContain(coding);
      expect(acceptedEncodings(`${text}, br;q=0`, OFFERED)).not.toContain("br");
    }),
  );
});
