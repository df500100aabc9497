/** RFC 9111, caching: the fields by which caches keep and validate what this server sends; over every protocol. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { header } from "../support/client.ts";
import { ALL_CLIENTS } from "../support/clients.ts";
import { Scratch, startFixture } from "../support/server.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

const OLD = new Date("2020-02-02T02:02:02Z");
const scratch = await Scratch.make();
const root = scratch.file("public");
mkdirSync(root);
const text = "a text, again and again\n".repeat(100);
for (const [name, content] of [
  ["text.txt", text],
  ["text.txt.gz", gzipSync(text)],
] as const) {
  writeFileSync(`${root}/${name}`, content);
  utimesSync(`${root}/${name}`, OLD, OLD);
}

const shared = sharedServer(() =>
  startFixture("files.ts", {
    scratch,
    options: {
      static: [
        { root, prefix: "/hour", maxAge: 3600, immutable: true },
        { root, prefix: "/now" },
      ],
    },
  }),
);
afterAll(() => scratch[Symbol.dispose]());

for (const kind of ALL_CLIENTS) {
  const ask = async (path: string, headers: Record<string, string> = {}, method = "GET") => {
    await using client = await kind.open(shared.server);
    const response = await client.request({ path, headers, method });
    await response.body.bytes();
    return { status: response.status, field: (name: string) => header(response, name) };
  };

  describe(`RFC 9111, ${kind.name}`, () => {
    test("§5.2.2.1: max-age as the options say; 0 has caches ask each time (§4.2)", async () => {
      expect((await ask("/hour/text.txt")).field("cache-control")).toBe("max-age=3600, immutable");
      expect((await ask("/now/text.txt")).field("cache-control")).toBe("max-age=0");
    });

    test("§5.1, §5.3: an origin server tells the Date, and neither Age nor Expires", async () => {
      const response = await ask("/hour/text.txt");
      expect(Math.abs(Date.parse(response.field("date") ?? "") - Date.now())).toBeLessThan(5_000);
      expect(response.field("age")).toBeUndefined();
      expect(response.field("expires")).toBeUndefined();
    });

    test("§4.3.4: a 304 has the fields that freshen what is stored, and no others of it (RFC 9110 §15.4.5)", async () => {
      for (const accept of ["identity", "gzip"]) {
        const headers = { "accept-encoding": accept };
        const full = await ask("/hour/text.txt", headers);
        const etag = full.field("etag") as string;
        const found = await ask("/hour/text.txt", { ...headers, "if-none-match": etag });
        expect(found.status).toBe(304);
        for (const name of ["etag", "cache-control", "vary", "last-modified"]) {
          expect(found.field(name)).toBe(full.field(name) as string);
        }
        expect(found.field("date")).toBeDefined();
        for (const name of ["content-type", "content-encoding"]) expect(found.field(name)).toBeUndefined();
      }
    });

    test("§4.1: each form of a text, and its absence, says by what it was chosen", async () => {
      for (const accept of ["gzip", "identity", "br, *;q=0"]) {
        const response = await ask("/hour/text.txt", { "accept-encoding": accept });
        expect(response.field("vary")).toBe("accept-encoding");
      }
    });

    test("§4.3.1: a stored form is validated against itself alone", async () => {
      const gzip = (await ask("/hour/text.txt", { "accept-encoding": "gzip" })).field("etag") as string;
      const plain = await ask("/hour/text.txt", { "accept-encoding": "identity", "if-none-match": gzip });
      expect(plain.status).toBe(200);
    });

    test("§3: what failed is not to be stored as the file", async () => {
      const failed = [
        await ask("/hour/text.txt", { range: "bytes=99999-", "accept-encoding": "identity" }),
        await ask("/hour/text.txt", { "if-match": '"other"' }),
        await ask("/hour/text.txt", {}, "DELETE"),
        await ask("/hour/text.txt", { "accept-encoding": "br, *;q=0" }),
      ];
      expect(failed.map(({ status }) => status)).toEqual([416, 412, 405, 406]);
      for (const response of failed) {
        expect(response.field("cache-control")).toBeUndefined();
        expect(response.field("etag")).toBeUndefined();
        expect(response.field("last-modified")).toBeUndefined();
      }
    });

    test("sendfile leaves freshness to the handler, and keeps what it said in a 304", async () => {
      const path = `/send?path=${root}/text.txt`;
      expect((await ask(path)).field("cache-control")).toBeUndefined();
      const response = await ask(`${path}&x-cache-control=max-age=5`, {
        "if-modified-since": OLD.toUTCString(),
      });
      expect(response.status).toBe(304);
      expect(response.field("cache-control")).toBe("max-age=5");
    });
  });
}
