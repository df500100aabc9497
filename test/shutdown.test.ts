/** The end of a server: what is in flight finishes, and nothing is left behind. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync } from "node:fs";
import net from "node:net";
import type { Client } from "./support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2, SLOW_CLIENTS } from "./support/clients.ts";
import { GET, request } from "./support/http3-frames.ts";
import { until } from "./support/poll.ts";
import { RawConnection } from "./support/raw-connection.ts";
import { Frame2, RawHttp2 } from "./support/raw-http2.ts";
import { fixture, MODE, startCli, startFixture, type TestServer } from "./support/server.ts";
import { readStats, untilInFlight } from "./support/stats.ts";
import { startVersions } from "./support/versions.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

/** The most that a timeout may be, milliseconds. */
const MAX_DELAY = 2 ** 31 - 1;

/** Both ports can be bound. A process shows as ended a moment before its last thread has let go of its sockets. */
function bindable(port: number): Promise<boolean> {
  return until("the port to be free", 2_000, () => bindOnce(port));
}

async function bindOnce(port: number): Promise<true> {
  const tcp = net.createServer();
  const tcpBound = Promise.withResolvers<void>();
  tcp.once("error", tcpBound.reject).listen(port, "127.0.0.1", () => tcpBound.resolve());
  const udp = createSocket("udp4");
  const udpBound = Promise.withResolvers<void>();
  udp.once("error", udpBound.reject).bind(port, "127.0.0.1", () => udpBound.resolve());
  try {
    await Promise.all([tcpBound.promise, udpBound.promise]);
    return true;
  } finally {
    if (tcp.listening) tcp.close();
    udp.close();
  }
}

async function textOf(client: Client, path: string): Promise<[status: number, text: string]> {
  const response = await client.request({ path });
  return [response.status, await response.body.text()];
}

/** Has one worker stuck in a loop. */
async function spin(server: TestServer, client: Client): Promise<void> {
  const file = server.scratch.file("spinning");
  client.request({ path: `/spin?file=${file}` }).catch(() => {});
  await until("the loop", 5_000, () => existsSync(file));
}

/** Nothing is left of it: no process, no file, and both ports can be bound. */
async function endedCleanly(server: TestServer): Promise<void> {
  expect(await server.ended()).toBe(0);
  await server.leavesNothing();
  await bindable(server.port);
}

describe("a graceful shutdown", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    test(`${signal}: requests in flight on every protocol finish, then exit code 0 and nothing is left`, async () => {
      await using server = await startFixture("server.ts", { options: { workers: 2, reactors: 1 } });
      await using observer = await HTTP2.open(server);
      const clients = await Promise.all(ALL_CLIENTS.map((kind) => kind.open(server)));
      try {
        const waits = clients.map((client) => textOf(client, "/wait?ms=1000"));
        const streams = clients.map((client) => textOf(client, "/trickle?count=20&every=50"));
        await untilInFlight(observer, 2 * clients.length);
        server.kill(signal);
        const began = performance.now();
        const all = await Promise.all([...waits, ...streams]);
        for (const [status, text] of all) {
          expect(status).toBe(200);
          expect(text === "waited as GET" || text.match(/data: \d+\n\n/g)?.length === 20).toBe(true);
        }
        await endedCleanly(server);
        expect(performance.now() - began).toBeLessThan(6_000);
        expect(server.stderr).not.toMatch(/error/i);
      } finally {
        for (const client of clients) await client.close();
      }
    });
  }

  for (const kind of SLOW_CLIENTS) {
    test(`a response that a slow client is still reading arrives whole, ${kind.name}`, async () => {
      await using server = await startFixture("server.ts");
      await using client = await kind.open(server);
      const size = 8_000_000;
      const response = await client.request({ path: `/stream?bytes=${size}` });
      let length = (await response.body.read())?.length ?? 0;
      server.kill("SIGTERM");
      const began = performance.now();
      for await (const chunk of response.body) {
        length += chunk.length;
        // 5 MB/s.
        const early = began + length / 5_000 - performance.now();
        if (early > 0) await Bun.sleep(early);
      }
      expect(length).toBe(size);
      await endedCleanly(server);
    });
  }

  test("with several reactors", async () => {
    await using server = await startFixture("server.ts", { options: { workers: 2, reactors: 2 } });
    for (const kind of ALL_CLIENTS) {
      await using client = await kind.open(server);
      expect((await textOf(client, "/hello"))[0]).toBe(200);
    }
    server.kill("SIGTERM");
    await endedCleanly(server);
  });

  test("a signal that comes twice at once, as a terminal and npm send Ctrl-C, is one", async () => {
    await using server = await startFixture("server.ts");
    await using client = await HTTP2.open(server);
    const waited = textOf(client, "/wait?ms=600");
    await untilInFlight(client, 1);
    for (let i = 0; i < 3; i++) server.kill("SIGINT");
    expect(await waited).toEqual([200, "waited as GET"]);
    await endedCleanly(server);
  });

  test("by the command line's launcher", async () => {
    await using server = await startCli(fixture("app.ts"), { flags: { workers: 2 } });
    await using client = await HTTP1.open(server);
    expect((await textOf(client, "/hello"))[0]).toBe(200);
    server.kill("SIGINT");
    await endedCleanly(server);
  });

  test("idle connections do not hold it up", async () => {
    await using server = await startFixture("server.ts");
    const clients = await Promise.all(ALL_CLIENTS.map((kind) => kind.open(server)));
    using silent = await RawConnection.open(server.port);
    try {
      for (const client of clients) await textOf(client, "/hello");
      const began = performance.now();
      server.kill("SIGTERM");
      await endedCleanly(server);
      expect(performance.now() - began).toBeLessThan(4_000);
      await silent.untilClosed();
    } finally {
      for (const client of clients) await client.close();
    }
  });

  test("connections that have come to no request do not hold it up, nor does a client that leaves its side open", async () => {
    await using server = await startFixture("server.ts");
    const connected = net.connect(server.port, "127.0.0.1").resume();
    await once(connected, "connect");
    using greeting = await RawConnection.open(server.port);
    greeting.send("GET / HTTP/1.1\r\nHo");
    using silent = await RawConnection.open(server.port, "h2");
    using begun = await RawHttp2.open(server.port);
    begun.frame(Frame2.headers, 0, 1, Buffer.from([0]));
    using held = await RawHttp2.open(server.port, { allowHalfOpen: true });
    held.begin(GET);
    await using observer = await HTTP2.open(server);
    await until(
      "the request",
      5_000,
      async () => (await readStats(observer)).reactors[0]?.protocols["HTTP/2"]?.completed,
    );
    const stopping = performance.now();
    server.kill("SIGTERM");
    await Promise.all([greeting.untilClosed(), silent.untilClosed(), begun.untilClosed()]);
    await endedCleanly(server);
    expect(performance.now() - stopping).toBeLessThan(4_000);
    connected.destroy();
  });

  const BYTES = 12_000_000;
  for (const kind of ["plain HTTP/1.1", "HTTP/1.1", "HTTP/2"]) {
    test(`a response in one piece that a slow client is still reading arrives whole, ${kind}`, async () => {
      const options = { mode: "base", compression: false, ...(kind === "plain HTTP/1.1" && { tls: false }) };
      await using server = await startFixture("server.ts", { options });
      const path = `/at-once?bytes=${BYTES}`;
      const stopsWhileUnread = async (connection: { pause(): void; resume(): void }) => {
        connection.pause();
        await Bun.sleep(500);
        server.kill("SIGTERM");
        await Bun.sleep(500);
        connection.resume();
      };
      if (kind === "HTTP/2") {
        using connection = await RawHttp2.open(server.port);
        connection.widen();
        const stream = connection.begin(request({ path }));
        await stopsWhileUnread(connection);
        await connection.untilClosed();
        expect(connection.lengthOf(stream)).toBe(BYTES);
      } else {
        using connection = await RawConnection[kind === "HTTP/1.1" ? "open" : "openPlain"](server.port);
        connection.send(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
        await stopsWhileUnread(connection);
        const received = await connection.untilClosed();
        expect(received.length - received.indexOf("\r\n\r\n") - 4).toBe(BYTES);
      }
      await endedCleanly(server);
    });
  }

  test("no new connection is taken, and HTTP/1.1 is told that the connection closes", async () => {
    await using server = await startFixture("server.ts");
    await using observer = await HTTP2.open(server);
    using connection = await RawConnection.open(server.port);
    connection.send("GET /wait?ms=1500 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await untilInFlight(observer, 1);
    server.kill("SIGTERM");
    await until("refused connections", 1_200, async () => {
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const socket = net.connect(server.port, "127.0.0.1", () => resolve(false));
      socket.on("error", () => resolve(true));
      const isRefused = await promise;
      socket.destroy();
      return isRefused;
    });
    const answer = await connection.untilClosed();
    expect(answer).toStartWith("HTTP/1.1 200 ");
    expect(answer).toMatch(/^connection: close\r$/im);
    expect(answer).toEndWith("waited as GET");
    await endedCleanly(server);
  });

  test("requests of HTTP/1.1 that came one behind the other are all answered, and the last tells of the end", async () => {
    const answersOf = async (isPlain: boolean) => {
      await using server = await startFixture("server.ts", { options: isPlain ? { tls: false } : {} });
      using connection = await RawConnection[isPlain ? "openPlain" : "open"](server.port);
      const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
      connection.send(get("/hello") + get("/wait?ms=1400") + get("/wait?ms=1500") + get("/wait?ms=1300"));
      await connection.untilReceived(/Hello/);
      server.kill("SIGTERM");
      const answers = await connection.untilClosed();
      await endedCleanly(server);
      return answers.match(/waited as GET|connection: close/gi)?.join();
    };
    const all = "waited as GET,waited as GET,connection: close,waited as GET";
    expect(await Promise.all([answersOf(true), answersOf(false)])).toEqual([all, all]);
  });

  test("shutdownTimeout ends what does not finish", async () => {
    await using server = await startFixture("server.ts", { options: { shutdownTimeout: 500 } });
    await using observer = await HTTP2.open(server);
    const clients = await Promise.all(ALL_CLIENTS.map((kind) => kind.open(server)));
    try {
      const hanging = clients.map((client) => client.request({ path: "/hang" }));
      for (const each of hanging) each.catch(() => {});
      await untilInFlight(observer, clients.length);
      const began = performance.now();
      server.kill("SIGTERM");
      await endedCleanly(server);
      expect(performance.now() - began).toBeLessThan(5_000);
    } finally {
      for (const client of clients) await client.close();
    }
  });

  test("timeouts that are as long as they may be end nothing", async () => {
    const options = { shutdownTimeout: MAX_DELAY, requestTimeout: MAX_DELAY };
    await using server = await startFixture("server.ts", { options });
    await using client = await HTTP2.open(server);
    const shorter = textOf(client, "/wait?ms=1200");
    const longer = textOf(client, "/wait?ms=1500");
    expect(await shorter).toEqual([200, "waited as GET"]);
    server.kill("SIGTERM");
    expect(await longer).toEqual([200, "waited as GET"]);
    await endedCleanly(server);
    expect(server.stderr).not.toContain("is killed");
  });

  test("a handler stuck in a loop does not hold it up for longer than shutdownTimeout", async () => {
    await using server = await startFixture("server.ts", { options: { shutdownTimeout: 500, workers: 2 } });
    await using client = await HTTP2.open(server);
    await spin(server, client);
    const began = performance.now();
    server.kill("SIGTERM");
    await endedCleanly(server);
    expect(performance.now() - began).toBeLessThan(6_000);
    expect(server.stderr.match(/worker \d \(\d+\) has not left in time: it is killed/g)).toHaveLength(1);
  });
});

describe("an end that is not graceful", () => {
  test("kill -9 of the manager leaves no process, no file and no port behind, and the log says so", async () => {
    await using server = await startFixture("server.ts", { options: { workers: 2, reactors: 2 } });
    await using client = await HTTP1.open(server);
    expect((await textOf(client, "/hello"))[0]).toBe(200);
    expect(server.remaining().length).toBeGreaterThan(2);
    server.kill("SIGKILL");
    expect(await server.ended()).toBe("SIGKILL");
    await server.leavesNothing(5_000);
    await bindable(server.port);
    await server.logs("1: the manager has gone: the server ends");
  });

  if (MODE === "process") {
    test("kill -9 of the manager with requests in flight and a stuck worker leaves no process behind", async () => {
      await using server = await startFixture("server.ts", { options: { workers: 2 } });
      await using client = await HTTP2.open(server);
      for (const path of ["/hang", "/begin"]) client.request({ path }).catch(() => {});
      await untilInFlight(client, 2);
      await spin(server, client);
      server.kill("SIGKILL");
      expect(await server.ended()).toBe("SIGKILL");
      await until("every process to end", 5_000, () => server.remaining().length === 0);
    });
  }

  test("a second signal ends a server whose listener of shutdown never finishes; without it the end of shutdownTimeout does, after three seconds at least", async () => {
    const env = { TERCET_TEST_ENDLESS: "1" };
    const options = { shutdownTimeout: 1000 };
    await using unhurried = await startFixture("events.ts", { env, options });
    unhurried.kill("SIGTERM");
    await unhurried.prints("event shutdown");
    const told = performance.now();
    await using server = await startFixture("events.ts", { env });
    server.kill("SIGTERM");
    await server.prints("event shutdown");
    // One that comes with the first is the first: it is sent until one comes later.
    await until("an end", 5_000, () => {
      server.kill("SIGTERM");
      return server.hasExited;
    });
    expect(await server.ended()).toBe(1);
    await server.logs(/given up at shutdown: a listener of "shutdown" has not finished$/m);
    expect(await unhurried.ended()).toBe(1);
    expect(performance.now() - told).toBeGreaterThan(2_500);
    await unhurried.logs('given up at shutdown: a listener of "shutdown" has not finished within 3000 ms');
  });

  test("a second signal ends at once what the first is waiting for", async () => {
    await using server = await startFixture("server.ts", { options: { shutdownTimeout: 60_000 } });
    await using client = await HTTP2.open(server);
    client.request({ path: "/hang" }).catch(() => {});
    await untilInFlight(client, 1);
    server.kill("SIGTERM");
    await until("refused connections", 5_000, async () => {
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const socket = net.connect(server.port, "127.0.0.1", () => resolve(false));
      socket.on("error", () => resolve(true));
      const isRefused = await promise;
      socket.destroy();
      return isRefused;
    });
    // One that comes with the first is the first: it is sent until one comes later.
    await until("an end", 5_000, () => {
      server.kill("SIGTERM");
      return server.hasExited;
    });
    await server.ended();
    await until("every process to end", 5_000, () => server.remaining().length === 0);
  });

  test("a shutdown amid a reload does not wait for the new code, and is no failure of it", async () => {
    await using versions = await startVersions({ workers: 2 });
    const { server } = versions;
    await using client = await HTTP2.open(server);
    versions.load("silent");
    server.kill("SIGHUP");
    await until("new workers", 10_000, async () => (await readStats(client)).workers.length === 4);
    client.close();
    await server.stop("SIGTERM", 10_000);
    await server.logs("manager: no reload: the server is shutting down");
    expect(server.stderr).not.toMatch(/old code|ended/);
  });
});
