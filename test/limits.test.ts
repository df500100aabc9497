/** Every limit: what is over it is refused with the status of its own, and what is under it is not. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { existsSync } from "node:fs";
import net from "node:net";
import { type Client, type ClientRequest, type ClientResponse, header } from "./support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2, RESETTING_CLIENTS, SLOW_CLIENTS } from "./support/clients.ts";
import { type Field, request } from "./support/http3-frames.ts";
import { inTime, until } from "./support/poll.ts";
import { RawConnection } from "./support/raw-connection.ts";
import { Frame2, RawHttp2 } from "./support/raw-http2.ts";
import { MODE, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { expectCutShort } from "./support/short.ts";
import { othersInFlight, readStats, untilIdle, untilInFlight } from "./support/stats.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

async function statusOf(client: Client, request: ClientRequest): Promise<number> {
  const response = await client.request(request);
  await response.body.bytes();
  return response.status;
}

async function callsSeen(client: Client): Promise<number> {
  const response = await client.request({ path: "/calls" });
  return (await response.body.json<{ calls: number }>()).calls;
}

describe("maxHeaderBytes", () => {
  const shared = sharedServer(() => startFixture("server.ts", { options: { maxHeaderBytes: 8_192 } }));
  const standard = sharedServer(() => startFixture("server.ts"));

  for (const kind of ALL_CLIENTS) {
    test(`${kind.name}: 431 over 8 KiB, and the handler is not run`, async () => {
      await using client = await kind.open(shared.server);
      const before = await callsSeen(client);
      expect(await statusOf(client, { path: "/hello", headers: { "x-long": "l".repeat(7_000) } })).toBe(200);
      const over = statusOf(client, { path: "/hello", headers: { "x-long": "l".repeat(9_000) } });
      // A client that keeps to what the server says it takes need not even ask.
      if (client.capabilities.keepsToFieldLimit) expect(await over.catch(() => 431)).toBe(431);
      else expect(await over).toBe(431);
      expect(await callsSeen(client)).toBe(before + 2);
    });

    test(`${kind.name}: many small fields count as well`, async () => {
      await using client = await kind.open(shared.server);
      const headers = Object.fromEntries(
        Array.from({ length: 120 }, (_, i) => [`x-field-${i}`, "v".repeat(60)]),
      );
      const over = statusOf(client, { path: "/hello", headers });
      if (client.capabilities.keepsToFieldLimit) expect(await over.catch(() => 431)).toBe(431);
      else expect(await over).toBe(431);
      expect(await statusOf(client, { path: "/hello" })).toBe(200);
    });
  }

  test("HTTP/1.1: their number alone is no reason", async () => {
    await using client = await HTTP1.open(standard.server);
    const headers = Object.fromEntries(Array.from({ length: 1_500 }, (_, i) => [`x-${i}`, "v"]));
    expect(await statusOf(client, { path: "/hello", headers })).toBe(200);
  });

  for (const kind of RESETTING_CLIENTS) {
    test(`${kind.name}: by default 50 KiB pass and 80 KiB are 431`, async () => {
      await using client = await kind.open(standard.server);
      const fields = (kib: number) =>
        Object.fromEntries(Array.from({ length: kib / 10 }, (_, i) => [`x-field-${i}`, "v".repeat(10_240)]));
      expect(await statusOf(client, { path: "/hello", headers: fields(50) })).toBe(200);
      expect(await statusOf(client, { path: "/hello", headers: fields(80) })).toBe(431);
      expect(await statusOf(client, { path: "/hello" })).toBe(200);
    });
  }
});

describe("maxBodyBytes", () => {
  const LIMIT = 100_000;
  const shared = sharedServer(() => startFixture("server.ts", { options: { maxBodyBytes: LIMIT } }));

  for (const kind of ALL_CLIENTS) {
    test(`${kind.name}: a body of the limit passes`, async () => {
      await using client = await kind.open(shared.server);
      expect(await statusOf(client, { path: "/raw", body: new Uint8Array(LIMIT) })).toBe(200);
      const pieces = async function* () {
        yield new Uint8Array(LIMIT / 2);
        yield new Uint8Array(LIMIT / 2);
      };
      expect(await statusOf(client, { path: "/raw", body: pieces() })).toBe(200);
    });
  }

  test("a client that waits to be told to send a body over it is not told (RFC 9110 §10.1.1)", async () => {
    const head = (length: number) =>
      `POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\nExpect: 100-continue\r\n\r\n`;
    for (const options of [{}, { tls: false }, { mode: "base" }, { mode: "base", tls: false }]) {
      await using server = await startFixture("server.ts", { options: { maxBodyBytes: LIMIT, ...options } });
      const open = () => RawConnection["tls" in options ? "openPlain" : "open"](server.port);
      using over = await open();
      over.send(head(LIMIT + 1));
      const answer = await over.untilClosed();
      expect(answer).toStartWith("HTTP/1.1 413 ");
      expect(answer).toMatch(/^connection: close\r$/im);
      using under = await open();
      under.send(head(4));
      await under.untilReceived(/^HTTP\/1\.1 100 Continue\r\n\r\n/);
      under.send("body");
      expect(await under.untilReceived(/"length":4/)).toContain("HTTP/1.1 200 OK");
      if ("tls" in options) continue;
      using http2 = await RawHttp2.open(server.port);
      const fields: readonly Field[] = [
        ["content-length", String(LIMIT + 1)],
        ["expect", "100-continue"],
      ];
      const section = request({ method: "POST", path: "/raw", fields });
      // The first status that comes.
      expect(await http2.outcome(http2.begin(section, false))).toBe("answered 413");
    }
  });

  for (const kind of SLOW_CLIENTS) {
    test(`${kind.name}: 413 for a declared length over it, and the handler is not run`, async () => {
      await using client = await kind.open(shared.server);
      const before = await callsSeen(client);
      // Nothing of the body is sent: the head is enough. (Quiche breaks its connection when an upload is stopped.)
      const withheld = async function* () {
        await Promise.withResolvers<void>().promise;
        yield new Uint8Array(LIMIT + 1);
      };
      const headers = { "content-length": String(LIMIT + 1) };
      expect(await statusOf(client, { path: "/raw", headers, body: withheld() })).toBe(413);
      expect(await callsSeen(client)).toBe(before + 1);
    });

    test(`${kind.name}: 413 for a streamed body as soon as it is over it`, async () => {
      await using client = await kind.open(shared.server);
      const more = Promise.withResolvers<void>();
      const pieces = async function* () {
        yield new Uint8Array(LIMIT / 2);
        yield new Uint8Array(LIMIT / 2 + 1);
        await more.promise;
      };
      const status = statusOf(client, { path: "/raw", body: pieces() });
      expect(await inTime("the 413, before the body has ended", 5_000, status).finally(more.resolve)).toBe(
        413,
      );
      expect(await statusOf(client, { path: "/hello" })).toBe(200);
      await untilIdle(client);
    });

    test(`${kind.name}: a streamed body over it ends a response that has begun`, async () => {
      await using client = await kind.open(shared.server);
      const more = Promise.withResolvers<void>();
      const pieces = async function* () {
        yield new Uint8Array(1_000);
        await more.promise;
        for (let i = 0; i < 10; i++) yield new Uint8Array(LIMIT / 5);
      };
      const response = await client.request({ path: "/echo", body: pieces() });
      expect(response.status).toBe(200);
      await response.body.read();
      await expectCutShort(kind.protocol, response.body, more.resolve);
      await untilIdle(client);
    });
  }
});

describe("requestTimeout", () => {
  const shared = sharedServer(() =>
    startFixture("server.ts", { options: { requestTimeout: 400, workers: 2 } }),
  );

  for (const kind of ALL_CLIENTS) {
    test(`${kind.name}: 504 for a handler that does not answer`, async () => {
      await using client = await kind.open(shared.server);
      const began = performance.now();
      expect(await statusOf(client, { path: "/hang" })).toBe(504);
      const took = performance.now() - began;
      expect(took).toBeGreaterThan(350);
      expect(took).toBeLessThan(3_000);
      await untilIdle(client);
    });

    test(`${kind.name}: a response that has begun may take its time`, async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/trickle?count=12&every=60" });
      expect(response.status).toBe(200);
      expect((await response.body.text()).match(/data/g)?.length).toBe(12);
    });
  }

  if (MODE === "process") {
    test("stats() answers while a worker is stuck in a loop", async () => {
      await using server = await startFixture("server.ts", { options: { workers: 2, shutdownTimeout: 500 } });
      await using client = await HTTP2.open(server);
      const before = await readStats(client);
      const file = server.scratch.file("spinning");
      client.request({ path: `/spin?file=${file}` }).catch(() => {});
      await until("the loop", 5_000, () => existsSync(file));
      // The least busy worker is asked: the one that is not stuck.
      const stats = await inTime("the answer", 5_000, readStats(client));
      expect(stats.reactors[0]?.exchanges.map(({ path }) => path.replace(/\?.*/, "")).sort()).toEqual([
        "/spin",
        "/stats",
      ]);
      expect(stats.pid).toBe(before.pid);
    });
  }
});

describe("maxExchanges and maxQueue", () => {
  for (const kind of RESETTING_CLIENTS) {
    test(`${kind.name}: 503 with Retry-After when both are full`, async () => {
      await using server = await startFixture("server.ts", { options: { maxExchanges: 3, maxQueue: 2 } });
      await using client = await kind.open(server);
      await using observer = await HTTP2.open(server);
      const leave = new AbortController();
      // One place is left for the question; then nothing can be asked any more, and the sixth is refused.
      const sent: Promise<ClientResponse>[] = [];
      const hang = () => {
        const response = client.request({ path: "/hang", signal: leave.signal });
        response.catch(() => {});
        sent.push(response);
      };
      for (let i = 0; i < 2; i++) hang();
      await untilInFlight(observer, 2);
      for (let i = 0; i < 4; i++) hang();
      const refused = await inTime("a refusal", 5_000, Promise.race(sent));
      expect(refused.status).toBe(503);
      await refused.body.bytes();
      expect(header(refused, "retry-after")).toMatch(/^[1-9]\d*$/);
      leave.abort();
      const ends = await Promise.allSettled(sent);
      expect(ends.filter(({ status }) => status === "fulfilled").length).toBe(1);
      await until("room again", 5_000, async () => (await statusOf(client, { path: "/hello" })) === 200);
      const stats = await untilIdle(observer);
      expect(othersInFlight(stats)).toEqual([]);
      expect(stats.reactors[0]?.protocols[kind.protocol]?.rejected).toBeGreaterThan(0);
    });

    test(`${kind.name}: what is in the queue is served when there is room`, async () => {
      await using server = await startFixture("server.ts", {
        // On a machine that is busy with something else they may wait for longer than is usual.
        options: { maxExchanges: 1, maxQueue: 50, queueTarget: 60_000 },
      });
      await using client = await kind.open(server);
      const statuses = await Promise.all(
        Array.from({ length: 40 }, () => statusOf(client, { path: "/wait?ms=5" })),
      );
      expect(statuses).toEqual(Array.from({ length: 40 }, () => 200));
      await untilIdle(client);
    });
  }
});

test("HTTP/2: of a connection's requests 1000 are open at a time, and no other connection is held up", async () => {
  await using server = await startFixture("server.ts");
  await using other = await HTTP2.open(server);
  {
    using connection = await RawHttp2.open(server.port);
    const hanging = request({ path: "/hang" });
    for (let i = 0; i < 1_000; i++) connection.begin(hanging);
    await untilInFlight(other, 1_000);
    expect(await connection.outcome(connection.begin(hanging))).toBe("reset with REFUSED_STREAM");
    await untilInFlight(other, 1_000);
  }
  await untilIdle(other);
});

for (const isPlain of [false, true]) {
  test(`${isPlain ? "plain " : ""}HTTP/1.1: a connection that has more of them open is cut off`, async () => {
    await using server = await startFixture("server.ts", isPlain ? { options: { tls: false } } : {});
    await using other = await HTTP1.open({ port: server.port, scheme: isPlain ? "http" : "https" });
    using connection = await RawConnection[isPlain ? "openPlain" : "open"](server.port);
    const hanging = "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n";
    connection.send(hanging.repeat(1_000));
    await untilInFlight(other, 1_000);
    connection.send(hanging.repeat(2_000));
    expect(await connection.untilClosed(10_000)).toBe("");
    await untilIdle(other);
  });
}

describe("keepAliveTimeout", () => {
  test("an idle HTTP/1.1 connection is closed, a busy one is not", async () => {
    await using server = await startFixture("server.ts", { options: { keepAliveTimeout: 1_000 } });
    using idle = await RawConnection.open(server.port);
    idle.send("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const answered = await idle.untilReceived(/Hello from HTTP\/1\.1!$/);
    expect(answered).toMatch(/^keep-alive: timeout=1\r$/im);
    await using busy = await HTTP1.open(server);
    const answer = statusOf(busy, { path: "/wait?ms=2500" });
    await idle.untilClosed(5_000);
    expect(await answer).toBe(200);
  });

  test("an idle connection of plain HTTP/1.1 is closed, a busy one is not", async () => {
    await using server = await startFixture("server.ts", {
      options: { keepAliveTimeout: 1_000, tls: false },
    });
    using idle = await RawConnection.openPlain(server.port);
    // The first request of a connection: the engine's own timeout begins with the end of a response.
    using busy = await RawConnection.openPlain(server.port);
    busy.send("GET /wait?ms=2500 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    using uploading = await RawConnection.openPlain(server.port);
    uploading.send("POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nhalf");
    uploading.send("POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf");
    await idle.untilClosed(5_000);
    expect(await busy.untilReceived(/\r\n\r\n/)).toContain(" 200 ");
    uploading.send("more");
    expect(await uploading.untilReceived(/"length":8/)).toContain('"length":4');
  });

  test("what is less than a request keeps no connection, over TLS and plain", async () => {
    const options = { keepAliveTimeout: 1_500 };
    await using server = await startFixture("server.ts", { options });
    await using plain = await startFixture("server.ts", { options: { ...options, tls: false } });
    const untouched = net.connect(server.port, "127.0.0.1").resume();
    using head = await RawConnection.open(server.port);
    head.send("GET /");
    using later = await RawConnection.open(server.port);
    later.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /");
    using plainHead = await RawConnection.openPlain(plain.port);
    plainHead.send("GET /");
    using pinging = await RawHttp2.open(server.port);
    using block = await RawHttp2.open(server.port);
    block.frame(Frame2.headers, 0, 1, Buffer.from([0, 1, 0x61, 1, 0x62]));
    const dribble = setInterval(() => {
      for (const each of [head, later, plainHead]) each.send("a");
      pinging.frame(Frame2.ping, 0, 0, Buffer.alloc(8));
      block.frame(Frame2.continuation, 0, 1, Buffer.from([0, 1, 0x61, 1, 0x62]));
    }, 200);
    try {
      await Promise.all([head, later, plainHead, pinging, block].map((each) => each.untilClosed()));
      if (!untouched.closed)
        await inTime("the close of what began no handshake", 5_000, once(untouched, "close"));
    } finally {
      clearInterval(dribble);
      untouched.destroy();
    }
  });

  test("an idle HTTP/2 connection is closed, a busy one is not", async () => {
    await using server = await startFixture("server.ts", { options: { keepAliveTimeout: 1_000 } });
    await using idle = await HTTP2.open(server);
    expect(await statusOf(idle, { path: "/hello" })).toBe(200);
    await using busy = await HTTP2.open(server);
    const answer = statusOf(busy, { path: "/wait?ms=2500" });
    await until("the close of the idle connection", 5_000, () => "isLost" in idle && idle.isLost === true);
    expect(await answer).toBe(200);
  });
});
