/** Workers are replaced while they serve: by a reload, and when they have had enough. No request and no connection notices. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import type { Client } from "../support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2 } from "../support/clients.ts";
import { Load, MIXED_REQUESTS } from "../support/load.ts";
import { inTime, until } from "../support/poll.ts";
import { Scratch, startCli } from "../support/server.ts";
import { readStats, untilIdle, untilInFlight } from "../support/stats.ts";
import { startVersions } from "../support/versions.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

/** Under load. `npm run chaos` has twenty. */
const RELOADS = 8;

async function textOf(client: Client, path: string): Promise<string> {
  return (await client.request({ path })).body.text();
}

async function pidsOf(client: Client): Promise<number[]> {
  const { workers } = await readStats(client);
  return workers.filter(({ state }) => state === "ready").map(({ pid }) => pid);
}

describe("a reload", () => {
  test("one after another under load cost no request and no connection", async () => {
    await using versions = await startVersions({ workers: 2 });
    await using load = await Load.begin(versions.server, { requests: MIXED_REQUESTS });
    await using observer = await HTTP2.open(versions.server);
    for (let version = 2; version <= RELOADS + 1; version++) {
      versions.load(String(version));
      expect(await textOf(observer, "/reload")).toBe("reloaded");
      expect(await textOf(observer, "/version")).toBe(String(version));
    }
    await load.expectUnharmed();
    await until(
      "the old ones to leave",
      5_000,
      () => versions.log().length === 2 * RELOADS + 2 * (RELOADS + 1),
    );
    const stats = await untilIdle(observer);
    expect(stats.workers.map(({ restarts }) => restarts)).toEqual([0, 0]);
    expect(versions.server.stderr).not.toMatch(/ended|died|error/);
  });

  test("all at once: no old code answers after new code has", async () => {
    await using versions = await startVersions({ workers: 3 });
    await using client = await HTTP2.open(versions.server);
    const seen: string[] = [];
    let isOver = false;
    const ask = async () => {
      while (!isOver) seen.push(await textOf(client, "/version"));
    };
    const asking = Array.from({ length: 6 }, ask);
    versions.load("2");
    expect(await textOf(client, "/reload")).toBe("reloaded");
    const after = seen.length;
    await until("answers after it", 5_000, () => seen.length > after + 50);
    isOver = true;
    await Promise.all(asking);
    // One that was sent before the switch may come in after it, but none is sent to old code then.
    expect(seen.slice(after + asking.length)).not.toContain("1");
    expect(seen).toContain("1");
  });

  test("one at a time: there is never more than one worker too many", async () => {
    await using versions = await startVersions({ workers: 3, reloadStrategy: "one-at-a-time" });
    await using client = await HTTP2.open(versions.server);
    const before = await pidsOf(client);
    let most = 0;
    let isOver = false;
    const watch = async () => {
      while (!isOver) {
        const { workers } = await readStats(client);
        most = Math.max(most, workers.filter(({ state }) => state === "starting").length);
      }
    };
    const watching = watch();
    versions.load("2");
    versions.server.kill("SIGHUP");
    await until("new workers alone", 20_000, async () => {
      const pids = await pidsOf(client);
      return pids.length === 3 && !pids.some((pid) => before.includes(pid));
    });
    isOver = true;
    await watching;
    expect(most).toBe(1);
    expect(await textOf(client, "/version")).toBe("2");
    await until("the word of it", 2_000, () => versions.server.stderr.includes("reloaded"));
  });

  test("of code that does not load leaves the old serving, and says why", async () => {
    await using versions = await startVersions({ workers: 2, reloadTimeout: 11_000 });
    await using load = await Load.begin(versions.server, { requests: MIXED_REQUESTS });
    await using client = await HTTP2.open(versions.server);
    const before = await pidsOf(client);
    versions.load("broken");
    expect(await textOf(client, "/reload")).toMatch(
      /^ReloadError: .*ended \(exit code 1\) before it was ready/,
    );
    versions.server.kill("SIGHUP");
    const told = () => versions.server.stderr.match(/the old code still serves/g);
    await until("the word of both", 20_000, () => told()?.length === 2);
    expect(await pidsOf(client)).toEqual(before);
    expect(await textOf(client, "/version")).toBe("1");
    versions.load("silent");
    const failing = textOf(client, "/reload");
    const awaited =
      /worker \d \(\d+\) is not ready after 10 s: \S+versions.ts has not come to server.start\(\)/g;
    await until("the word of the new ones", 20_000, () => {
      return versions.server.stderr.match(awaited)?.length === 2;
    });
    expect(await pidsOf(client)).toEqual(expect.arrayContaining(before));
    versions.load("3");
    const next = textOf(client, "/reload");
    expect(await failing).toBe("ReloadError: a new worker is not ready within 11000 ms");
    // What was asked for meanwhile comes all the same.
    expect(await next).toBe("reloaded");
    await load.expectUnharmed();
    expect(await textOf(client, "/version")).toBe("3");
  });

  test("loads from the folder that has the name of the one in which the server was started", async () => {
    const scratch = await Scratch.make();
    const cwd = scratch.file("app");
    const make = (text: string) => {
      mkdirSync(cwd);
      const answer = `(request) => request.url.endsWith("/end") ? process.exit(3) : new Response("${text}")`;
      writeFileSync(`${cwd}/app.ts`, `export default { fetch: ${answer} };\n`);
    };
    make("one");
    await using server = await startCli("app.ts", { scratch, cwd });
    const answer = async () => {
      await using client = await HTTP1.open(server);
      return await textOf(client, "/");
    };
    // As a deployment does it that keeps the release before, and as one that does not.
    renameSync(cwd, scratch.file("before"));
    make("two");
    server.kill("SIGHUP");
    await until("the new code", 5_000, async () => (await answer()) === "two");
    rmSync(cwd, { recursive: true });
    rmSync(scratch.file("before"), { recursive: true });
    writeFileSync(cwd, "no folder");
    server.kill("SIGHUP");
    await server.logs(/still serves: app\.ts does not load: .*Cannot find module/);
    rmSync(cwd);
    make("three");
    {
      await using client = await HTTP1.open(server);
      await client.request({ path: "/end" }).catch(() => {});
    }
    await until("a worker in another's place", 5_000, async () => (await answer()) === "three");
  });

  for (const kind of ALL_CLIENTS) {
    test(`what is in flight finishes where it is, ${kind.name}`, async () => {
      await using versions = await startVersions({ workers: 1 });
      await using client = await kind.open(versions.server);
      await using observer = await HTTP2.open(versions.server);
      const slow = textOf(client, "/wait?ms=1500");
      const stream = await client.request({ path: "/trickle?count=30&every=50" });
      await untilInFlight(observer, 2);
      versions.load("2");
      expect(await textOf(observer, "/reload")).toBe("reloaded");
      expect(await textOf(client, "/version")).toBe("2");
      expect((await readStats(observer)).workers.map(({ state }) => state).sort()).toEqual([
        "ready",
        "retiring",
      ]);
      expect((await stream.body.text()).match(/data/g)?.length).toBe(30);
      expect(await slow).toBe("waited as GET");
      await until(
        "the old one to leave",
        5_000,
        async () => (await readStats(observer)).workers.length === 1,
      );
      expect(versions.log()).toEqual(["start 1 1", "start 2 1", "stop 1 1"]);
    });
  }

  test("is not given up by a worker that could leave meanwhile, being idle", async () => {
    const workers = { min: 1, max: 2 };
    await using versions = await startVersions({ workers, workerIdleTimeout: 1_000, concurrency: 1 });
    const { server } = versions;
    await using observer = await HTTP1.open(server);
    {
      await using _load = await Load.begin(server, { requests: [{ path: "/wait?ms=30" }], parallel: 6 });
      await until("two workers", 20_000, async () => (await pidsOf(observer)).length === 2);
    }
    versions.load("late");
    server.kill("SIGHUP");
    const isOver = server.logs(/reload/);
    await until("new workers", 10_000, () =>
      ["late 1", "late 2"].every((line) => versions.log().includes(line)),
    );
    // Longer than an idle worker may stay.
    await Promise.race([isOver, Bun.sleep(3_000)]);
    versions.release();
    await isOver;
    expect(server.stderr).not.toContain("reload failed");
    await until("one worker", 20_000, async () => (await pidsOf(observer)).length === 1);
    expect(await textOf(observer, "/version")).toBe("late");
  });

  test("what has not finished within reloadTimeout is ended", async () => {
    await using versions = await startVersions({ workers: 1, reloadTimeout: 4_000 });
    await using client = await HTTP1.open(versions.server);
    await using observer = await HTTP2.open(versions.server);
    const begun = await client.request({ path: "/begin" });
    const pid = Number(new TextDecoder().decode((await begun.body.read()) ?? undefined));
    expect(await textOf(observer, "/reload")).toBe("reloaded");
    await expect(inTime("the end of the stream", 10_000, begun.body.bytes())).rejects.toThrow();
    const { workers } = await readStats(observer);
    expect(workers.map((worker) => worker.pid)).not.toContain(pid);
    await versions.server.logs(`worker 1 (${pid}) has not finished within 4000 ms`);
  });
});

describe("a worker that has had enough", () => {
  test("of requests is replaced, and no request notices", async () => {
    await using versions = await startVersions({ workers: 2, maxRequests: 100 });
    await using load = await Load.begin(versions.server, { requests: MIXED_REQUESTS });
    await using observer = await HTTP2.open(versions.server);
    const pids = new Set<number>();
    await until("ten workers", 30_000, async () => {
      for (const { pid } of (await readStats(observer)).workers) pids.add(pid);
      return pids.size >= 10;
    });
    await load.expectUnharmed();
    await versions.server.logs("is replaced: it has answered 100 requests");
  });

  test("of memory is replaced, and no request notices", async () => {
    const MIB = 1024 * 1024;
    await using versions = await startVersions({ workers: 2, maxMemory: 400 * MIB });
    await using load = await Load.begin(versions.server, { requests: MIXED_REQUESTS });
    await using observer = await HTTP2.open(versions.server);
    const before = await pidsOf(observer);
    await until("new workers alone", 30_000, async () => {
      await textOf(observer, `/leak?bytes=${100 * MIB}`);
      const pids = await pidsOf(observer);
      return pids.length === 2 && !pids.some((pid) => before.includes(pid));
    });
    await load.expectUnharmed();
    await versions.server.logs(/is replaced: it holds \d+ bytes, and maxMemory is 419430400/);
  });
});
