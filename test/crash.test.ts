/** A worker dies: what its clients see, and that every connection stays. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { Client } from "./support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2, QUICHE, RESETTING_CLIENTS } from "./support/clients.ts";
import { Http2Client } from "./support/http2-client.ts";
import { QuicheClient } from "./support/http3-quiche-client.ts";
import { inTime, until } from "./support/poll.ts";
import { Scratch, startFixture, type TestServer } from "./support/server.ts";
import { expectCutShort } from "./support/short.ts";
import { readStats, type ServerStats, untilIdle, untilInFlight } from "./support/stats.ts";

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
    await using quiche = await QuicheClient.connect(server);
    await using http2 = await Http2Client.connect(server);
    await using http1 = await HTTP1.open(server);
    await using observer = await HTTP2.open(server);
    let isOver = false;
    const answered = new Map<string, number>();
    const wrong: string[] = [];
    const load = async (client: Client, method: string, body?: string) => {
      while (!isOver) {
        const request = { method, path: "/wait?ms=15", ...(body === undefined ? {} : { body }) };
        try {
          const response = await client.request(request);
          const text = await response.body.text();
          if (response.status === 200) answered.set(client.name, (answered.get(client.name) ?? 0) + 1);
          else wrong.push(`${client.name} ${method}: ${response.status} ${text}`);
        } catch (error) {
          wrong.push(`${client.name} ${method}: ${error}`);
        }
      }
    };
    const loads = [quiche, http2, http1].flatMap((client) => [
      ...Array.from({ length: 10 }, () => load(client, "GET")),
      load(client, "PUT"),
      load(client, "DELETE"),
    ]);
    const kills = async () => {
      for (let round = 0; round < 6; round++) await killOne(observer, round);
    };
    try {
      await kills();
    } finally {
      isOver = true;
      await Promise.all(loads);
    }
    expect(wrong).toEqual([]);
    for (const client of [quiche, http2, http1]) expect(answered.get(client.name)).toBeGreaterThan(100);
    expect(quiche.closedBecause).toBeNull();
    expect(http2.isLost).toBe(false);
    expect(await textOf(quiche, "/hello")).toBe("Hello from HTTP/3!");
    expect(await textOf(http2, "/hello")).toBe("Hello from HTTP/2!");
    const stats = await untilIdle(observer);
    expect(stats.workers.reduce((sum, { restarts }) => sum + restarts, 0)).toBe(6);
  }, 60_000);
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
  test("is replaced with back-off, and the server recovers", async () => {
    const scratch = await Scratch.make();
    const die = scratch.file("die");
    const log = scratch.file("loads");
    await using server: TestServer = await startFixture("dies-while-loading.ts", {
      scratch,
      env: { TERCET_TEST_DIE: die, TERCET_TEST_LOADS: log },
    });
    await using client = await QUICHE.open(server);
    const loads = () => readFileSync(log, "latin1").split("\n").filter(Boolean).map(Number);
    const pid = Number(await textOf(client, "/pid"));
    const atFirst = loads().length;
    writeFileSync(die, "");
    process.kill(pid, "SIGKILL");
    await until("five more loads", 20_000, () => loads().length >= atFirst + 5);
    const times = loads().slice(atFirst);
    const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0));
    // The first replacement may come at once; each that follows is later than the one before.
    expect(gaps.at(-1) ?? 0).toBeGreaterThan(2 * (gaps[0] ?? 0));
    expect(gaps.at(-1) ?? 0).toBeGreaterThan(300);
    // A request of that time is answered, one way or the other, and the connection stays.
    const meanwhile = client.request({ path: "/hello" });
    rmSync(die);
    expect(existsSync(die)).toBe(false);
    const response = await inTime("an answer", 20_000, meanwhile);
    expect([200, 502, 503]).toContain(response.status);
    await response.body.bytes();
    await until("service again", 20_000, async () => (await textOf(client, "/hello")) !== "");
    expect((client as QuicheClient).closedBecause).toBeNull();
  }, 60_000);
});
