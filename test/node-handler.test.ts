/** `tercet/node`: what a handler written for `node:http` finds, over every protocol. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import http2 from "node:http2";
import { type Client, header } from "./support/client.ts";
import { ALL_CLIENTS, HTTP2, QUINN, RESETTING_CLIENTS, SLOW_CLIENTS } from "./support/clients.ts";
import { request } from "./support/http3-frames.ts";
import { bothWays } from "./support/paced.ts";
import { inTime, until } from "./support/poll.ts";
import { growthDuring } from "./support/processes.ts";
import { RawConnection } from "./support/raw-connection.ts";
import { RawHttp2 } from "./support/raw-http2.ts";
import { ENGINE, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { expectCutShort } from "./support/short.ts";
import { readStats, untilIdle } from "./support/stats.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const MIB = 1_048_576;
const VERSIONS = { "HTTP/1.1": "1.1", "HTTP/2": "2.0", "HTTP/3": "3.0" } as const;

async function get(client: Client, path: string): Promise<[status: number, text: string]> {
  const response = await client.request({ path });
  return [response.status, await response.body.text()];
}

/**
 * What a request was answered before all of its body was sent, of which the rest goes behind the answer: a client of QUIC
 * that is told to stop while it sends may discard the answer, or end its connection.
 */
async function answeredEarly(client: Client, path: string): Promise<[status: number, text: string]> {
  const answered = Promise.withResolvers<void>();
  const body = async function* () {
    yield Buffer.alloc(20_000);
    await answered.promise;
    yield Buffer.alloc(20_000);
  };
  const response = await client.request({ path, body: body() });
  const text = await response.body.text();
  answered.resolve();
  return [response.status, text];
}

/** The lines that a handler has recorded, when there are so many. */
function recorded(file: string, count: number): Promise<string[]> {
  return until(`${count} events`, 5_000, () => {
    const lines = existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : [];
    if (lines.length < count) throw new Error(`recorded: ${lines.join(", ")}`);
    return lines;
  });
}

const shared = sharedServer(() => startFixture("node.ts", { options: { maxBodyBytes: 512 * MIB } }));

for (const kind of ALL_CLIENTS) {
  describe(kind.name, () => {
    test("the request's facts, and what its types promise", async () => {
      await using client = await kind.open(shared.server);
      const request = { path: "/facts?a=1", headers: { "x-sent": "yes", cookie: "a=1; b=2" } };
      const response = await client.request(request);
      const version = VERSIONS[kind.protocol];
      const seen = await response.body.json<Record<string, Record<string, unknown>>>();
      expect(seen).toMatchObject({
        isRequest: true,
        isResponse: true,
        method: "GET",
        url: "/facts?a=1",
        httpVersion: version,
        versions: version.split(".").map(Number),
        headers: { "x-sent": "yes", cookie: "a=1; b=2" },
        distinct: { "x-sent": ["yes"] },
        hasRawHeaders: true,
        remoteAddress: "127.0.0.1",
        remoteFamily: "IPv4",
        hasRemotePort: true,
        localPort: shared.server.port,
        encrypted: true,
        certificate: [false, {}],
        upgrade: false,
        sameSocket: true,
        states: [false, false, false, false, true],
      });
      expect(seen.headers?.host).toEndWith(`:${shared.server.port}`);
      expect(seen.headers).not.toHaveProperty("transfer-encoding");
    });

    test("a body without a length has transfer-encoding, by which handlers know that there is one", async () => {
      await using client = await kind.open(shared.server);
      const body = (async function* () {
        yield Buffer.from("content");
      })();
      // Not "/facts": quinn may discard an answer that came before it had sent the end of its request.
      const response = await client.request({ path: "/facts-after-body", body, method: "PUT" });
      const { headers } = await response.body.json<{ headers: Record<string, string> }>();
      expect(headers["transfer-encoding"]).toBe("chunked");
    });

    test("a request without a body has none of its fields, whatever its method", async () => {
      await using client = await kind.open(shared.server);
      for (const method of ["DELETE", "OPTIONS", "POST"]) {
        const response = await client.request({ path: "/facts", method });
        const { headers } = await response.body.json<{ headers: Record<string, string> }>();
        // quinn's end comes behind the head, in a packet of its own: by then the native engine's handler may have been called.
        if (kind !== QUINN || ENGINE === "quic") expect(headers).not.toHaveProperty("transfer-encoding");
      }
    });

    test("echoes, by pipeline and by events", async () => {
      await using client = await kind.open(shared.server);
      for (const path of ["/echo", "/echo-events"]) {
        for (const size of [0, 10, 100_000, 8 * MIB]) {
          const body = crypto.getRandomValues(Buffer.alloc(65_536));
          const pieces = async function* () {
            for (let left = size; left > 0; left -= body.length)
              yield body.subarray(0, Math.min(left, body.length));
          };
          const hasher = new Bun.CryptoHasher("sha256");
          for await (const piece of pieces()) hasher.update(piece);
          const echoed = await client.request({ path, body: pieces() });
          expect(await echoed.body.digest()).toEqual({ length: size, sha256: hasher.digest("hex") });
        }
      }
    });

    test("header fields: numbers, lists, removed ones, a name as a value, cookies, a status message; late ones are refused", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/headers" });
      expect(response.status).toBe(201);
      expect(header(response, "x-number")).toBe("5");
      expect(header(response, "x-list")).toBe("one, two, three");
      expect(header(response, "x-gone")).toBeUndefined();
      expect(header(response, "access-control-expose-headers")).toBe("content-length");
      expect([response.headers["set-cookie"]].flat()).toEqual(["a=1", "b=2"]);
      expect(JSON.parse(header(response, "x-seen") ?? "")).toEqual({
        names: ["x-number", "set-cookie", "x-list", "access-control-expose-headers", "connection"],
        cookie: ["a=1", "b=2"],
        has: true,
      });
      expect(await response.body.json<unknown>()).toEqual({
        late: Array(4).fill("ERR_HTTP_HEADERS_SENT"),
        headersSent: true,
        statusMessage: "Made",
      });
    });

    test("a status that is a text", async () => {
      await using client = await kind.open(shared.server);
      expect(await get(client, "/status-text")).toEqual([404, "none"]);
    });

    test("writeHead with headers behind a status message that is undefined", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/no-status-message" });
      expect([response.status, header(response, "x-one")]).toEqual([203, "1"]);
      expect(await response.body.text()).toBe("203");
    });

    test("writeHead with a flat list", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/flat" });
      expect(header(response, "x-many")).toBe("2, 3");
      expect(header(response, "content-length")).toBe("4");
      expect(await response.body.text()).toBe("flat");
    });

    test("a web Response made of a text has its content-type", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/web-response" });
      expect(header(response, "content-type")).toBe("text/plain;charset=UTF-8");
      expect(await response.body.text()).toBe("a text");
    });

    test("what node:http refuses is refused by the same codes", async () => {
      await using client = await kind.open(shared.server);
      const [, text] = await get(client, "/refused");
      expect(JSON.parse(text)).toEqual([
        "ERR_INVALID_HTTP_TOKEN",
        "ERR_INVALID_CHAR",
        "ERR_HTTP_INVALID_STATUS_CODE",
        "ERR_STREAM_NULL_VALUES",
        "ERR_INVALID_ARG_TYPE",
        "ERR_INVALID_ARG_TYPE",
        "ERR_INVALID_ARG_TYPE",
      ]);
    });

    test("HEAD, 204 and 304 carry no body (RFC 9110 §6.4.1)", async () => {
      await using client = await kind.open(shared.server);
      for (const code of [204, 304]) expect(await get(client, `/status?code=${code}`)).toEqual([code, ""]);
      for (const path of ["/status?code=200", "/sized", "/large"]) {
        const response = await client.request({ method: "HEAD", path });
        expect(response.status).toBe(200);
        expect((await response.body.bytes()).length).toBe(0);
        if (path === "/large") expect(header(response, "content-length")).toBe("2000000");
      }
    });

    test("204, 205 and 304 tell no length of a body that is not sent (RFC 9110 §8.6, §15.3.6)", async () => {
      await using client = await kind.open(shared.server);
      for (const method of ["GET", "HEAD"]) {
        for (const path of ["code=204", "code=205", "code=204&length", "code=205&length", "code=304"]) {
          const response = await client.request({ method, path: `/status-at-once?${path}` });
          expect(await response.body.text()).toBe("");
          // HTTP/1.1 frames 205 like any other.
          const allowed = path.startsWith("code=205") && kind.protocol === "HTTP/1.1" ? ["0"] : [];
          expect([undefined, ...allowed]).toContain(header(response, "content-length"));
        }
      }
    });

    test("HEAD of what has trailers", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ method: "HEAD", path: "/trailers" });
      expect([response.status, await response.body.text()]).toEqual([200, ""]);
    });

    test("an answer after a request that an iteration or a pipeline has left", async () => {
      for (const [path, text] of [
        ["/left-off", "left off"],
        ["/pipeline-failed", "broken"],
      ] as const) {
        await using client = await kind.open(shared.server);
        expect(await answeredEarly(client, path)).toEqual([400, text]);
      }
    });

    test("large bodies at once, sized ones piece by piece", async () => {
      await using client = await kind.open(shared.server);
      expect((await (await client.request({ path: "/large" })).body.digest()).length).toBe(2_000_000);
      expect(await get(client, "/sized")).toEqual([200, "hello world"]);
    });

    test("write says false, drain and the callbacks come, and a pipe may follow", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/drain" });
      const bytes = await response.body.bytes();
      const json = Buffer.from(bytes.subarray(bytes.lastIndexOf(0) + 1)).toString();
      expect(JSON.parse(json)).toEqual({
        written: bytes.lastIndexOf(0) + 1,
        order: ["callback", "drained: true"],
      });
    });

    test("flushHeaders sends the head before there is a body, where the engine can", async () => {
      await using client = await kind.open(shared.server);
      const file = shared.server.scratch.file(crypto.randomUUID());
      // The native HTTP/3 engine sends a head with the first of its body (docs/architecture.md).
      if (kind.protocol === "HTTP/3") writeFileSync(file, "");
      const response = await client.request({ path: `/flush?file=${file}` });
      expect(header(response, "x-early")).toBe("1");
      writeFileSync(file, "");
      expect(await response.body.text()).toBe("late");
    });

    test("finish, then close, when all was sent, and end of a request without a body that nobody reads", async () => {
      await using client = await kind.open(shared.server);
      for (const reading of ["", "&unread"]) {
        const file = shared.server.scratch.file(crypto.randomUUID());
        expect(await get(client, `/events?end${reading}&file=${file}`)).toEqual([200, "begun"]);
        const events = await recorded(file, 5);
        expect(events).not.toContain("req aborted");
        expect(events.filter((event) => event.startsWith("res"))).toEqual(["res finish", "res close"]);
        expect(events.toSorted()).toEqual([
          "req close",
          "req end",
          "res close",
          "res finish",
          "socket close",
        ]);
      }
    });

    test("finish comes once where a callback of write ends the response", async () => {
      await using client = await kind.open(shared.server);
      const file = shared.server.scratch.file(crypto.randomUUID());
      const response = await client.request({ path: `/end-in-callback?file=${file}` });
      expect((await response.body.digest()).length).toBe(2_000_003);
      const events = await recorded(file, 5);
      expect(events.filter((event) => event.startsWith("res"))).toEqual(["res finish", "res close"]);
    });

    test("the end of the socket waits for a response that has ended", async () => {
      await using client = await kind.open(shared.server);
      for (const path of ["/socket-end", "/socket-end?soon"]) {
        const response = await client.request({ path });
        expect((await response.body.digest()).length).toBe(2_000_000);
      }
    });

    test("an early answer ends the request without an error", async () => {
      await using client = await kind.open(shared.server);
      const file = shared.server.scratch.file(crypto.randomUUID());
      expect(await answeredEarly(client, `/early?file=${file}`)).toEqual([413, "too much"]);
      const events = await recorded(file, 4);
      expect(events.toSorted()).toEqual(["req close", "res close", "res finish", "socket close"]);
    });

    test("methods that middleware wraps, and a prototype in the place of ours", async () => {
      await using client = await kind.open(shared.server);
      expect(await get(client, "/wrapped")).toEqual([200, '["end","mine"]']);
    });

    test("what instruments node:http is called, and its context goes on with the request", async () => {
      await using client = await kind.open(shared.server);
      const [, text] = await get(client, "/instrumented");
      expect(JSON.parse(text)).toEqual(["by the server", "by the prototype"]);
    });

    test("errors are 500 without detail, and in the log; what was begun is cut short", async () => {
      await using client = await kind.open(shared.server);
      for (const path of ["/throw", "/reject", "/status?code=600", "/wrong-length"]) {
        const [status, text] = await get(client, path);
        expect(status).toBe(500);
        expect(text).not.toContain("secret");
      }
      {
        // Of a body that is too long an HTTP/1.1 client has all that was declared; then its connection is closed.
        await using other = await kind.open(shared.server);
        // A QUIC stream that is reset may lose what was sent before (RFC 9000 §3.2).
        const losesAll = kind.protocol === "HTTP/3" && ENGINE === "quic";
        const begun = other.request({ path: "/too-long" }).then(async ({ status, body }) => {
          const first = Buffer.from((await body.read()) ?? []).toString();
          body.cancel();
          return [status, first];
        });
        if (losesAll) await begun.catch(() => {});
        else expect(await begun).toEqual([200, "hello"]);
        await shared.server.logs(/error in GET \/too-long \S+: .*content-length/);
      }
      const cut = async (path: string) => {
        const response = await client.request({ path });
        expect(response.status).toBe(200);
        await expectCutShort(kind.protocol, response.body, () => {});
      };
      await Promise.all(["/throw-late", "/destroy", "/too-short"].map(cut));
      for (const line of [
        /a secret of the node handler/,
        /a secret of the async node handler/,
        /a secret of the late node handler/,
        /error in GET \/too-short \S+: .*content-length/,
      ]) {
        await until(`${line}`, 5_000, () => line.test(shared.server.stderr));
      }
    });

    test("what is destroyed before its head is no answer, where the engine can reset a stream", async () => {
      await using client = await kind.open(shared.server);
      const outcome = await get(client, "/destroy-unsent").then(
        ([status]) => status,
        () => "broken off",
      );
      const cannot = kind.protocol === "HTTP/3" && ENGINE === "native";
      expect(outcome).toBe(cannot ? 500 : "broken off");
      expect((await get(client, "/nothing").catch(() => get(client, "/nothing")))[0]).toBe(404);
    });

    test("of a write to a response that is over only its callback hears", async () => {
      await using client = await kind.open(shared.server);
      const file = shared.server.scratch.file(`write-when-closed-${kind.name.replaceAll(/\W/g, "")}`);
      expect(await get(client, `/write-when-closed?file=${file}`)).toEqual([200, "answered"]);
      expect(await recorded(file, 2)).toEqual(["ERR_STREAM_WRITE_AFTER_END", "over"]);
    });

    test("an end too many is logged and harms nobody; a timeout is told", async () => {
      await using client = await kind.open(shared.server);
      expect(await get(client, "/twice")).toEqual([200, "once"]);
      await shared.server.logs(/error in GET \/twice \S+: .*write after end/);
      expect(await get(client, "/timeout")).toEqual([503, "timed out"]);
    });

    test("nodeHandler goes with other handlers in the event form", async () => {
      await using client = await kind.open(shared.server);
      expect(await get(client, "/event-form")).toEqual([200, kind.protocol]);
      expect((await get(client, "/nothing"))[0]).toBe(404);
    });

    test("trailers do no harm where they cannot be sent, and hints neither", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/trailers", body: "x" });
      expect([response.status, await response.body.text()]).toEqual([200, "body"]);
      // Neither client of HTTP/3 knows interim responses, which the engine quic sends.
      if (kind.protocol !== "HTTP/3" || ENGINE === "native")
        expect(await get(client, "/hints")).toEqual([200, "hinted"]);
    });
  });
}

test("what a request enters is not the async context of the next, in the same turn", async () => {
  await using client = await HTTP2.open(shared.server);
  const found = await Promise.all(Array.from({ length: 20 }, () => get(client, "/enter")));
  expect(found).toEqual(Array(20).fill([200, "nothing"]));
});

test("what a listener throws when its client leaves is logged, and other requests are told of that as well", async () => {
  using peer = await RawHttp2.open(shared.server.port);
  const streams = [1, 2].map(() => peer.begin(request({ path: "/throw-at-close" })));
  await until("both answers", 5_000, () => streams.every((stream) => peer.lengthOf(stream) > 0));
  peer[Symbol.dispose]();
  const line = "error that nobody has caught: Error: a secret of the listener";
  await until("both errors", 5_000, () => shared.server.stderr.split(line).length === 3);
});

test("what is destroyed before its head is no answer without TLS, either", async () => {
  await using server = await startFixture("node.ts", { options: { tls: false } });
  using connection = await RawConnection.openPlain(server.port);
  connection.send("GET /destroy-unsent HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await until("the end of the connection", 5_000, () => connection.isClosed);
  expect(connection.received).toBe("");
});

describe("the client goes away", () => {
  for (const kind of RESETTING_CLIENTS) {
    test(`aborted, close without finish, ${kind.name}`, async () => {
      await using client = await kind.open(shared.server);
      await using observer = await HTTP2.open(shared.server);
      const file = shared.server.scratch.file(crypto.randomUUID());
      const cancel = new AbortController();
      const response = await client.request({ path: `/events?file=${file}`, signal: cancel.signal });
      await response.body.read();
      cancel.abort();
      const events = await recorded(file, 4);
      expect(events).toContain("res close");
      expect(events).toContain("socket close");
      expect(events).not.toContain("res finish");
      await untilIdle(observer);
    });
  }
});

describe("back pressure", () => {
  for (const kind of SLOW_CLIENTS) {
    test(`64 MiB each way at 80 MB/s leave the memory flat, ${kind.name}`, async () => {
      const size = 64 * MIB;
      await using client = await kind.open(shared.server);
      await using observer = await HTTP2.open(shared.server);
      const pid = (await readStats(observer)).workers[0]?.pid ?? 0;
      // A worker that has moved nothing yet has neither loaded nor compiled what does.
      expect(await bothWays(client, 8 * MIB, 80_000_000)).toEqual({ length: 8 * MIB, complete: true });
      const grown = await growthDuring(pid, async () => {
        expect(await bothWays(client, size, 80_000_000)).toEqual({ length: size, complete: true });
      });
      expect(grown).toBeLessThan(32 * MIB);
    });
  }
});

describe("what only some protocols and engines can send", () => {
  test("interim responses and trailers on HTTP/1.1 (RFC 9110 §15.2, §6.5)", async () => {
    using connection = await RawConnection.open(shared.server.port);
    connection.send("GET /hints HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const hinted = await connection.untilReceived(/hinted$/);
    expect(hinted).toMatch(/^HTTP\/1\.1 103 /);
    expect(hinted).toMatch(/\r\nlink: <\/a\.css>; rel=preload\r\nlink: <\/b\.js>; rel=preload\r\n/i);
    expect(hinted).toMatch(/\r\nHTTP\/1\.1 102 /);
    connection.send(
      "POST /trailers HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n1\r\nx\r\n0\r\nx-t: sent\r\n\r\n",
    );
    const ended = await connection.untilReceived(/x-sum: .*\r\n\r\n$/i);
    expect(ended).toMatch(/\r\n0\r\nx-sum: \{"x-t":"sent"\}\r\n\r\n$/i);
  });

  test("trailers of what comes without chunks are not behind the next answer of its connection", async () => {
    using connection = await RawConnection.open(shared.server.port);
    const ask = (request: string) => connection.send(`${request} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    ask("HEAD /trailers");
    ask("GET /stream?bytes=1");
    const answers = await connection.untilReceived(/\r\n0\r\n.*\r\n$/s);
    expect(answers).toMatch(/\r\n0\r\n\r\n$/);
  });

  test("interim responses and trailers on HTTP/2 (RFC 9113 §8.1)", async () => {
    const session = http2.connect(`https://127.0.0.1:${shared.server.port}`, { rejectUnauthorized: false });
    try {
      const ask = async (path: string) => {
        const stream = session.request({ ":path": path });
        const interim: unknown[] = [];
        const trailers: Record<string, unknown> = {};
        stream.on("headers", (fields) => interim.push(fields[":status"]));
        stream.on("trailers", (fields) => Object.assign(trailers, fields));
        stream.resume();
        await inTime(path, 5_000, new Promise((resolve) => stream.on("close", resolve)));
        return { interim, trailers };
      };
      expect((await ask("/hints")).interim).toEqual([103, 102]);
      expect((await ask("/trailers")).trailers).toMatchObject({ "x-sum": "{}" });
    } finally {
      session.destroy();
    }
  });
});
