/** RFC 9110's rules for content codings, and RFC 9111's no-transform, over every protocol. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { zstdCompressSync } from "node:zlib";
import { pathOf, textOf } from "../fixtures/compression-routes.ts";
import { header } from "../support/client.ts";
import { ALL_CLIENTS } from "../support/clients.ts";
import { startFixture } from "../support/server.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

const shared = sharedServer(() => startFixture("compression.ts"));
const TYPE = ["content-type", "text/plain"] as const;

for (const kind of ALL_CLIENTS) {
  const ask = async (
    made: Parameters<typeof pathOf>[0],
    headers: Record<string, string> = { "accept-encoding": "gzip, br, zstd" },
    method = "GET",
  ) => {
    await using client = await kind.open(shared.server);
    const response = await client.request({ path: pathOf(made), headers, method });
    return { response, body: await response.body.bytes(), coding: header(response, "content-encoding") };
  };
  const described = (section: string) => `${section}, ${kind.name}`;

  describe(described("RFC 9110 §12.5.3 Accept-Encoding"), () => {
    const accepted: [string, string | undefined][] = [
      ["gzip", "gzip"],
      ["GZIP", "gzip"],
      ["x-gzip", "gzip"],
      ["br;q=1.0, zstd;q=0.9", "br"],
      ["gzip;q=0.001", "gzip"],
      ["*", "zstd"],
      ["zstd;q=0, *", "br"],
      ["gzip;q=0.5, *;q=0.1", "gzip"],
      ["identity;q=0, br", "br"],
      ["gzip;q=0", undefined],
      ["identity", undefined],
      ["identity;q=0.5, gzip;q=0.2", undefined],
      ["deflate, compress, dcb, x-own", undefined],
      ["gzip;q=2", undefined],
      [',;=gzip;;q, "br", z std', undefined],
    ];
    test("the coding with the highest weight is sent, and none with a weight of 0 or unknown", async () => {
      for (const [value, expected] of accepted) {
        const { coding, response } = await ask({}, { "accept-encoding": value });
        expect([value, coding, response.status]).toEqual([value, expected, 200]);
      }
    });

    test("where nothing is acceptable the field may be disregarded (§12.1)", async () => {
      for (const value of ["*;q=0", "identity;q=0"]) {
        const { response, body, coding } = await ask({}, { "accept-encoding": value });
        expect([response.status, coding]).toEqual([200, undefined]);
        expect(Buffer.from(body).toString()).toBe(textOf(20_000));
      }
    });
  });

  describe(described("RFC 9110 §12.5.5 Vary"), () => {
    test("names Accept-Encoding wherever another client would have been given another coding", async () => {
      for (const value of ["br", "identity", "*;q=0"]) {
        const { response } = await ask({}, { "accept-encoding": value });
        expect(header(response, "vary")).toBe("accept-encoding");
      }
    });

    test("keeps what the handler said, and `*`", async () => {
      const { response } = await ask({ fields: [TYPE, ["vary", "Cookie"]] });
      expect(header(response, "vary")).toBe("Cookie, accept-encoding");
      const any = await ask({ fields: [TYPE, ["vary", "*"]] });
      expect(header(any.response, "vary")).toBe("*");
      expect(any.coding).toBe("zstd");
    });
  });

  describe(described("RFC 9110 §8 representations"), () => {
    test("codings are not applied twice (§8.4)", async () => {
      const fields = [TYPE, ["content-encoding", "br"]] as const;
      const { coding, response } = await ask({ fields, bytes: 2000 }, { "accept-encoding": "br" }, "HEAD");
      expect(coding).toBe("br");
      expect(header(response, "content-length")).toBe("2000");
      expect(header(response, "vary")).toBeUndefined();
    });

    test("a strong entity tag is not that of other bytes (§8.8.3.3): it becomes weak", async () => {
      const fields = [TYPE, ["etag", '"a"']] as const;
      expect(header((await ask({ fields })).response, "etag")).toBe('W/"a"');
      expect(header((await ask({ fields, pieces: 3 })).response, "etag")).toBe('W/"a"');
      expect(header((await ask({ fields }, { "accept-encoding": "identity" })).response, "etag")).toBe('"a"');
      const weak = await ask({ fields: [TYPE, ["etag", 'W/"a"']] });
      expect(header(weak.response, "etag")).toBe('W/"a"');
    });

    test("content-length is that of the encoded content (§8.6)", async () => {
      const { response, coding } = await ask({}, { "accept-encoding": "zstd" });
      expect(coding).toBe("zstd");
      expect(header(response, "content-length")).toBe(String(zstdCompressSync(textOf(20_000)).length));
    });
  });

  describe(described("RFC 9110 responses without a whole representation"), () => {
    test("HEAD has the fields that GET would have, but for a length that is not known (§9.3.2)", async () => {
      for (const pieces of [1, 3]) {
        const { response, body, coding } = await ask(
          { pieces, fields: [TYPE, ["etag", '"a"']] },
          undefined,
          "HEAD",
        );
        expect(body).toHaveLength(0);
        expect([coding, header(response, "vary")]).toEqual(["zstd", "accept-encoding"]);
        expect(header(response, "etag")).toBe('W/"a"');
        expect(header(response, "content-length")).toBeUndefined();
      }
      const small = await ask({ bytes: 500 }, undefined, "HEAD");
      expect(small.coding).toBeUndefined();
      expect(header(small.response, "content-length")).toBe("500");
    });

    test("206 is never encoded: its range is of other bytes (§15.3.7)", async () => {
      const fields = [TYPE, ["content-range", "bytes 0-4999/20000"]] as const;
      for (const pieces of [1, 2]) {
        const { response, body, coding } = await ask({ status: 206, fields, bytes: 5000, pieces });
        expect([response.status, coding, header(response, "vary")]).toEqual([206, undefined, undefined]);
        expect(Buffer.from(body).toString()).toBe(textOf(5000));
      }
    });

    test("204 and 304 have no content to encode (§15.3.5, §15.4.5)", async () => {
      for (const status of [204, 304]) {
        for (const pieces of [1, 2]) {
          const { response, body, coding } = await ask({ status, pieces, fields: [TYPE, ["etag", '"a"']] });
          expect([response.status, coding, body.length]).toEqual([status, undefined, 0]);
          expect(header(response, "etag")).toBe('"a"');
        }
      }
    });

    test("304 has the entity tag and Vary of the 200 that the client was given (§15.4.5)", async () => {
      const headers = { "accept-encoding": "br", "if-none-match": 'W/"a"' };
      const { response } = await ask({ status: 304, bytes: 0, fields: [["etag", '"a"']] }, headers);
      expect(header(response, "etag")).toBe('W/"a"');
      expect(header(response, "vary")).toBe("accept-encoding");
    });
  });

  test(described("RFC 9111 §5.2.2.6: no-transform is kept to"), async () => {
    for (const pieces of [1, 2]) {
      const fields = [TYPE, ["cache-control", "public, no-transform"], ["etag", '"a"']] as const;
      const { response, body, coding } = await ask({ fields, pieces });
      expect([coding, header(response, "vary")]).toEqual([undefined, undefined]);
      expect(header(response, "etag")).toBe('"a"');
      expect(Buffer.from(body).toString()).toBe(textOf(20_000));
    }
  });
}
