/** A worker dies: what its clients see, and that every connection stays. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { type Client, header } from "../support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2, RESETTING_CLIENTS } from "../support/clients.ts";
import { Http2Client } from "../support/http2-client.ts";
import { QuicheClient } from "../support/http3-quiche-client.ts";
import { Load } from "../support/load.ts";
import { inTime, until } from "../support/poll.ts";
import { commandLine, descendantsOf } from "../support/processes.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { fixture, OPTIONS_VARIABLE, Scratch, startFixture, TestServer } from "../support/server.ts";
import { expectCutShort } from "../support/short.ts";
import {
  killWorkers,
  readStats,
  restartsOf,
  type ServerStats,
  untilIdle,
  untilInFlight,
  untilRestarted,
} from "../support/stats.ts";
import { startVersions } from "../support/versions.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

async function textOf(client: Client, path: string): Promise<string> {
  const response = await client.request({ path });
  const text = await response.body.text();
  expect(response.status).toBe(200);
  return text;
}

/** Waits until as many workers as before are there, without the one that died. */
function untilReplaced(client: Client, before: ServerStats, dead: number): Promise<ServerStats> {
  return until("the worker to be replaced", 10_000, async () => {
    const stats = await readStats(client);
    const pids = stats.workers.map(({ pid }) => pid);
    const isWhole =
      pids.length === before.workers.length && stats.workers.every(({ state }) => state === "ready");
    return isWhole && !pids.includes(dead) && stats;
  });
}

/** Kills a worker with SIGKILL and waits for the next. */
async function killOne(client: Client, index: number): Promise<void> {
  const before = await readStats(client);
  const pid = before.workers[index % before.workers.length]?.pid ?? 0;
  expect(pid).toBeGreaterThan(0);
  process.kill(pid, "SIGKILL");
  await untilReplaced(client, before, pid);
}

describe("kill -9 of workers under load", () => {
  test("every idempotent request succeeds and every connection stays", async () => {
    await using server = await startFixture("server.ts", { options: { workers: 3 } });
    const requests = ["GET", "PUT", "DELETE"].map((method) => ({ method, path: "/wait?ms=15" }));
    await using load = await Load.begin(server, { requests });
    await using observer = await HTTP2.open(server);
    for (let round = 0; round < 6; round++) await killOne(observer, round);
    await load.expectUnharmed();
    const stats = await untilIdle(observer);
    expect(restartsOf(stats)).toBe(6);
  });

  test("one each 100 ms: idempotent requests lose none, and the others none but those of that worker", async () => {
    const parallel = 4;
    await using server = await startFixture("server.ts", { options: { workers: 4 } });
    await using load = await Load.begin(server, { requests: [{ path: "/wait?ms=15" }], parallel });
    await using others = await Load.begin(server, {
      requests: [{ method: "POST", path: "/wait?ms=15" }],
      parallel,
      isRight: (status) => status === 200 || status === 502,
    });
    await using observer = await HTTP2.open(server);
    const deadline = performance.now() + 30_000;
    const killed = await killWorkers(observer, (count) => count === 15 || performance.now() >= deadline);
    expect(killed).toBe(15);
    await load.expectUnharmed();
    await others.expectUnharmed();
    await untilIdle(observer);
  });
});

describe("a handler that never lets go of its worker", () => {
  test("costs its own requests, and no one else's", async () => {
    const options = { workers: 2, requestTimeout: 2_000, shutdownTimeout: 500 };
    await using server = await startFixture("server.ts", { options });
    await using load = await Load.begin(server, { requests: [{ path: "/wait?ms=15" }] });
    await using observer = await HTTP2.open(server);
    for (const kind of ALL_CLIENTS) {
      await using client = await kind.open(server);
      const before = await readStats(observer);
      const began = performance.now();
      const response = await client.request({ path: "/spin" });
      expect(response.status).toBe(504);
      await response.body.bytes();
      expect(performance.now() - began).toBeLessThan(4_000);
      // With both of the workers spinning there would be nobody to serve the others.
      await untilRestarted(observer, before, 10_000);
    }
    await load.expectUnharmed();
    // Each was run by one worker, which was killed: a request that blocks its worker is not given to another.
    expect(server.stderr.match(/has stopped answering: it is killed/g)?.length).toBe(ALL_CLIENTS.length);
    await server.logs(/504 GET \/spin .* ms, for its handler does not let go of its worker/);
  });

  test("without requestTimeout it is told of, and the others are served", async () => {
    await using server = await startFixture("server.ts", { options: { workers: 2, shutdownTimeout: 500 } });
    await using client = await HTTP2.open(server);
    client.request({ path: "/spin" }).catch(() => {});
    await until("the word of it", 15_000, () => server.stderr.includes("has not answered for 5 s"));
    await server.logs(/worker \d has not answered for 5 s, since it runs GET \/spin /);
    // Not sooner: what the worker is given before it is known to be late waits with it.
    await using load = await Load.begin(server, { requests: [{ path: "/wait?ms=15" }] });
    await until("some answers", 10_000, () => load.count > 300);
    await load.expectUnharmed();
  });

  test("and a worker that went on since is like any other when it dies", async () => {
    await using server = await startFixture("server.ts", { options: { workers: 1 } });
    await using client = await HTTP2.open(server);
    expect(await textOf(client, "/compute?ms=7000")).toBe("computed");
    expect(server.stderr).toContain("has not answered for 5 s");
    const file = server.scratch.file("killed");
    const { status, body } = await client.request({ path: `/kill?file=${file}` });
    await body.bytes();
    expect(status).toBe(502);
    expect(readFileSync(file, "latin1")).toBe("GET\n".repeat(4));
  });
});

test("a worker that breaks the rules of the wire is replaced, and its requests end as when it dies", async () => {
  await using server = await startFixture("server.ts", { options: { workers: 1 } });
  await using client = await HTTP2.open(server);
  const before = await readStats(client);
  const { status, body } = await client.request({ method: "POST", path: "/garble" });
  await body.bytes();
  expect(status).toBe(502);
  await untilReplaced(client, before, before.workers[0]?.pid ?? 0);
  expect(await textOf(client, "/wait?ms=1")).toBe("waited as GET");
  await server.logs(/worker 1 \(\d+\) has broken its channel: it is killed/);
});

test("what a handler says by process.send is for nobody, and costs no process", async () => {
  await using server = await startFixture("server.ts", { options: { workers: 1 } });
  await using client = await HTTP1.open(server);
  const before = await readStats(client);
  const said = [null, "ready", { type: "stats" }, { type: "table" }, { type: "spent" }, { type: "ask" }];
  for (const what of said)
    expect(await textOf(client, `/send?what=${encodeURIComponent(JSON.stringify(what))}`)).toBe("sent");
  // Behind it on the same channel.
  const { workers } = await readStats(client);
  expect(workers.map(({ pid }) => pid)).toEqual(before.workers.map(({ pid }) => pid));
  expect(server.stderr).not.toContain("tercet manager");
});

test("a reactor that dies takes its connections with it, and the totals go on", async () => {
  await using server = await startFixture("server.ts");
  const before = await (async () => {
    await using client = await HTTP1.open(server);
    for (let i = 0; i < 10; i++) await textOf(client, "/hello");
    return await readStats(client);
  })();
  expect(before.totals["HTTP/1.1"]).toMatchObject({ active: 1, completed: 10 });
  process.kill(before.reactors[0]?.pid ?? 0, "SIGKILL");
  const after = await until("another", 10_000, async () => {
    await using client = await HTTP1.open(server);
    const stats = await readStats(client);
    return stats.reactors.length === 1 && stats.reactors[0]?.pid !== before.reactors[0]?.pid && stats;
  });
  expect(after.reactors[0]?.restarts).toBe(1);
  const { active, completed, failed } = after.totals["HTTP/1.1"];
  expect(completed + failed).toBeGreaterThanOrEqual(11);
  expect([active, completed >= 10]).toEqual([1, true]);
});

test("a reactor that never answers is killed, and another takes its place", async () => {
  await using server = await startFixture("server.ts");
  const reactorsOf = async () => {
    await using client = await HTTP1.open(server);
    return (await readStats(client)).reactors;
  };
  const stuck = (await reactorsOf())[0]?.pid ?? 0;
  process.kill(stuck, "SIGSTOP");
  const told = `reactor 1 (${stuck}) has not answered for 10 s: it is killed, and its connections with it`;
  await until("its end", 30_000, () => server.stderr.includes(told));
  const next = await until("another", 10_000, reactorsOf);
  expect(next.map(({ restarts }) => restarts)).toEqual([1]);
});

test("a reactor that starts while there is no worker answers 503, as the one before did", async () => {
  const scratch = await Scratch.make();
  const die = scratch.file("die");
  await using server: TestServer = await startFixture("dies-while-loading.ts", {
    scratch,
    env: { TERCET_TEST_DIE: die, TERCET_TEST_LOADS: scratch.file("loads") },
    options: { workers: 1 },
  });
  const { workers, reactors } = await (async () => {
    await using client = await HTTP1.open(server);
    return await readStats(client);
  })();
  writeFileSync(die, "");
  process.kill(workers[0]?.pid ?? 0, "SIGKILL");
  await server.logs("no worker is left: requests get 503");
  process.kill(reactors[0]?.pid ?? 0, "SIGKILL");
  await server.logs("reactor 1 ended (signal SIGKILL)");
  for (const kind of ALL_CLIENTS) {
    await using client = await until("a connection", 10_000, () => kind.open(server));
    const { status } = await until("an answer", 10_000, () =>
      inTime("one", 5_000, client.request({ path: "/hello" })),
    );
    expect(status).toBe(503);
  }
});

test("a reactor that begins to listen while the only worker starts has that worker", async () => {
  await using versions = await startVersions({ workers: 1 });
  const { server } = versions;
  const { workers, reactors } = await (async () => {
    await using client = await HTTP1.open(server);
    return await readStats(client);
  })();
  versions.load("late");
  const killed = reactors[0]?.pid ?? 0;
  process.kill(killed, "SIGKILL");
  const reactor = await until("the next reactor", 5_000, () =>
    descendantsOf(server.pid).find(({ pid }) => pid !== killed && /reactor/.test(commandLine(pid))),
  );
  process.kill(reactor.pid, "SIGSTOP");
  process.kill(workers[0]?.pid ?? 0, "SIGKILL");
  await until("the next worker", 10_000, () => versions.log().includes("late 1"));
  process.kill(reactor.pid, "SIGCONT");
  {
    using _raw = await until("a connection", 10_000, () => RawConnection.open(server.port));
  }
  await using client = await HTTP1.open(server);
  const answer = client.request({ path: "/version" });
  answer.catch(() => {});
  versions.release();
  expect(await (await inTime("the answer", 10_000, answer)).body.text()).toBe("late");
});

test("a reactor that says nothing keeps no worker from the others", async () => {
  await using server = await startFixture("server.ts", { options: { reactors: 2, workers: 1 } });
  await using client = await HTTP1.open(server);
  const { reactors, workers } = await readStats(client);
  const silent = reactors.find(({ inFlight }) => inFlight === 0);
  process.kill(silent?.pid ?? 0, "SIGSTOP");
  process.kill(workers[0]?.pid ?? 0, "SIGKILL");
  const pid = await inTime("the answer", 10_000, textOf(client, "/pid"));
  expect(Number(pid)).not.toBe(workers[0]?.pid ?? 0);
  await server.logs(new RegExp(`the reactor of \\S+/reactor-${silent?.id}\\.sock has not answered for 2 s`));
  // It gets this worker as soon as it goes on.
  process.kill(silent?.pid ?? 0, "SIGCONT");
  await until("an answer of each reactor", 10_000, async () => {
    await using other = await HTTP1.open(server);
    return (await readStats(other)).reactors.some(({ id, inFlight }) => id === silent?.id && inFlight === 1);
  });
});

test("a worker that may open no more files goes on, and the log says so once", async () => {
  await using server = await startFixture("server.ts", { options: { workers: 1, requestTimeout: 1_000 } });
  await using client = await HTTP2.open(server);
  const pid = await textOf(client, "/pid");
  expect(await textOf(client, "/open-files")).toBe("EMFILE");
  await server.logs("tercet worker 1: too many open files");
  // Longer than a worker may be silent.
  await Bun.sleep(5_000);
  expect(await textOf(client, "/pid")).toBe(pid);
  expect(server.stderr.match(/too many open files/g)?.length).toBe(1);
  expect(server.stderr).not.toContain("it is killed");
});

test("clients that would take every descriptor keep no worker from taking another's place", async () => {
  const scratch = await Scratch.make();
  const command = ["bash", "-c", 'ulimit -n 128; exec "$0" "$1"', process.execPath, fixture("server.ts")];
  const options = { mode: "process", tls: { cert: scratch.cert, key: scratch.key }, workers: 1 };
  const env = { [OPTIONS_VARIABLE]: JSON.stringify(options) };
  await using server = await new TestServer(scratch, command, env).ready();
  await using client = await HTTP1.open(server);
  const before = await textOf(client, "/pid");
  let [opened, closed] = [0, 0];
  const crowd = Array.from({ length: 150 }, () =>
    connect(server.port, "127.0.0.1", () => opened++)
      .on("close", () => closed++)
      .on("error", () => {})
      .resume(),
  );
  try {
    await until("all of them", 5_000, () => opened === crowd.length);
    await server.logs(/reactor 1: 6\d connections, and more are closed at once/);
    process.kill(Number(before), "SIGKILL");
    // On a connection that it had before.
    expect(await inTime("another worker's answer", 5_000, textOf(client, "/pid"))).not.toBe(before);
    expect(closed).toBeGreaterThan(50);
  } finally {
    for (const socket of crowd) socket.destroy();
  }
});

test("a machine that stands still for longer than requestTimeout costs no request, and no worker", async () => {
  await using server = await startFixture("server.ts", { options: { workers: 2, requestTimeout: 2_000 } });
  await using client = await HTTP2.open(server);
  const before = await readStats(client);
  const processes = [server.pid, ...server.remaining().map(({ pid }) => pid)];
  const waiting = Promise.all(Array.from({ length: 10 }, () => textOf(client, "/wait?ms=1500")));
  await untilInFlight(client, 10);
  for (const pid of processes) process.kill(pid, "SIGSTOP");
  try {
    await Bun.sleep(2_500);
  } finally {
    for (const pid of processes) process.kill(pid, "SIGCONT");
  }
  expect(await waiting).toEqual(Array(10).fill("waited as GET"));
  const after = await untilIdle(client);
  expect(after.workers.map(({ pid }) => pid)).toEqual(before.workers.map(({ pid }) => pid));
});

describe("a request whose worker dies", () => {
  for (const kind of ALL_CLIENTS) {
    describe(kind.name, () => {
      const runs = (file: string) => readFileSync(`${file}.log`, "latin1").split("\n").filter(Boolean);

      test("GET without a response begun is run again, once", async () => {
        await using server = await startFixture("server.ts", { options: { workers: 2 } });
        await using client = await kind.open(server);
        const file = server.scratch.file("once");
        expect(await textOf(client, `/exit-once?file=${file}`)).toBe("second run as GET");
        expect(runs(file)).toEqual(["GET", "GET"]);
        const twice = await client.request({ path: "/exit" });
        expect(twice.status).toBe(502);
        await twice.body.bytes();
        const post = await client.request({ method: "POST", path: `/exit-once?file=${file}-post` });
        expect(post.status).toBe(502);
        await post.body.bytes();
        expect(runs(`${file}-post`)).toEqual(["POST"]);
        expect(await textOf(client, "/hello")).toBe(`Hello from ${kind.protocol}!`);
        await untilIdle(client);
      });

      test("PUT whose body was consumed is not run again: 502", async () => {
        await using server = await startFixture("server.ts", { options: { workers: 2 } });
        await using client = await kind.open(server);
        const file = server.scratch.file("once");
        const body = new Uint8Array(400_000);
        const response = await client.request({
          method: "PUT",
          path: `/exit-once-after-body?file=${file}`,
          body,
        });
        expect(response.status).toBe(502);
        await response.body.bytes();
        expect(runs(file)).toEqual(["PUT"]);
        await untilIdle(client);
      });

      test("a response that had begun is cut short, and that stream alone", async () => {
        await using server = await startFixture("server.ts", { options: { workers: 2 } });
        await using client = await kind.open(server);
        await using observer = await HTTP2.open(server);
        const begun = await client.request({ path: "/begin" });
        const pid = Number(new TextDecoder().decode((await begun.body.read()) ?? undefined));
        const before = await readStats(observer);
        await expectCutShort(kind.protocol, begun.body, () => process.kill(pid, "SIGKILL"));
        await untilReplaced(observer, before, pid);
        expect(await textOf(client, "/hello")).toBe(`Hello from ${kind.protocol}!`);
        if (client instanceof QuicheClient) expect(client.closedBecause).toBeNull();
        if (client instanceof Http2Client) expect(client.isLost).toBe(false);
        await untilIdle(observer);
      });
    });
  }
});

test("a request that is running each time its worker is killed runs four times in all", async () => {
  await using server = await startFixture("server.ts", { options: { workers: 2 } });
  await using client = await HTTP2.open(server);
  const log = server.scratch.file("runs");
  const response = await client.request({ path: `/kill?file=${log}` });
  expect(response.status).toBe(502);
  await response.body.bytes();
  expect(readFileSync(log, "latin1")).toBe("GET\n".repeat(4));
  await untilIdle(client);
});

describe("a request on the same connection as one whose worker dies", () => {
  for (const kind of RESETTING_CLIENTS) {
    test(`${kind.name}: a stream served by another worker goes on`, async () => {
      await using server = await startFixture("server.ts", { options: { workers: 2 } });
      await using client = await kind.open(server);
      const [first, second] = [
        await client.request({ path: "/begin" }),
        await client.request({ path: "/begin" }),
      ];
      const pidOf = async (response: typeof first) =>
        Number(new TextDecoder().decode((await response.body.read()) ?? undefined));
      const pids = [await pidOf(first), await pidOf(second)];
      expect(pids[0]).not.toBe(pids[1] ?? 0);
      const before = await readStats(client);
      await expectCutShort(kind.protocol, first.body, () => process.kill(pids[0] ?? 0, "SIGKILL"));
      // The other was not touched: it is still open, and ends when its client says so.
      const stats = await untilReplaced(client, before, pids[0] ?? 0);
      expect(stats.workers.map(({ pid }) => pid)).toContain(pids[1] ?? 0);
      await untilInFlight(client, 1, ({ path }) => path === "/begin");
      second.body.cancel();
      await untilIdle(client);
    });
  }
});

describe("a worker that dies at once", () => {
  test("is replaced with back-off; with none left the answer is 503, and the log says once why", async () => {
    const scratch = await Scratch.make();
    const die = scratch.file("die");
    const log = scratch.file("loads");
    await using server: TestServer = await startFixture("dies-while-loading.ts", {
      scratch,
      env: { TERCET_TEST_DIE: die, TERCET_TEST_LOADS: log },
    });
    const clients = await Promise.all(ALL_CLIENTS.map((kind) => kind.open(server)));
    try {
      const [client] = clients as [Client];
      const loads = () => readFileSync(log, "latin1").split("\n").filter(Boolean).map(Number);
      const pid = Number(await textOf(client, "/pid"));
      const atFirst = loads().length;
      writeFileSync(die, "");
      process.kill(pid, "SIGKILL");
      await until("five more loads", 20_000, () => loads().length >= atFirst + 5);
      const times = loads().slice(atFirst);
      const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0));
      // The first replacement comes at once; each that follows is later than the one before, the last by 800 ms.
      expect(gaps.at(-1) ?? 0).toBeGreaterThan((gaps[0] ?? 0) + 300);
      for (const one of clients) {
        const began = performance.now();
        const response = await one.request({ path: "/hello" });
        expect(response.status).toBe(503);
        expect(header(response, "retry-after")).toBe("1");
        await response.body.bytes();
        expect(performance.now() - began).toBeLessThan(500);
      }
      expect(server.stderr.match(/worker 1 ended \(exit code 3\) before it was ready/g)?.length).toBe(1);
      expect(server.stderr.match(/no worker is left: requests get 503/g)?.length).toBe(1);
      rmSync(die);
      await until("service again", 20_000, async () => {
        const response = await client.request({ path: "/hello" });
        await response.body.bytes();
        return response.status === 200;
      });
      await server.logs("worker 1 serves again");
      for (const one of clients) expect(await textOf(one, "/hello")).toBe(`Hello from ${one.protocol}!`);
      // What it did last is kept for the reactors to look at, and not for longer.
      const isNoted = () =>
        readdirSync(scratch.run, { recursive: true, encoding: "utf8" }).some((path) =>
          path.endsWith(`/worker-${pid}.progress`),
        );
      await until("nothing of the first to be left", 6_000, () => !isNoted());
    } finally {
      for (const one of clients) await one.close();
    }
  });
});
