/** The interface of a handler, as a user writes it, over every protocol and by every client. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Client, header } from "./support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2, QUICHE } from "./support/clients.ts";
import { DeadlineError, inTime, until } from "./support/poll.ts";
import { runFixture, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { readStats, untilIdle } from "./support/stats.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const SERVER_FIELDS = {
  request_method: "GET",
  request_uri: "/server",
  path_info: "/server",
  query_string: "a=1&b=%20two",
  remote_addr: "127.0.0.1",
};

interface SeenRequest {
  readonly method: string;
  readonly pathname: string;
  readonly server: Readonly<Record<string, string | number>>;
  readonly header: Readonly<Record<string, string>>;
  readonly hasBody: boolean;
}

async function get(client: Client, path: string): Promise<[status: number, text: string]> {
  const response = await client.request({ path });
  return [response.status, await response.body.text()];
}

describe("the code form", () => {
  const shared = sharedServer(() => startFixture("server.ts"));

  test("the ready line names all three protocols", () => {
    expect(shared.server.scheme).toBe("https");
    expect(shared.server.protocols).toEqual(["HTTP/1.1", "HTTP/2", "HTTP/3"]);
  });

  for (const kind of ALL_CLIENTS) {
    describe(kind.name, () => {
      test("status, headers and body of a response", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/hello" });
        expect(response.status).toBe(200);
        expect(header(response, "content-type")).toBe("text/plain");
        const text = await response.body.text();
        expect(text).toBe(`Hello from ${kind.protocol}!`);
        expect(header(response, "content-length")).toBe(String(text.length));
      });

      test("request.method, pathname, server and header", async () => {
        await using client = await kind.open(shared.server);
        const before = Date.now() / 1_000;
        const response = await client.request({
          path: "/server?a=1&b=%20two",
          headers: { "user-agent": "a test", "X-Mixed-Case": "Value" },
        });
        const seen = await response.body.json<SeenRequest>();
        expect(seen.server).toMatchObject({
          ...SERVER_FIELDS,
          server_protocol: kind.protocol,
          server_port: shared.server.port,
        });
        expect([seen.method, seen.pathname]).toEqual(["GET", "/server"]);
        expect(seen.server.remote_port).toBeGreaterThan(0);
        const { request_time: whole, request_time_float: exact } = seen.server;
        expect(exact).toBeGreaterThanOrEqual(before - 1);
        expect(exact).toBeLessThanOrEqual(Date.now() / 1_000 + 1);
        expect(whole).toBe(Math.floor(Number(exact)));
        expect(seen.header["user-agent"]).toBe("a test");
        expect(seen.header["x-mixed-case"]).toBe("Value");
        expect(seen.header.host).toMatch(new RegExp(`:${shared.server.port}$`));
        expect(seen.hasBody).toBe(false);
      });

      test("the path reaches the handler as it was sent", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/server?q=%41/../b;c=d" });
        const seen = await response.body.json<SeenRequest>();
        expect(seen.server.query_string).toBe("q=%41/../b;c=d");
      });

      test("rawContent() is the whole body", async () => {
        await using client = await kind.open(shared.server);
        const body = crypto.getRandomValues(new Uint8Array(50_000));
        const response = await client.request({ path: "/raw", body });
        const sha256 = new Bun.CryptoHasher("sha256").update(body).digest("hex");
        expect(await response.body.json<unknown>()).toEqual({ length: body.length, sha256 });
      });

      test("rawContent() of a request without a body is empty", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/raw" });
        expect(await response.body.json<unknown>()).toMatchObject({ length: 0 });
      });

      test("request.body is a stream: what came first is answered before the rest is sent", async () => {
        await using client = await kind.open(shared.server);
        const rest = Promise.withResolvers<void>();
        const pieces = async function* () {
          yield Buffer.from("first");
          await rest.promise;
          yield Buffer.from(", then the rest");
        };
        const response = await client.request({ method: "PUT", path: "/echo", body: pieces() });
        const first = await response.body.read();
        expect(new TextDecoder().decode(first ?? undefined)).toBe("first");
        rest.resolve();
        expect(await response.body.text()).toBe(", then the rest");
      });

      test("writes in order, with a last piece in end()", async () => {
        await using client = await kind.open(shared.server);
        const [status, text] = await get(client, "/writes?count=500");
        expect(status).toBe(200);
        const lines = Array.from({ length: 500 }, (_, i) => `piece ${i}\n`);
        expect(text).toBe(`${lines.join("")}the end\n`);
      });

      test("a response that trickles arrives as it is written", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/trickle?count=5&every=60" });
        expect(header(response, "content-type")).toBe("text/event-stream");
        const first = await response.body.read();
        expect(new TextDecoder().decode(first ?? undefined)).toBe("data: 0\n\n");
        expect(await response.body.text()).toBe("data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n");
      });

      test("other statuses", async () => {
        await using client = await kind.open(shared.server);
        for (const code of [201, 302, 404, 418, 503]) {
          expect(await get(client, `/status?code=${code}`)).toEqual([code, ""]);
        }
      });

      test("HEAD: the fields of GET and no body (RFC 9110 §9.3.2)", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ method: "HEAD", path: "/hello" });
        expect(response.status).toBe(200);
        expect(header(response, "content-type")).toBe("text/plain");
        expect((await response.body.bytes()).length).toBe(0);
        expect((await get(client, "/hello"))[1]).toBe(`Hello from ${kind.protocol}!`);
      });

      test("204 and 304 have no body and no content-length of one (RFC 9110 §8.6, §15.3.5)", async () => {
        await using client = await kind.open(shared.server);
        for (const code of [204, 304]) {
          const response = await client.request({ path: `/status?code=${code}` });
          expect(response.status).toBe(code);
          expect((await response.body.bytes()).length).toBe(0);
          expect(header(response, "content-length") ?? "absent").not.toMatch(/^[1-9]/);
        }
        expect((await get(client, "/hello"))[0]).toBe(200);
      });

      test("a hundred request fields, and a value of 20 KiB", async () => {
        await using client = await kind.open(shared.server);
        const many = Object.fromEntries(
          Array.from({ length: 100 }, (_, i) => [`x-field-${i}`, `value ${i}`]),
        );
        const response = await client.request({ path: "/server", headers: many });
        expect((await response.body.json<SeenRequest>()).header).toMatchObject(many);
        const long = await client.request({ path: "/server", headers: { "x-long": "l".repeat(20_480) } });
        expect((await long.body.json<SeenRequest>()).header["x-long"]).toBe("l".repeat(20_480));
      });

      test("a response header section of 100 KiB", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/fields?count=10&bytes=10240" });
        expect(response.status).toBe(200);
        for (let i = 0; i < 10; i++) expect(header(response, `x-field-${i}`)).toBe("v".repeat(10_240));
        expect(await response.body.text()).toBe("fields");
      });

      test("a response field of 100 KiB arrives whole or fails, but is not left open", async () => {
        await using client = await kind.open(shared.server);
        const ask = async () => {
          const response = await client.request({ path: "/fields?count=1&bytes=102400" });
          await response.body.bytes();
          return response;
        };
        const response = await inTime("the end", 5_000, ask()).catch((error: Error) => error);
        expect(response).not.toBeInstanceOf(DeadlineError);
        if (!(response instanceof Error)) {
          expect([200, 500]).toContain(response.status);
          if (response.status === 200) expect(header(response, "x-field-0")).toHaveLength(102_400);
        }
        await using other = await kind.open(shared.server);
        await untilIdle(other);
      });

      test("Alt-Svc names HTTP/3 on TCP, and only there (RFC 7838 §3)", async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/hello" });
        await response.body.text();
        const altSvc = header(response, "alt-svc");
        if (kind.protocol === "HTTP/3") expect(altSvc).toBeUndefined();
        else expect(altSvc).toMatch(new RegExp(`^h3=":${shared.server.port}"; ma=\\d+$`));
      });

      test("fifty requests at once", async () => {
        await using client = await kind.open(shared.server);
        const answers = await Promise.all(
          Array.from({ length: 50 }, (_, i) => client.request({ path: "/echo", body: `request ${i}` })),
        );
        const texts = await Promise.all(answers.map((answer) => answer.body.text()));
        expect(texts).toEqual(Array.from({ length: 50 }, (_, i) => `request ${i}`));
      });

      test("request.signal aborts when the client leaves", async () => {
        await using client = await kind.open(shared.server);
        const aborted = async () => {
          const response = await client.request({ path: "/aborted" });
          return (await response.body.json<{ aborted: number }>()).aborted;
        };
        const before = await aborted();
        const leave = new AbortController();
        const response = await client.request({ path: "/begin", signal: leave.signal });
        await response.body.read();
        leave.abort();
        await until("the abort to be told", 5_000, async () => (await aborted()) === before + 1);
      });
    });
  }

  test("HTTP/3 and HTTP/1.1 are counted apart in server.stats()", async () => {
    await using quiche = await QUICHE.open(shared.server);
    await using plain = await HTTP1.open(shared.server);
    const before = await readStats(plain);
    for (let i = 0; i < 5; i++) await get(quiche, "/hello");
    const after = await readStats(plain);
    const completed = (protocol: "HTTP/1.1" | "HTTP/3") =>
      (after.reactors[0]?.protocols[protocol]?.completed ?? 0) -
      (before.reactors[0]?.protocols[protocol]?.completed ?? 0);
    expect(completed("HTTP/3")).toBe(5);
    expect(completed("HTTP/1.1")).toBe(1);
    expect(after.pid).toBe(shared.server.pid);
    expect(after.inFlight).toBe(1);
    const [listed] = after.reactors[0]?.exchanges ?? [];
    expect(listed).toMatchObject({
      protocol: "HTTP/1.1",
      method: "GET",
      path: "/stats",
      state: "dispatched",
    });
    expect(listed?.name).toMatch(/^\S+:\S+$/);
  });
});

describe("the script of the description", () => {
  const shared = sharedServer(() => startFixture("issue.ts"));

  for (const kind of ALL_CLIENTS) {
    test(kind.name, async () => {
      await using client = await kind.open(shared.server);
      const headers = { "user-agent": "newcomer" };
      const response = await client.request({ path: "/any", headers, body: "twelve bytes" });
      expect(response.status).toBe(200);
      expect(header(response, "content-type")).toBe("text/plain");
      expect(JSON.parse(header(response, "x-seen") ?? "null")).toEqual({
        protocol: kind.protocol,
        method: "POST",
        agent: "newcomer",
        length: 12,
      });
      expect(await response.body.text()).toBe("Hello from HTTP/3!");
    });
  }
});

describe("events", () => {
  test("start and shutdown in the manager; workerStart, request and workerStop in each worker", async () => {
    await using server = await startFixture("events.ts", { options: { workers: 2 } });
    const told = (event: string) =>
      [...server.stdout.matchAll(new RegExp(`^event ${event} in (\\d+)$`, "gm"))].map(([, pid]) =>
        Number(pid),
      );
    await until(
      "the start events",
      5_000,
      () => told("start").length === 1 && told("workerStart").length === 2,
    );
    await server.prints(`started on ${server.port}\n`);
    expect(told("start")).toEqual([server.pid]);
    const workers = told("workerStart");
    expect(new Set(workers).size).toBe(2);
    expect(workers).not.toContain(server.pid);

    await using client = await HTTP2.open(server);
    expect(await get(client, "/")).toEqual([200, "heard"]);
    await until("the request event", 5_000, () => told("request").length === 1);
    expect(workers).toContain(told("request")[0] ?? 0);
    await client.close();

    await server.stop();
    expect(told("workerStop").sort()).toEqual(workers.sort());
    expect(told("shutdown")).toEqual([server.pid]);
  });
});

test("a script without a handler does not start", async () => {
  await using program = await runFixture("no-request-listener.ts");
  expect(await program.ended()).toBe(1);
  expect(program.transcript()).toContain("handler");
});
