/** The web-standard form of a handler, `npx tercet serve app.ts`, and what the command line makes of certificates. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import net from "node:net";
import { text } from "node:stream/consumers";
import { type Client, header } from "./support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2 } from "./support/clients.ts";
import { inTime } from "./support/poll.ts";
import { fixture, Scratch, startCli } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

async function get(client: Client, path: string): Promise<[status: number, text: string]> {
  const response = await client.request({ path });
  return [response.status, await response.body.text()];
}

describe("the fetch form", () => {
  const shared = sharedServer(() => startCli(fixture("app.ts"), { flags: { workers: 2 } }));

  for (const kind of ALL_CLIENTS) {
    describe(kind.name, () => {
      test("a Response with status, headers and text", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/hello" });
        expect(response.status).toBe(200);
        expect(header(response, "x-form")).toBe("fetch");
        expect(await response.body.text()).toBe("Hello from fetch!");
      });

      test("the Request: method, URL, headers, text", async () => {
        await using client = await kind.open(shared.server);
        const headers = { "x-sent": "yes" };
        const response = await client.request({
          method: "PATCH",
          path: "/json?x=1",
          headers,
          body: "content",
        });
        const seen = await response.body.json<{ url: string; headers: Record<string, string> }>();
        expect(seen).toMatchObject({ method: "PATCH", text: "content" });
        expect(new URL(seen.url)).toMatchObject({
          protocol: "https:",
          port: String(shared.server.port),
          pathname: "/json",
          search: "?x=1",
        });
        expect(seen.headers["x-sent"]).toBe("yes");
      });

      test("streams both ways", async () => {
        await using client = await kind.open(shared.server);
        const body = crypto.getRandomValues(new Uint8Array(60_000));
        const echoed = await client.request({ path: "/echo", body });
        expect(Buffer.compare(await echoed.body.bytes(), body)).toBe(0);
        const streamed = await client.request({ path: "/stream?bytes=1000000" });
        expect((await streamed.body.digest()).length).toBe(1_000_000);
      });

      test("two cookies stay two fields (RFC 6265 §3)", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/cookies" });
        expect(response.status).toBe(204);
        await response.body.bytes();
        const cookies = response.headers["set-cookie"];
        expect(typeof cookies === "string" ? [cookies] : [...(cookies ?? [])]).toEqual(["a=1", "b=2"]);
      });

      test("an error is a 500 without detail", async () => {
        await using client = await kind.open(shared.server);
        const [status, text] = await get(client, "/throw");
        expect(status).toBe(500);
        expect(text).not.toContain("secret");
      });
    });
  }
});

describe("without TLS", () => {
  test("plain HTTP/1.1, of clients without a host too, and it says that HTTP/3 needs TLS", async () => {
    await using server = await startCli(fixture("app.ts"), {
      flags: { "no-tls": true, cert: false, key: false },
    });
    expect(server.scheme).toBe("http");
    expect(server.protocols).toEqual(["HTTP/1.1"]);
    expect(server.transcript()).toMatch(/HTTP\/3 need/);
    await using client = await HTTP1.open(server);
    const response = await client.request({ path: "/hello" });
    expect(await response.body.text()).toBe("Hello from fetch!");
    expect(header(response, "alt-svc")).toBeUndefined();
    const socket = net.connect(server.port, "127.0.0.1");
    socket.write("GET /json HTTP/1.0\r\n\r\n");
    const withoutHost = await inTime("the answer", 5_000, text(socket));
    expect(withoutHost).toContain(`"url":"http://localhost:${server.port}/json"`);
  });
});

describe("a router with a method of every name, as itty-router's are", () => {
  test("is no handler of another form, and no promise to wait for", async () => {
    const scratch = await Scratch.make();
    const path = scratch.file("router.ts");
    writeFileSync(
      path,
      `const fetch = (request) => new Response("routed " + new URL(request.url).pathname);
      export default new Proxy({ fetch }, { get: (target, name) => target[name] ?? (() => target) });\n`,
    );
    await using server = await startCli(path, { scratch });
    await using client = await HTTP1.open(server);
    const response = await client.request({ path: "/a" });
    expect([response.status, await response.body.text()]).toEqual([200, "routed /a"]);
  });
});

describe("without HTTP/3", () => {
  test("--http3 off leaves the two protocols of TCP, and no Alt-Svc", async () => {
    await using server = await startCli(fixture("app.ts"), { flags: { http3: "off", host: "0.0.0.0" } });
    // By a name that its own certificate has.
    expect(server.stdout).toStartWith(
      `tercet: ready on https://localhost:${server.port} (HTTP/1.1, HTTP/2)\n`,
    );
    expect(server.protocols).toEqual(["HTTP/1.1", "HTTP/2"]);
    await using client = await HTTP2.open(server);
    const response = await client.request({ path: "/hello" });
    expect(await response.body.text()).toBe("Hello from fetch!");
    expect(header(response, "alt-svc")).toBeUndefined();
  });
});

describe("without a certificate", () => {
  test("a self-signed one for localhost is made, kept and said", async () => {
    await using server = await startCli(fixture("app.ts"), { flags: { cert: false, key: false } });
    const [, path = ""] = /self-signed.* kept in (\S+)/.exec(server.transcript()) ?? [];
    expect(path).toStartWith(server.scratch.path);
    for (const kind of ALL_CLIENTS) {
      await using client = await kind.open(server);
      expect(await get(client, "/hello")).toEqual([200, "Hello from fetch!"]);
    }
    await using again = await startCli(fixture("app.ts"), {
      flags: { cert: false, key: false },
      env: { XDG_CACHE_HOME: server.scratch.file("cache") },
    });
    expect(again.transcript()).toContain(path);
    expect(readFileSync(path, "latin1")).toContain("BEGIN CERTIFICATE");
    expect(statSync(path).mode & 0o077).toBe(0);
  });
});
