/**
 * The mode `base`: each worker owns its sockets and runs the handler in place. That it does what the mode `process` does is
 * shown by the same tests (`npm run test:base`); here are some of all, and what is different.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { runDirectoryIn, tercet } from "./support/cli.ts";
import { type Client, header } from "./support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2, QUICHE } from "./support/clients.ts";
import type { Http2Client } from "./support/http2-client.ts";
import type { QuicheClient } from "./support/http3-quiche-client.ts";
import { until } from "./support/poll.ts";
import { RawConnection } from "./support/raw-connection.ts";
import { fixture, Scratch, startCli, startFixture, type TestServer } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { countsOf, readStats, type ServerStats, untilIdle, untilInFlight } from "./support/stats.ts";
import { startVersions } from "./support/versions.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const start = (options: Readonly<Record<string, unknown>> = {}): Promise<TestServer> =>
  startFixture("server.ts", { options: { mode: "base", ...options } });

async function textOf(client: Client, path: string): Promise<string> {
  return (await client.request({ path })).body.text();
}

describe("the handler cannot tell", () => {
  const shared = sharedServer(() => start({ maxBodyBytes: 1_000_000, requestTimeout: 1_000 }));

  for (const kind of ALL_CLIENTS) {
    test(`${kind.name}: requests, bodies, streams, limits, errors and aborts`, async () => {
      await using client = await kind.open(shared.server);
      await using observer = await HTTP2.open(shared.server);
      expect(await textOf(client, "/hello")).toBe(`Hello from ${kind.protocol}!`);
      const facts = await (await client.request({ path: "/server?a=b" })).body.json<{
        server: Record<string, unknown>;
      }>();
      expect(facts.server).toMatchObject({
        server_protocol: kind.protocol,
        request_method: "GET",
        path_info: "/server",
        query_string: "a=b",
        remote_addr: "127.0.0.1",
        server_port: shared.server.port,
      });
      const body = randomBytes(300_000);
      const digest = createHash("sha256").update(body).digest("hex");
      const raw = await client.request({ path: "/raw", body });
      expect(await raw.body.json<unknown>()).toEqual({ length: body.length, sha256: digest });
      const echo = await client.request({ path: "/echo", body });
      expect((await echo.body.digest()).sha256).toBe(digest);
      expect(await textOf(client, "/logged")).toBe("answered");
      await shared.server.prints(`answered ${kind.protocol} 127.0.0.1 true 127.0.0.1\n`);
      expect((await textOf(client, "/writes?count=20")).split("\n").length).toBe(22);
      {
        // Of its own, for what a client makes of its connection when an upload is stopped is not asked here.
        await using uploader = await kind.open(shared.server);
        const large = await uploader
          .request({ path: "/raw", body: randomBytes(1_100_000) })
          .catch(() => null);
        // A client whose upload was stopped may not have seen the answer.
        if (large !== null) expect(large.status).toBe(413);
      }
      const failed = await client.request({ path: "/throw" });
      expect([failed.status, await failed.body.text()]).toEqual([500, "500 Internal Server Error\n"]);
      const late = await client.request({ path: "/hang" });
      expect(late.status).toBe(504);
      await late.body.bytes();
      const { aborted } = await (await observer.request({ path: "/aborted" })).body.json<{
        aborted: number;
      }>();
      const begun = await client.request({ path: "/begin" });
      await begun.body.read();
      await untilInFlight(
        observer,
        1,
        ({ path, protocol }) => path === "/begin" && protocol === kind.protocol,
      );
      begun.body.cancel();
      await until("the abort", 5_000, async () => {
        const now = await (await observer.request({ path: "/aborted" })).body.json<{ aborted: number }>();
        return now.aborted > aborted;
      });
      const stats = await untilIdle(observer);
      expect(countsOf(stats, kind.protocol).completed).toBeGreaterThan(5);
    });
  }
});

describe("several workers", () => {
  test("share the port, and every client is served by the one that has its connection", async () => {
    await using server = await start({ workers: 2 });
    const pids = new Set<string>();
    for (const kind of ALL_CLIENTS) {
      for (let i = 0; i < 8; i++) {
        await using client = await kind.open(server);
        const pid = await textOf(client, "/pid");
        expect(await textOf(client, "/pid")).toBe(pid);
        pids.add(pid);
      }
    }
    expect(pids.size).toBe(2);
  });

  test("one that dies takes its connections with it, and is replaced", async () => {
    await using server = await start({ workers: 2 });
    await using client = await HTTP1.open(server);
    const pid = Number(await textOf(client, "/pid"));
    process.kill(pid, "SIGKILL");
    await until("another", 10_000, async () => {
      const { workers } = await readStats(client);
      return (
        workers.length === 2 && workers.every((worker) => worker.state === "ready" && worker.pid !== pid)
      );
    });
    for (const kind of ALL_CLIENTS) {
      await using again = await kind.open(server);
      expect(await textOf(again, "/hello")).toBe(`Hello from ${kind.protocol}!`);
    }
  });
});

test("totals of the server go on when a worker leaves, ends, or is killed", async () => {
  await using server = await start({ workers: 1 });
  let asked = 0;
  const ask = async (path: string) => {
    await using client = await HTTP1.open(server);
    const text = await textOf(client, path);
    asked++;
    return text;
  };
  const stats = async () => JSON.parse(await ask("/stats")) as ServerStats;
  const totals = async () => (await stats()).totals["HTTP/1.1"];
  const pidOfWorker = async () => Number(await ask("/pid"));
  const untilAnother = (pid: number) =>
    until("another worker", 10_000, async () => {
      const { workers } = await stats();
      return workers.length === 1 && workers[0]?.pid !== pid;
    });

  for (let i = 0; i < 20; i++) await ask("/hello");
  const first = await pidOfWorker();
  server.kill("SIGHUP");
  await untilAnother(first);
  expect(await totals()).toEqual({ active: 1, completed: asked - 1, aborted: 0, failed: 0, rejected: 0 });

  const second = await pidOfWorker();
  const hanging = ask("/hang").catch(() => {});
  await until("it to be in flight", 5_000, async () => (await totals()).active === 2);
  await ask("/exit").catch(() => {});
  await hanging;
  await untilAnother(second);
  expect(await totals()).toEqual({ active: 1, completed: asked - 1, aborted: 0, failed: 1, rejected: 0 });

  const third = await pidOfWorker();
  const known = (await totals()).completed;
  expect(known).toBe(asked - 1);
  process.kill(third, "SIGKILL");
  await untilAnother(third);
  expect((await totals()).completed).toBeGreaterThanOrEqual(known);
  const status = await tercet(server.scratch, [
    "status",
    "--json",
    "--run-dir",
    runDirectoryIn(server.scratch),
  ]);
  const told = JSON.parse(status.stdout).totals["HTTP/1.1"];
  // The last of the killed one was in flight when it was heard last.
  expect(told.completed + told.failed).toBe(asked + 1);
});

describe("a handler that never lets go of its worker", () => {
  test("is killed with it when requestTimeout is over, and replaced", async () => {
    await using server = await start({ workers: 1, requestTimeout: 3_000 });
    await using client = await HTTP1.open(server);
    const spinning = client.request({ path: "/spin" }).then(
      ({ status }) => status,
      () => "lost",
    );
    // A second until it is asked, and then requestTimeout; not twice that.
    const killed = /worker 1 \(\d+\) has stopped answering: it is killed/;
    await until("its end", 5_500, () => killed.test(server.stderr));
    expect(await spinning).toBe("lost");
    await until("another", 10_000, async () => {
      await using again = await HTTP1.open(server);
      return (await textOf(again, "/hello").catch(() => "")) === "Hello from HTTP/1.1!";
    });
  });

  test("is killed with it when shutdownTimeout is over, and the log says so", async () => {
    await using server = await start({ workers: 2, shutdownTimeout: 500 });
    await using client = await HTTP1.open(server);
    const pid = await textOf(client, "/pid");
    const file = server.scratch.file("spinning");
    const spinning = client.request({ path: `/spin?file=${file}` }).catch(() => null);
    await until("the loop", 5_000, () => existsSync(file));
    await server.stop();
    expect(server.stderr.match(/worker \d \(\d+\) has not left/g)).toHaveLength(1);
    expect(server.stderr).toMatch(new RegExp(`worker \\d \\(${pid}\\) has not left in time: it is killed`));
    expect(await spinning).toBeNull();
  });

  test("is told in the log, once, where there is no requestTimeout", async () => {
    await using server = await start({ workers: 1 });
    await using client = await HTTP1.open(server);
    const computed = textOf(client, "/compute?ms=13000");
    await until("a line", 10_000, () =>
      server.stderr.includes("has not answered for 5 s: its connections wait"),
    );
    await computed;
    expect(server.stderr.match(/has not answered/g)).toHaveLength(1);
  });
});

describe("a reload", () => {
  test("HTTP/1.1 loses no request; HTTP/2 and HTTP/3 are told by GOAWAY, and what is in flight finishes", async () => {
    await using server = await start({ workers: 1 });
    await using http1 = await HTTP1.open(server);
    await using http2 = (await HTTP2.open(server)) as Http2Client;
    await using quiche = (await QUICHE.open(server)) as QuicheClient;
    const before = await textOf(http1, "/pid");
    let isOver = false;
    const wrong: string[] = [];
    const load = Array.from({ length: 4 }, async () => {
      while (!isOver) {
        try {
          const text = await textOf(http1, "/wait?ms=5");
          if (text !== "waited as GET") wrong.push(text);
        } catch (error) {
          wrong.push(String(error));
        }
      }
    });
    const slow = textOf(http2, "/wait?ms=2000");
    await untilInFlight(http1, 1, ({ path }) => path === "/wait?ms=2000");
    server.kill("SIGHUP");
    await until("the new worker", 10_000, async () => (await textOf(http1, "/pid")) !== before);
    await until("GOAWAY", 5_000, () => http2.isLost);
    await until("the end of the connection of HTTP/3", 5_000, () => quiche.closedBecause !== null);
    expect(await slow).toBe("waited as GET");
    isOver = true;
    await Promise.all(load);
    expect(wrong).toEqual([]);
    for (const kind of ALL_CLIENTS) {
      await using again = await kind.open(server);
      expect(await textOf(again, "/pid")).not.toBe(before);
    }
    await until("the old worker to leave", 10_000, async () => (await readStats(http1)).workers.length === 1);
  });
});

describe("plain HTTP/1.1", () => {
  const get = "GET /pid HTTP/1.1\r\nHost: a\r\n\r\n";

  test("shares its port, too", async () => {
    for (const options of [{ workers: 2 }, { mode: "process", reactors: 2 }]) {
      await using server = await start({ ...options, tls: false });
      using connection = await RawConnection.openPlain(server.port);
      connection.send(get);
      expect(await connection.untilReceived(/\d+$/)).toStartWith("HTTP/1.1 200 ");
    }
  });

  test("a reload closes no idle connection under a request", async () => {
    await using server = await start({ workers: 1, tls: false });
    using connection = await RawConnection.openPlain(server.port);
    connection.send(get);
    const first = await connection.untilReceived(/\d+$/);
    server.kill("SIGHUP");
    await server.logs("reloaded");
    connection.send(get);
    const second = (await connection.untilClosed()).slice(first.length);
    expect(second).toStartWith("HTTP/1.1 200 ");
    expect(second).toMatch(/^connection: close\r$/im);
    expect(second.match(/\d+$/)?.[0]).toBe(first.match(/\d+$/)?.[0] as string);
    using other = await RawConnection.openPlain(server.port);
    other.send(get);
    expect((await other.untilReceived(/\d+$/)).match(/\d+$/)?.[0]).not.toBe(first.match(/\d+$/)?.[0]);
    expect(server.stderr).not.toContain("Error");
  });
});

test("a reload to code that cannot listen fails, and what serves stays", async () => {
  for (const reloadStrategy of ["all-at-once", "one-at-a-time"]) {
    await using versions = await startVersions({ mode: "base", workers: 2, reloadStrategy });
    const { server } = versions;
    await using client = await HTTP1.open(server);
    const before = await textOf(client, "/pid");
    versions.load("deaf");
    expect(await textOf(client, "/reload")).toBe(`ReloadError: port ${server.port} on 127.0.0.1 is in use`);
    await server.logs("reload failed, the old code still serves: port");
    expect(await textOf(client, "/pid")).toBe(before);
    const { workers } = await until("the old ones alone", 5_000, async () => {
      const stats = await readStats(client);
      return stats.workers.length === 2 && stats;
    });
    expect(workers.map(({ state, restarts }) => `${state} ${restarts}`)).toEqual(["ready 0", "ready 0"]);
    versions.load("2");
    expect(await textOf(client, "/reload")).toBe("reloaded");
  }
});

test("where no worker is left nobody is answered, the log says so, and the next that loads serves", async () => {
  await using versions = await startVersions({ mode: "base", workers: 1 });
  const { server } = versions;
  await using client = await HTTP1.open(server);
  const pid = Number(await textOf(client, "/pid"));
  versions.load("broken");
  process.kill(pid, "SIGKILL");
  await server.logs("no worker is left: nobody is answered until one has started");
  versions.load("2");
  await server.logs("worker 1 serves again");
  await using again = await HTTP1.open(server);
  expect(await textOf(again, "/version")).toBe("2");
});

test("with the HTTP/3 engine quic there is no reload, and what serves stays", async () => {
  await using server = await start({ workers: 1, http3: "quic" });
  await using quiche = await QUICHE.open(server);
  const before = await textOf(quiche, "/pid");
  server.kill("SIGHUP");
  await server.logs(
    'reload failed, the old code still serves: in the mode "base" the HTTP/3 engine "quic" cannot share its port',
  );
  expect(await textOf(quiche, "/pid")).toBe(before);
});

describe("concurrency: what waits runs when its handler has let go", () => {
  test("where a path might have been a file's, and while one is being sent", async () => {
    using scratch = await Scratch.make();
    writeFileSync(scratch.file("large.bin"), new Uint8Array(32 * 1_048_576));
    await using server = await start({ workers: 1, concurrency: 1, static: { root: scratch.path } });
    for (const kind of ALL_CLIENTS) {
      await using client = await kind.open(server);
      await using observer = await HTTP1.open(server);
      expect(await textOf(client, "/hello")).toBe(`Hello from ${kind.protocol}!`);
      const { body } = await client.request({ path: "/large.bin" });
      expect(await textOf(observer, "/hello")).toBe("Hello from HTTP/1.1!");
      expect((await body.digest()).length).toBe(32 * 1_048_576);
    }
  });

  test("however many there are that are over as soon as they run", async () => {
    const options = { workers: 1, concurrency: 1, queueTarget: 60_000, tls: false };
    await using server = await start(options);
    using observer = await RawConnection.openPlain(server.port);
    const ask = (path: string) => `GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`;
    observer.send(ask("/stats") + ask("/hello"));
    const seen = await observer.untilReceived(/Hello from/);
    expect(seen.match(/"state":"(?:dispatched|queued)"/g)).toEqual([
      '"state":"dispatched"',
      '"state":"queued"',
    ]);
    using first = await RawConnection.openPlain(server.port);
    first.send(ask("/wait?ms=2000"));
    const others = await Promise.all(Array.from({ length: 100 }, () => RawConnection.openPlain(server.port)));
    for (const other of others) {
      other.send(ask("/hello").repeat(60));
    }
    await Promise.all(others.map((other) => other.untilReceived(/(?:HTTP\/1\.1 200 OK.*?){60}$/s, 20_000)));
    for (const other of others) other[Symbol.dispose]();
  });
});

test("by the command line, with static files and compression", async () => {
  await using server = await startCli(fixture("app.ts"), {
    flags: { mode: "base", workers: 2, static: fixture("") },
  });
  for (const kind of ALL_CLIENTS) {
    await using client = await kind.open(server);
    expect(await textOf(client, "/hello")).toBe("Hello from fetch!");
    const file = await client.request({ path: "/app.ts" });
    expect(header(file, "content-type")).toBe("video/mp2t");
    expect((await file.body.text()).length).toBeGreaterThan(500);
  }
});
