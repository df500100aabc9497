/** Apps of frameworks from npm, with their middleware, unmodified and on every protocol. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { type Client, header } from "./support/client.ts";
import { ALL_CLIENTS } from "./support/clients.ts";
import { fixture, startCli } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const VERSIONS = { "HTTP/1.1": "1.1", "HTTP/2": "2.0", "HTTP/3": "3.0" } as const;
const JSON_TYPE = { "content-type": "application/json" };

async function get(
  client: Client,
  path: string,
  headers: Record<string, string> = {},
): Promise<[status: number, text: string]> {
  const response = await client.request({ path, headers });
  return [response.status, await response.body.text()];
}

function cookiesOf(headers: Readonly<Record<string, string | readonly string[]>>): string[] {
  return [headers["set-cookie"] ?? []].flat();
}

/** A multipart body with one field and one file, and what the app should see of it. */
function multipart(size: number) {
  const file = crypto.getRandomValues(Buffer.alloc(size));
  const boundary = "----a-boundary";
  const part = (facts: string) => `--${boundary}\r\ncontent-disposition: form-data; ${facts}\r\n`;
  const text = `${part('name="text"')}\r\na text, öä\r\n`;
  const head = `${part('name="file"; filename="upload.bin"')}content-type: application/octet-stream\r\n\r\n`;
  return {
    body: Buffer.concat([Buffer.from(text + head), file, Buffer.from(`\r\n--${boundary}--\r\n`)]),
    headers: { "content-type": `multipart/form-data; boundary=${boundary}` },
    sha256: new Bun.CryptoHasher("sha256").update(file).digest("hex"),
  };
}

describe("Express 5, by tercet/node", () => {
  const shared = sharedServer(() =>
    startCli(fixture("express.ts"), { env: { NODE_ENV: "production" }, flags: { workers: 1 } }),
  );

  for (const kind of ALL_CLIENTS) {
    describe(kind.name, () => {
      test("routes, query, protocol and address, errors without detail, what is not there", async () => {
        await using client = await kind.open(shared.server);
        const hello = await client.request({ path: "/hello/you" });
        expect(await hello.body.text()).toBe("Hello, you!");
        expect(header(hello, "x-powered-on")).toBe(`https ${VERSIONS[kind.protocol]} 127.0.0.1`);
        expect(header(hello, "x-powered-by")).toBe("Express");
        const etag = header(hello, "etag") ?? "";
        expect(await get(client, "/hello/you", { "if-none-match": etag })).toEqual([304, ""]);
        const [, query] = await get(client, "/query?a=1&a=2");
        expect(JSON.parse(query)).toMatchObject({ query: { a: ["1", "2"] }, secure: true });
        for (const path of ["/throw", "/reject"]) {
          const [status, text] = await get(client, path);
          expect(status).toBe(500);
          expect(text).not.toContain("secret");
        }
        expect((await get(client, "/nothing"))[0]).toBe(404);
        const redirect = await client.request({ path: "/redirect" });
        expect([redirect.status, header(redirect, "location")]).toEqual([302, "/hello/again"]);
        await redirect.body.bytes();
        const head = await client.request({ method: "HEAD", path: "/hello/you" });
        expect([head.status, header(head, "content-length"), (await head.body.bytes()).length]).toEqual([
          200,
          "11",
          0,
        ]);
      });

      test("body parsers: JSON, urlencoded, and multipart by multer", async () => {
        await using client = await kind.open(shared.server);
        const json = await client.request({ path: "/json", headers: JSON_TYPE, body: '{"a":[1,2]}' });
        expect([json.status, await json.body.json<unknown>()]).toEqual([201, { a: [1, 2] }]);
        const broken = await client.request({ path: "/json", headers: JSON_TYPE, body: "{" });
        expect(broken.status).toBe(400);
        await broken.body.bytes();
        const pieces = async function* () {
          yield Buffer.from('{"a":');
          yield Buffer.from('"streamed"}');
        };
        const streamed = await client.request({ path: "/json", headers: JSON_TYPE, body: pieces() });
        expect(await streamed.body.json<unknown>()).toEqual({ a: "streamed" });
        const form = await client.request({
          path: "/form",
          headers: { "content-type": "application/x-www-form-urlencoded" },
          body: "a=1&b=%C3%B6",
        });
        expect(await form.body.json<unknown>()).toEqual({ a: "1", b: "ö" });
        const { body, headers, sha256 } = multipart(300_000);
        const upload = await client.request({ path: "/upload", headers, body });
        expect(await upload.body.json<unknown>()).toEqual({
          originalname: "upload.bin",
          size: 300_000,
          sha256,
          text: "a text, öä",
        });
      });

      test("cookies and sessions", async () => {
        await using client = await kind.open(shared.server);
        const first = await client.request({ path: "/cookies" });
        await first.body.bytes();
        const cookies = cookiesOf(first.headers);
        expect(cookies.length).toBe(2);
        const cookie = cookies.map((line) => line.split(";")[0]).join("; ");
        const [, seen] = await get(client, "/cookies", { cookie });
        expect(JSON.parse(seen)).toEqual({ cookies: { plain: "1" }, signed: { signed: "2" } });
        const session = await client.request({ path: "/session" });
        expect(await session.body.json<unknown>()).toEqual({ visits: 1 });
        const [, again] = await get(client, "/session", {
          cookie: cookiesOf(session.headers)[0]?.split(";")[0] ?? "",
        });
        expect(JSON.parse(again)).toEqual({ visits: 2 });
      });

      test("files: express.static, ranges, sendFile, a pipeline", async () => {
        await using client = await kind.open(shared.server);
        const text = readFileSync(fixture("express.ts"), "utf8");
        for (const path of ["/static/express.ts", "/file", "/pipe"]) {
          expect(await get(client, path)).toEqual([200, text]);
        }
        expect(await get(client, "/static/express.ts", { range: "bytes=4-13" })).toEqual([
          206,
          text.slice(4, 14),
        ]);
        expect((await get(client, "/static/..%2f..%2fpackage.json"))[0]).toBe(404);
        expect((await get(client, "/static/none"))[0]).toBe(404);
      });

      test("compression, of a text and of a stream", async () => {
        await using client = await kind.open(shared.server);
        for (const [path, text] of [
          ["/compressed/text", "compressible ".repeat(1_000)],
          ["/compressed/stream", [0, 1, 2].map((i) => `part ${i}\n`.repeat(100)).join("")],
        ] as const) {
          const response = await client.request({ path, headers: { "accept-encoding": "gzip" } });
          const bytes = await response.body.bytes();
          // Quinn's client decodes by itself.
          const isDecoded = kind.name.includes("quinn");
          expect(Buffer.from(isDecoded ? bytes : Bun.gunzipSync(Buffer.from(bytes))).toString()).toBe(text);
          expect(header(response, "vary")).toBe("Accept-Encoding");
        }
      });

      test("server-sent events arrive one by one; a pipe from request to response", async () => {
        await using client = await kind.open(shared.server);
        // Quinn's client asks for compression by itself, and gives what it decodes when it likes.
        const headers = { "accept-encoding": "identity" };
        const events = await client.request({ path: "/events?count=5", headers });
        expect(header(events, "content-type")).toStartWith("text/event-stream");
        let pieces = 0;
        for await (const piece of events.body) pieces += piece.length > 0 ? 1 : 0;
        expect(pieces).toBeGreaterThanOrEqual(3);
        const body = crypto.getRandomValues(Buffer.alloc(60_000));
        const echoed = await client.request({ path: "/echo", body });
        expect(Buffer.compare(await echoed.body.bytes(), body)).toBe(0);
      });
    });
  }

  test("morgan logs each response when it has finished", async () => {
    await using client = (await ALL_CLIENTS[1]?.open(shared.server)) as Client;
    await get(client, "/hello/morgan");
    const line = "seen GET /hello/morgan 200 127.0.0.1 HTTP/2.0";
    await shared.server.prints(line);
  });
});

describe("Hono", () => {
  const shared = sharedServer(() => startCli(fixture("hono.ts"), { flags: { workers: 1 } }));

  for (const kind of ALL_CLIENTS) {
    describe(kind.name, () => {
      test("routes, the connection's facts, middleware, errors without detail", async () => {
        await using client = await kind.open(shared.server);
        expect(await get(client, "/hello/you")).toEqual([200, "Hello, you!"]);
        const [, connection] = await get(client, "/connection");
        expect(JSON.parse(connection)).toEqual({
          address: "127.0.0.1",
          addressType: "IPv4",
          hasPort: true,
          protocol: kind.protocol,
          remoteAddress: "127.0.0.1",
        });
        const api = await client.request({
          path: "/api/json?a=1&a=2",
          headers: { origin: "https://example.com" },
        });
        expect(await api.body.json<unknown>()).toMatchObject({ query: ["1", "2"] });
        expect(header(api, "access-control-allow-origin")).toBe("https://example.com");
        const etag = header(api, "etag") ?? "";
        expect(await get(client, "/api/json?a=1&a=2", { "if-none-match": etag })).toEqual([304, ""]);
        const [status, text] = await get(client, "/throw");
        expect([status, text.includes("secret")]).toEqual([500, false]);
        const redirect = await client.request({ path: "/redirect" });
        expect([redirect.status, header(redirect, "location")]).toEqual([302, "/hello/again"]);
        await redirect.body.bytes();
      });

      test("parseBody: urlencoded, multipart; JSON", async () => {
        await using client = await kind.open(shared.server);
        const json = await client.request({ path: "/json", headers: JSON_TYPE, body: '{"a":1}' });
        expect([json.status, await json.body.json<unknown>()]).toEqual([201, { a: 1 }]);
        const { body, headers, sha256 } = multipart(300_000);
        const upload = await client.request({ path: "/form", headers, body });
        expect(await upload.body.json<unknown>()).toMatchObject({
          text: "a text, öä",
          name: "upload.bin",
          size: 300_000,
          sha256,
        });
      });

      test("cookies, static files, streams, server-sent events", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/cookies", headers: { cookie: "a=1; b=2" } });
        expect(await response.body.json<unknown>()).toEqual({ a: "1", b: "2" });
        expect(cookiesOf(response.headers)).toEqual([
          "first=1; Path=/; HttpOnly; SameSite=Lax",
          "second=2; Path=/",
        ]);
        const text = readFileSync(fixture("hono.ts"), "utf8");
        expect(await get(client, "/static/hono.ts")).toEqual([200, text]);
        expect((await get(client, "/static/..%2f..%2fpackage.json"))[0]).toBe(404);
        const streamed = await client.request({ path: "/stream?count=50" });
        expect((await streamed.body.digest()).length).toBe(50 * 65_536);
        const [, events] = await get(client, "/events");
        expect(events).toBe([0, 1, 2].map((i) => `event: tick\ndata: event ${i}\nid: ${i}\n\n`).join(""));
      });
    });
  }

  test("waitUntil, by executionCtx", async () => {
    await using client = (await ALL_CLIENTS[0]?.open(shared.server)) as Client;
    expect((await get(client, "/later"))[0]).toBe(204);
    await shared.server.prints("done later");
  });
});

describe("Elysia's fetch form", () => {
  const shared = sharedServer(() => startCli(fixture("elysia.ts"), { flags: { workers: 1 } }));

  for (const kind of ALL_CLIENTS) {
    test(`routes, checked bodies, files, cookies, generators, ${kind.name}`, async () => {
      await using client = await kind.open(shared.server);
      expect(await get(client, "/hello/you")).toEqual([200, "Hello, you!"]);
      const [, query] = await get(client, "/query?a=1");
      expect(JSON.parse(query)).toMatchObject({ query: { a: "1" } });
      const sent = { name: "x", list: [1, 2] };
      const json = await client.request({ path: "/json", headers: JSON_TYPE, body: JSON.stringify(sent) });
      expect([json.status, await json.body.json<unknown>()]).toEqual([201, sent]);
      const wrong = await client.request({ path: "/json", headers: JSON_TYPE, body: '{"name":1}' });
      expect(wrong.status).toBe(422);
      await wrong.body.bytes();
      const { body, headers } = multipart(100_000);
      const form = await client.request({ path: "/form", headers, body });
      expect(await form.body.json<unknown>()).toEqual({
        text: "a text, öä",
        size: 100_000,
        name: "upload.bin",
      });
      const cookies = await client.request({ path: "/cookies", headers: { cookie: "first=0" } });
      expect(await cookies.body.json<unknown>()).toEqual({ before: "0" });
      expect(cookiesOf(cookies.headers)[0]).toStartWith("first=1; ");
      expect(await get(client, "/file")).toEqual([200, readFileSync(fixture("elysia.ts"), "utf8")]);
      expect((await get(client, "/generate"))[1]).toContain("part 2;");
      const head = await client.request({ method: "HEAD", path: "/generate" });
      expect([head.status, header(head, "content-length")]).toEqual([200, undefined]);
      expect(await get(client, "/throw")).toEqual([418, "as asked"]);
    });
  }
});
