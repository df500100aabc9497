/** RFC 9110, HTTP semantics, by section; each test over every protocol. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { type ClientResponse, header } from "../support/client.ts";
import { ALL_CLIENTS } from "../support/clients.ts";
import { Scratch, startFixture } from "../support/server.ts";
import { sharedServer } from "../support/shared-server.ts";
import { readStats } from "../support/stats.ts";

setDefaultTimeout(60_000);

const OLD = new Date("2020-02-02T02:02:02.500Z");
const OLD_DATE = "Sun, 02 Feb 2020 02:02:02 GMT";
const BEFORE = "Sun, 02 Feb 2020 02:02:01 GMT";
const TEXT = Buffer.from(Array.from({ length: 20_000 }, (_, i) => `${i}\n`).join(""));
const SIZE = TEXT.length;

const scratch = await Scratch.make();
const root = scratch.file("public");
mkdirSync(root);

function put(name: string, content: string | Uint8Array, time: Date | null = OLD): void {
  writeFileSync(`${root}/${name}`, content);
  if (time !== null) utimesSync(`${root}/${name}`, time, time);
}

put("numbers.txt", TEXT);
put("page.html", "<p>page</p>");
put("empty.txt", "");
put("app.js", TEXT);
put("app.js.br", brotliCompressSync(TEXT));
put("app.js.zst", zstdCompressSync(TEXT));
put("app.js.gz", gzipSync(TEXT));
put("only.css", TEXT);
put("only.css.gz", gzipSync(TEXT));
put("picture.png", TEXT);
put("picture.png.br", "never");

const shared = sharedServer(() =>
  startFixture("files.ts", { scratch, options: { static: { root, prefix: "/static" } } }),
);
afterAll(() => scratch[Symbol.dispose]());

/** The same file by the static handler and by `response.sendfile`. */
const WAYS = {
  static: (name: string) => `/static/${name}`,
  sendfile: (name: string) => `/send?path=${root}/${name}`,
};

for (const kind of ALL_CLIENTS) {
  const ask = async (path: string, headers: Record<string, string> = {}, method = "GET") => {
    await using client = await kind.open(shared.server);
    const response = await client.request({ path, headers, method });
    return { response, body: Buffer.from(await response.body.bytes()) };
  };

  for (const [way, pathOf] of Object.entries(WAYS)) {
    const numbers = pathOf("numbers.txt");
    const describeOf = (section: string) => `RFC 9110 §${section}, ${way}, ${kind.name}`;

    describe(describeOf("13 conditional requests"), () => {
      test("a response tells its ETag and Last-Modified (§8.8)", async () => {
        const { response, body } = await ask(numbers);
        expect(response.status).toBe(200);
        expect(body.equals(TEXT)).toBe(true);
        expect(header(response, "last-modified")).toBe(OLD_DATE);
        expect(header(response, "etag")).toMatch(/^"[!#-~]+"$/);
        expect(header(response, "content-type")).toBe("text/plain; charset=utf-8");
        expect(header(response, "accept-ranges")).toBe("bytes");
        expect(header(response, "content-length")).toBe(String(SIZE));
      });

      test("If-None-Match with the tag, in its weak form too: 304 without content (§13.1.2, §15.4.5)", async () => {
        const etag = header((await ask(numbers)).response, "etag") as string;
        for (const value of [etag, `"other", W/${etag}`, "*"]) {
          const { response, body } = await ask(numbers, { "if-none-match": value });
          expect(response.status).toBe(304);
          expect(body.length).toBe(0);
          expect(header(response, "etag")).toBe(etag);
          expect(header(response, "content-type")).toBeUndefined();
          expect(header(response, "content-range")).toBeUndefined();
        }
        expect((await ask(numbers, { "if-none-match": '"other"' })).response.status).toBe(200);
      });

      test("If-Modified-Since: 304 where nothing changed, ignored beside If-None-Match (§13.1.3, §13.2.2)", async () => {
        expect((await ask(numbers, { "if-modified-since": OLD_DATE })).response.status).toBe(304);
        expect((await ask(numbers, { "if-modified-since": BEFORE })).response.status).toBe(200);
        expect((await ask(numbers, { "if-modified-since": "2020" })).response.status).toBe(200);
        const both = { "if-modified-since": OLD_DATE, "if-none-match": '"other"' };
        expect((await ask(numbers, both)).response.status).toBe(200);
      });

      test("If-Match and If-Unmodified-Since: 412 where they fail (§13.1.1, §13.1.4)", async () => {
        const etag = header((await ask(numbers)).response, "etag") as string;
        expect((await ask(numbers, { "if-match": etag })).response.status).toBe(200);
        expect((await ask(numbers, { "if-match": '"other"' })).response.status).toBe(412);
        expect((await ask(numbers, { "if-match": `W/${etag}` })).response.status).toBe(412);
        expect((await ask(numbers, { "if-unmodified-since": BEFORE })).response.status).toBe(412);
        expect((await ask(numbers, { "if-unmodified-since": OLD_DATE })).response.status).toBe(200);
        const both = { "if-match": etag, "if-unmodified-since": BEFORE };
        expect((await ask(numbers, both)).response.status).toBe(200);
        const first = { "if-match": '"other"', "if-none-match": etag };
        expect((await ask(numbers, first)).response.status).toBe(412);
      });

      test("HEAD is answered as GET, without content (§9.3.2)", async () => {
        const { response, body } = await ask(numbers, {}, "HEAD");
        expect(response.status).toBe(200);
        expect(header(response, "content-length")).toBe(String(SIZE));
        expect(body.length).toBe(0);
        expect((await ask(numbers, { "if-modified-since": OLD_DATE }, "HEAD")).response.status).toBe(304);
        expect((await ask(numbers, { range: "bytes=0-1" }, "HEAD")).response.status).toBe(200);
      });

      test("a file changed within two seconds has a weak tag (§8.8.1), which If-Range refuses (§13.1.5)", async () => {
        const name = `fresh-${way}-${kind.name.replaceAll(/\W/g, "")}.txt`;
        // In the future, so that no slow test makes it old.
        put(name, "fresh", new Date(Date.now() + 60_000));
        const { response } = await ask(pathOf(name));
        const etag = header(response, "etag") as string;
        expect(etag).toStartWith('W/"');
        expect(Date.parse(header(response, "last-modified") as string)).toBeLessThanOrEqual(Date.now());
        expect((await ask(pathOf(name), { "if-none-match": etag })).response.status).toBe(304);
        const { response: range } = await ask(pathOf(name), { range: "bytes=0-1", "if-range": etag });
        expect(range.status).toBe(200);
      });
    });

    describe(describeOf("14 range requests"), () => {
      const single = {
        "bytes=0-499": [0, 500],
        "bytes=100000-": [100_000, SIZE],
        "bytes=-5": [SIZE - 5, SIZE],
      };
      for (const [range, [from, to]] of Object.entries(single)) {
        test(`${range}: 206 with Content-Range (§15.3.7.1)`, async () => {
          const { response, body } = await ask(numbers, { range });
          expect(response.status).toBe(206);
          expect(header(response, "content-range")).toBe(`bytes ${from}-${(to as number) - 1}/${SIZE}`);
          expect(body.equals(TEXT.subarray(from, to))).toBe(true);
          expect(header(response, "content-length") ?? String(body.length)).toBe(String(body.length));
          expect(header(response, "etag")).toBeDefined();
        });
      }

      test("a large range: its bytes, no more and no fewer", async () => {
        const { response, body } = await ask(numbers, { range: "bytes=7-100006" });
        expect(response.status).toBe(206);
        expect(body.equals(TEXT.subarray(7, 100_007))).toBe(true);
      });

      test("several ranges: multipart/byteranges (§14.6, §15.3.7.2)", async () => {
        const { response, body } = await ask(numbers, { range: "bytes=-5,0-9,1000-1099" });
        expect(response.status).toBe(206);
        expect(header(response, "content-range")).toBeUndefined();
        const parts = partsOf(response, body);
        expect(parts.map(({ fields }) => fields["content-range"])).toEqual(
          [
            [0, 9],
            [1000, 1099],
            [SIZE - 5, SIZE - 1],
          ].map(([a, b]) => `bytes ${a}-${b}/${SIZE}`),
        );
        expect(parts.every(({ fields }) => fields["content-type"] === "text/plain; charset=utf-8")).toBe(
          true,
        );
        expect(parts.map(({ content }) => content)).toEqual(
          [
            [0, 10],
            [1000, 1100],
            [SIZE - 5, SIZE],
          ].map(([a, b]) => TEXT.subarray(a, b).toString()),
        );
      });

      test("parts of over 64 KiB in all, that stream", async () => {
        const { response, body } = await ask(numbers, { range: "bytes=0-50000,60000-105000" });
        const parts = partsOf(response, body);
        expect(parts.map(({ content }) => content.length)).toEqual([50_001, 45_001]);
        expect(parts[1]?.content).toBe(TEXT.subarray(60_000, 105_001).toString());
      });

      test("ranges that overlap are sent once (§14.2, §17.15)", async () => {
        const { response, body } = await ask(numbers, { range: `bytes=${Array(60).fill("0-").join(",")}` });
        expect(response.status).toBe(206);
        expect(header(response, "content-range")).toBe(`bytes 0-${SIZE - 1}/${SIZE}`);
        expect(body.length).toBe(SIZE);
      });

      test("too many, behind the end, or malformed: 416 with Content-Range (§15.5.17)", async () => {
        for (const range of [
          `bytes=${Array(65).fill("0-0").join(",")}`,
          `bytes=${SIZE}-`,
          "bytes=5-1",
          "bytes=x",
        ]) {
          const { response } = await ask(numbers, { range });
          expect(response.status).toBe(416);
          expect(header(response, "content-range")).toBe(`bytes */${SIZE}`);
          expect(header(response, "etag")).toBeUndefined();
        }
        const { response } = await ask(pathOf("empty.txt"), { range: "bytes=0-" });
        expect(response.status).toBe(416);
        expect(header(response, "content-range")).toBe("bytes */0");
      });

      test("a unit that is not known is ignored (§14.2)", async () => {
        expect((await ask(numbers, { range: "lines=1-2" })).response.status).toBe(200);
      });

      test("If-Range: the range where the validator holds, else all of it (§13.1.5)", async () => {
        const etag = header((await ask(numbers)).response, "etag") as string;
        const range = "bytes=0-99999";
        for (const held of [etag, OLD_DATE]) {
          expect((await ask(numbers, { range, "if-range": held })).response.status).toBe(206);
        }
        for (const lost of ['"other"', BEFORE, `W/${etag}`]) {
          const { response, body } = await ask(numbers, { range, "if-range": lost });
          expect(response.status).toBe(200);
          expect(body.equals(TEXT)).toBe(true);
          expect(header(response, "content-range")).toBeUndefined();
        }
      });

      test("preconditions come before the range (§13.2.2)", async () => {
        const { response } = await ask(numbers, { range: "bytes=0-9", "if-modified-since": OLD_DATE });
        expect(response.status).toBe(304);
      });
    });
  }

  describe(`RFC 9110 §12.5.3 Accept-Encoding, static, ${kind.name}`, () => {
    const forms = {
      "br, gzip, zstd": "br",
      "gzip, zstd": "zstd",
      gzip: "gzip",
      "br;q=0.5, gzip": "gzip",
      "br;q=0, *": "zstd",
      "deflate, identity;q=0, gzip;q=0.1": "gzip",
    };
    for (const [accept, coding] of Object.entries(forms)) {
      test(`"${accept}": ${coding}`, async () => {
        const { response, body } = await ask("/static/app.js", { "accept-encoding": accept });
        expect(response.status).toBe(200);
        expect(header(response, "vary")).toBe("accept-encoding");
        // A client may decode by itself, and then hides the coding.
        const seen = header(response, "content-encoding");
        const encoded = readFileSync(`${root}/app.js${{ br: ".br", zstd: ".zst", gzip: ".gz" }[coding]}`);
        if (!body.equals(TEXT)) expect(body.equals(encoded)).toBe(true);
        if (seen !== undefined) expect(seen).toBe(coding);
        expect(header(response, "content-type")).toBe("text/javascript; charset=utf-8");
        expect(header(response, "etag")).toEndWith(`-${coding}"`);
      });
    }

    for (const accept of ["identity", "br;q=0, gzip;q=0, zstd;q=0", "*;q=0, identity"]) {
      test(`"${accept}": no coding, and Vary all the same`, async () => {
        const { response, body } = await ask("/static/app.js", { "accept-encoding": accept });
        expect(header(response, "content-encoding")).toBeUndefined();
        expect(header(response, "vary")).toBe("accept-encoding");
        expect(body.equals(TEXT)).toBe(true);
      });
    }

    test("a form that is not there is passed over; where no form is taken: 406 (§15.5.7)", async () => {
      const { response } = await ask("/static/only.css", { "accept-encoding": "br, gzip;q=0.5" });
      expect(header(response, "etag")).toEndWith('-gzip"');
      const refused = await ask("/static/only.css", { "accept-encoding": "br, *;q=0" });
      expect(refused.response.status).toBe(406);
    });

    test("each form has a tag of its own (§8.8.3.3)", async () => {
      const tags = await Promise.all(
        ["br", "gzip", "zstd", "identity"].map(async (accept) =>
          header((await ask("/static/app.js", { "accept-encoding": accept })).response, "etag"),
        ),
      );
      expect(new Set(tags).size).toBe(4);
      const { response } = await ask("/static/app.js", {
        "accept-encoding": "br",
        "if-none-match": tags[1] as string,
      });
      expect(response.status).toBe(200);
    });

    test("what is compressed in itself has no other form", async () => {
      const { response, body } = await ask("/static/picture.png", { "accept-encoding": "br" });
      expect(header(response, "vary")).toBeUndefined();
      expect(body.equals(TEXT)).toBe(true);
    });
  });

  describe(`RFC 9110 §15.5.6 405, static, ${kind.name}`, () => {
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
      test(`${method} on a file: 405 with Allow`, async () => {
        const { response } = await ask("/static/page.html", {}, method);
        expect(response.status).toBe(405);
        expect(header(response, "allow")).toBe("GET, HEAD");
      });
    }

    test("any method on what is no file goes to the handler", async () => {
      const { response, body } = await ask("/static/none.html", {}, "DELETE");
      expect(header(response, "x-handler")).toBe("yes");
      expect(body.toString()).toBe("the handler: DELETE");
    });
  });
}

test("no worker saw a request for a file, and nothing is left in flight", async () => {
  await using client = await (ALL_CLIENTS[0] as (typeof ALL_CLIENTS)[number]).open(shared.server);
  const before = await readStats(client);
  expect((await client.request({ path: "/static/page.html" })).status).toBe(200);
  const after = await readStats(client);
  expect((after.workers[0]?.requests ?? 0) - (before.workers[0]?.requests ?? 0)).toBe(1);
  expect(after.inFlight).toBe(1);
  expect(shared.server.stderr).not.toMatch(/error/i);
});

interface Part {
  readonly fields: Readonly<Record<string, string>>;
  readonly content: string;
}

/** RFC 2046 §5.1.1. */
function partsOf(response: ClientResponse, body: Buffer): Part[] {
  const [, boundary] =
    /^multipart\/byteranges; boundary=([\w-]{1,70})$/.exec(header(response, "content-type") ?? "") ?? [];
  expect(boundary).toBeDefined();
  const text = body.toString("latin1");
  expect(text).toStartWith(`--${boundary}\r\n`);
  expect(text).toEndWith(`\r\n--${boundary}--\r\n`);
  const inner = text.slice(`--${boundary}\r\n`.length, -`\r\n--${boundary}--\r\n`.length);
  return inner.split(`\r\n--${boundary}\r\n`).map((part) => {
    const end = part.indexOf("\r\n\r\n");
    const lines = part.slice(0, end).split("\r\n");
    return {
      fields: Object.fromEntries(lines.map((line) => line.split(": "))),
      content: part.slice(end + 4),
    };
  });
}
