/** What a `fetch` handler is given and may return, over every protocol; and the work that it leaves behind. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { type Client, header } from "./support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2, QUICHE, SLOW_CLIENTS } from "./support/clients.ts";
import { bothWays } from "./support/paced.ts";
import { inTime, until } from "./support/poll.ts";
import { growthDuring } from "./support/processes.ts";
import { ENGINE, fixture, runCli, startCli, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { expectCutShort } from "./support/short.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const MIB = 1_048_576;
const UPSTREAM = "from upstream ".repeat(100);

async function get(client: Client, path: string): Promise<[status: number, text: string]> {
  const response = await client.request({ path });
  return [response.status, await response.body.text()];
}

describe("the fetch form", () => {
  const shared = sharedServer(() =>
    startCli(fixture("fetch.ts"), { flags: { "max-body-bytes": 512 * MIB } }),
  );

  for (const kind of ALL_CLIENTS) {
    describe(kind.name, () => {
      test("fetch is called on its object, with the facts of the connection", async () => {
        await using client = await kind.open(shared.server);
        expect(await get(client, "/this")).toEqual([200, "Hello from this!"]);
        expect(JSON.parse((await get(client, "/env"))[1])).toEqual({
          protocol: kind.protocol,
          remoteAddress: "127.0.0.1",
          same: true,
          ip: { address: "127.0.0.1", family: "IPv4", port: 0 },
        });
      });

      test("a response of fetch() goes on: its headers speak of the body as it is now", async () => {
        await using client = await kind.open(shared.server);
        for (const path of ["/proxy", "/proxy-again"]) {
          for (const coding of ["", "gzip", "br"]) {
            const response = await client.request({ path: `${path}?coding=${coding}` });
            expect(header(response, "content-encoding")).toBeUndefined();
            const length = header(response, "content-length");
            expect(await response.body.text()).toBe(UPSTREAM);
            expect([undefined, String(UPSTREAM.length)]).toContain(length as string);
            expect([response.headers["set-cookie"] ?? []].flat()).toEqual(["a=1", "b=2"]);
          }
        }
      });

      test("redirect, json, statuses without a body, a clone, and what another realm calls a Response", async () => {
        await using client = await kind.open(shared.server);
        const redirect = await client.request({ path: "/redirect" });
        expect([redirect.status, header(redirect, "location")]).toEqual([303, "/this"]);
        await redirect.body.bytes();
        const json = await client.request({ path: "/json" });
        expect([json.status, header(json, "x-a"), await json.body.text()]).toEqual([201, "1", '{"a":1}']);
        for (const status of [200, 204, 205, 304])
          expect(await get(client, `/null?status=${status}`)).toEqual([status, ""]);
        // HTTP/1.1 frames it like any other.
        const reset = await client.request({ path: "/null?status=205" });
        await reset.body.bytes();
        const length = kind.protocol === "HTTP/1.1" ? "0" : undefined;
        expect(header(reset, "content-length")).toBe(length);
        expect(await get(client, "/clone")).toEqual([200, "cloned"]);
        const foreign = await client.request({ path: "/foreign" });
        expect([foreign.status, header(foreign, "x-foreign")]).toEqual([203, "1"]);
        expect(await foreign.body.text()).toBe("foreign");
      });

      test("a Request and a Response are called so, as frameworks that look at the name expect", async () => {
        await using client = await kind.open(shared.server);
        const [status, names] = await get(client, "/names");
        expect([status, JSON.parse(names)]).toEqual([
          200,
          ["Request", "Request", "Response", "Response", "Response"],
        ]);
      });

      test("what fetch() gave is a Response, and neither that nor a plain one is of an application's own class", async () => {
        await using client = await kind.open(shared.server);
        const [, classes] = await get(client, "/classes");
        expect(JSON.parse(classes)).toEqual([
          [true, true],
          [true, false],
          [true, false],
        ]);
      });

      test("a request's blob is of the request's type, and a clone's too", async () => {
        await using client = await kind.open(shared.server);
        const types = async (headers: Record<string, string>, body: string) =>
          (await client.request({ method: "POST", path: "/blob-of-request", headers, body })).body.json();
        const type = "multipart/form-data; boundary=In-No-Case-But-This";
        for (const body of ["a body", "long ".repeat(20_000)])
          expect(await types({ "content-type": type }, body)).toEqual([type, type]);
        expect(await types({}, "a body")).toEqual(["", ""]);
      });

      test("a clone of the request has the same body, and aborts with it", async () => {
        await using client = await kind.open(shared.server);
        const aborted = async () => (await client.request({ path: "/aborted" })).body.json<number>();
        const before = await aborted();
        const leaver = await kind.open(shared.server);
        const { body } = await leaver.request({ method: "POST", path: "/clones", body: "twice" });
        expect(Buffer.from((await body.read()) ?? []).toString()).toBe("twice twice");
        body.cancel();
        await leaver.close();
        await until("the clones to abort", 5_000, async () => (await aborted()) === before + 2);
      });

      test("a text is plain text, where nothing else is said, and in a clone too", async () => {
        await using client = await kind.open(shared.server);
        for (const [path, type] of [
          ["/this", "text/plain;charset=UTF-8"],
          ["/clone", "text/plain;charset=UTF-8"],
          ["/json", "application/json;charset=utf-8"],
          ["/null?status=200", undefined],
        ] as const) {
          const response = await client.request({ path });
          await response.body.bytes();
          expect([path, header(response, "content-type")]).toEqual([path, type]);
        }
      });

      test("bodies: files, blobs, generators, search parameters", async () => {
        await using client = await kind.open(shared.server);
        expect(await get(client, "/file")).toEqual([200, readFileSync(fixture("fetch.ts"), "utf8")]);
        const blob = await client.request({ path: "/blob" });
        expect(header(blob, "content-type")).toBe("text/x-blob");
        if (kind.protocol !== "HTTP/3") expect(header(blob, "content-length")).toBe("6");
        expect(await blob.body.text()).toBe("a blob");
        expect(await get(client, "/generator")).toEqual([200, "one two three"]);
        const form = await client.request({ path: "/search-params" });
        expect(header(form, "content-type")).toStartWith("application/x-www-form-urlencoded");
        expect(await form.body.text()).toBe("a=1&b=%C3%B6");
      });

      test("one range of a file or blob, as Bun's own server sends it (RFC 9110 §14.2)", async () => {
        await using client = await kind.open(shared.server);
        const text = readFileSync(fixture("fetch.ts"), "utf8");
        const { size } = Bun.file(fixture("fetch.ts"));
        for (const [path, range, status, contentRange, body] of [
          ["/file", "bytes=3-9", 206, `bytes 3-9/${size}`, text.slice(3, 10)],
          ["/file", `bytes=${size}-`, 416, `bytes */${size}`, ""],
          ["/file", "bytes=0-1,1000-1001", 200, undefined, text],
          ["/blob", "bytes=-4", 206, "bytes 2-5/6", "blob"],
          ["/blob?etag=%22a%22", "bytes=-4", 206, "bytes 2-5/6", "blob"],
          ["/blob?etag=%22b%22", "bytes=-4", 200, undefined, "a blob"],
          ["/blob?status=203", "bytes=-4", 203, undefined, "a blob"],
          ["/no-file", "bytes=0-1", 500, undefined, "500 Internal Server Error\n"],
        ] as const) {
          const response = await client.request({ path, headers: { range, "if-range": '"a"' } });
          expect([path, response.status, header(response, "content-range")]).toEqual([
            path,
            status,
            contentRange,
          ]);
          expect(await response.body.text()).toBe(body);
        }
        const head = await client.request({ method: "HEAD", path: "/blob", headers: { range: "bytes=-4" } });
        expect([head.status, await head.body.text()]).toEqual([200, ""]);
      });

      test("a response that is made of another's body is sent as that one would be", async () => {
        await using client = await kind.open(shared.server);
        for (const of of ["text", "bytes", "blob"]) {
          const response = await client.request({ path: `/remade?of=${of}` });
          // The native engine drops it from what streams, as a blob does.
          if (of !== "blob" || kind.protocol !== "HTTP/3" || ENGINE === "quic")
            expect([of, header(response, "content-length")]).toEqual([of, String(`remade ${of}`.length)]);
          expect(header(response, "x-a")).toBe("1");
          expect(await response.body.text()).toBe(`remade ${of}`);
        }
        expect(await get(client, "/remade?of=clone")).toEqual([200, "remade clone"]);
        expect((await get(client, "/remade?of=no-file"))[0]).toBe(500);
        expect((await get(client, "/remade-and-read"))[0]).toBe(500);
      });

      test("HEAD of a file that cannot be read is the 500 that GET is (RFC 9110 §9.3.2)", async () => {
        await using client = await kind.open(shared.server);
        for (const [path, status] of [
          ["/no-file", 500],
          ["/file", 200],
          ["/blob", 200],
        ] as const) {
          const response = await client.request({ method: "HEAD", path });
          expect([path, response.status, await response.body.text()]).toEqual([path, status, ""]);
        }
      });

      test("bytes of any kind are sent as they were when the Response was made, with their length", async () => {
        await using client = await kind.open(shared.server);
        for (const of of ["array", "buffer", "array buffer", "data view", "words"]) {
          for (const length of [10, 1_000_000]) {
            const response = await client.request({
              path: `/bytes?length=${length}&of=${of.replace(" ", "%20")}`,
            });
            // The native engine drops it from what streams.
            if (length === 10) expect([of, header(response, "content-length")]).toEqual([of, "10"]);
            expect(await response.body.text()).toBe("A".repeat(length));
          }
        }
      });

      test("what is no Response, or cannot be sent, is a 500 without detail, and is told in the log", async () => {
        await using client = await kind.open(shared.server);
        for (const path of [
          "/error",
          "/used",
          "/locked",
          "/nothing",
          "/number",
          "/control",
          "/undefined-json",
          "/no-file",
        ]) {
          const [status, text] = await get(client, path);
          expect([path, status]).toEqual([path, 500]);
          expect(text).toBe("500 Internal Server Error\n");
          const line = new RegExp(`error in GET ${path} \\S+: `);
          await until(`${line}`, 5_000, () => line.test(shared.server.stderr));
        }
        expect(shared.server.stderr).not.toMatch(/fetch returned .*\n +at /);
      });

      test("a text that is not as long as its content-length is a 500, and no status has one that may not", async () => {
        await using client = await kind.open(shared.server);
        for (const query of [
          "text=hello&length=100",
          "text=hello&length=2",
          "length=7",
          "text=hello&length=five",
        ])
          expect((await get(client, `/length?${query}`))[0]).toBe(500);
        await shared.server.logs("the response's body has 5 bytes, and its content-length says 100");
        await shared.server.logs('the response\'s content-length is "five", not a number of bytes');
        expect(await get(client, "/length?text=hello&length=5")).toEqual([200, "hello"]);
        const empty = await client.request({ path: "/length?status=204&length=5" });
        expect([empty.status, header(empty, "content-length")]).toEqual([204, undefined]);
        expect(await empty.body.text()).toBe("");
        const head = await client.request({ method: "HEAD", path: "/length?length=7" });
        expect([head.status, header(head, "content-length")]).toEqual([200, "7"]);
        await head.body.bytes();
      });

      test("204 and 205 have no body, whatever the Response was made of, and no length but 0 (RFC 9110 §8.6, §15.3.6)", async () => {
        await using client = await kind.open(shared.server);
        for (const status of [204, 205]) {
          for (const body of [0, 1, 2, 3]) {
            const response = await client.request({ path: `/bodiless?status=${status}&body=${body}` });
            expect(response.status).toBe(status);
            expect(await inTime("the end of the body", 5_000, response.body.text())).toBe("");
            const lengths = status === 204 ? [undefined] : [undefined, "0"];
            expect(lengths).toContain(header(response, "content-length"));
          }
        }
        expect((await get(client, "/this"))[0]).toBe(200);
      });

      test("a stream that is not as long as its content-length is cut short, and is cancelled", async () => {
        await using client = await kind.open(shared.server);
        expect(await get(client, "/length-of-stream?length=15")).toEqual([200, "01234".repeat(3)]);
        // What its first piece tells is told in time.
        expect((await get(client, "/length-of-stream?length=4"))[0]).toBe(500);
        for (const length of [14, 16]) {
          const response = await client.request({ path: `/length-of-stream?length=${length}` });
          await expectCutShort(kind.protocol, response.body, () => {});
        }
        for (const path of ["/length-of-stream?length=9", "/number-in-stream?number=5"]) {
          const mark = `${path}&by=${encodeURIComponent(kind.name)}`;
          const response = await client.request({ path: mark });
          await expectCutShort(kind.protocol, response.body, () => {});
          expect(await get(client, `/cancelled?${mark.split("?")[1]}`)).toEqual([200, "true"]);
        }
      });

      test("who writes to a stream whose client has left is told so by an error", async () => {
        await using client = await kind.open(shared.server);
        const before = shared.server.stdout.length;
        const { body } = await client.request({ path: "/transform" });
        await body.read();
        body.cancel();
        const told = "the writer's error: AbortError: the client has gone";
        await until(told, 5_000, () => shared.server.stdout.slice(before).includes(told));
      });

      test("a stream that fails ends the response short", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/fails-later" });
        expect(response.status).toBe(200);
        await expectCutShort(kind.protocol, response.body, () => {});
        await shared.server.logs("a secret of the stream");
        // Native HTTP/3 has not sent the head yet, which it does with the first of the body.
        const atOnce = await get(client, "/fails-at-once").catch(() => [0]);
        expect(atOnce[0]).toBe(kind.protocol === "HTTP/3" && ENGINE === "native" ? 500 : 0);
      });
    });
  }

  // The parser of HTTP/1.1 refuses it, the native HTTP/3 engine says GET itself, and quinn's client sends none such.
  for (const kind of ENGINE === "quic" ? [HTTP2, QUICHE] : [HTTP2]) {
    test(`a method that Bun has not is 501, and no GET to the handler (RFC 9110 §9.1), ${kind.name}`, async () => {
      await using client = await kind.open(shared.server);
      for (const method of ["BREW", "get"]) {
        const response = await client.request({ method, path: "/this" });
        expect([method, response.status, await response.body.text()]).toEqual([method, 501, ""]);
      }
    });
  }

  for (const kind of SLOW_CLIENTS) {
    test(`64 MiB each way at 80 MB/s leave the memory flat, ${kind.name}`, async () => {
      const size = 64 * MIB;
      await using client = await kind.open(shared.server);
      const pid = Number((await get(client, "/rss"))[1]);
      // A worker that has moved nothing yet has neither loaded nor compiled what does.
      expect(await bothWays(client, 8 * MIB, 80_000_000)).toEqual({ length: 8 * MIB });
      const grown = await growthDuring(pid, async () => {
        expect(await bothWays(client, size, 80_000_000)).toEqual({ length: size });
      });
      expect(grown).toBeLessThan(32 * MIB);
    });
  }

  test("what waitUntil's promise rejects with is in the log, with the exchange's name", async () => {
    await using client = await HTTP1.open(shared.server);
    expect((await get(client, "/wait-until-rejects"))[0]).toBe(200);
    const line = /error in waitUntil of GET \/wait-until-rejects \d+:\d+: .*a failure in the background/;
    await shared.server.logs(line);
    expect((await get(client, "/this"))[0]).toBe(200);
  });
});

describe("at shutdown", () => {
  const forms = {
    "the fetch form": () => startCli(fixture("fetch.ts"), { flags: { "shutdown-timeout": 3_000 } }),
    "the event form": () => startFixture("wait-until.ts", { options: { shutdownTimeout: 3_000 } }),
  };
  for (const [form, start] of Object.entries(forms)) {
    test(`waitUntil's promise is waited for, in ${form}`, async () => {
      await using server = await start();
      const client = await HTTP1.open(server);
      const file = server.scratch.file("work");
      expect(await get(client, `/wait-until?ms=1000&file=${file}`)).toEqual([202, "accepted"]);
      await client.close();
      expect(existsSync(file)).toBe(false);
      await server.stop();
      expect(readFileSync(file, "utf8")).toBe("done");
      expect(server.stderr).not.toContain("given up");
    });
  }

  test("a promise that never settles is waited for no longer than shutdownTimeout", async () => {
    await using server = await startCli(fixture("fetch.ts"), { flags: { "shutdown-timeout": 1_500 } });
    const client = await HTTP1.open(server);
    expect((await get(client, "/wait-until-never"))[0]).toBe(200);
    await client.close();
    const began = performance.now();
    await server.stop();
    const took = performance.now() - began;
    expect(took).toBeGreaterThan(1_200);
    expect(took).toBeLessThan(4_000);
    await server.logs("given up at shutdown: 1 promises of waitUntil");
  });
});

test("a (req, res) function that is exported as it is: the command line says what to do", async () => {
  await using program = await runCli(fixture("unwrapped.ts"));
  expect(await program.ended()).toBe(1);
  expect(program.stderr).toMatch(/unwrapped\.ts has no handler: .*nodeHandler/);
});
