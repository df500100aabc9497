/** What all processes share: messages to each of them, in their order, and tables whose operations are atomic. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import type { Client } from "./support/client.ts";
import { HTTP2 } from "./support/clients.ts";
import { until } from "./support/poll.ts";
import { Scratch, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { readStats } from "./support/stats.ts";
import { notesOf } from "./support/tasks.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

async function start(mode: "process" | "base") {
  const scratch = await Scratch.make();
  writeFileSync(scratch.file("rows"), "4");
  const env = { TERCET_TEST_LOG: scratch.file("log"), TERCET_TEST_ROWS: scratch.file("rows") };
  // Two workers of the mode base share a port, which the engine quic cannot.
  const engine = mode === "base" ? { http3: "native" } : {};
  const options = { mode, workers: 2, tasks: { workers: 1 }, ...engine };
  return startFixture("sharing.ts", { scratch, env, options });
}

// A connection is to reach each worker, and to outlive it.
const shared = sharedServer(() => start("process"));
const file = (name: string) => shared.server.scratch.file(name);

async function post(client: Client, path: string, body: unknown = []): Promise<string> {
  const response = await client.request({ path, method: "POST", body: JSON.stringify(body) });
  return response.body.text();
}

const operate = async (client: Client, ...operations: unknown[][]) =>
  JSON.parse(await post(client, "/operate", operations));

/** Workers and the task worker. */
async function pidsOf(client: Client): Promise<number[]> {
  const { workers, taskWorkers } = await readStats(client);
  return [...workers, ...taskWorkers].filter(({ state }) => state === "ready").map(({ pid }) => pid);
}

/** What each process has heard with this in it, by process id. */
function heard(text: string, log = file("log")): Map<number, string[]> {
  const lines = notesOf(log).filter((line) => line.includes(text));
  const by = new Map<number, string[]>();
  for (const line of lines) {
    const [pid, ...rest] = line.split(" ");
    by.set(Number(pid), [...(by.get(Number(pid)) ?? []), rest.join(" ")]);
  }
  return by;
}

const untilHeard = (text: string, pids: readonly number[], times = 1) =>
  until(`${text}, in ${pids.length} processes`, 5000, () => {
    const by = heard(text);
    return pids.every((pid) => by.get(pid)?.length === times) && by;
  });

describe("a broadcast", () => {
  test("reaches every worker and task worker, the sender too, in its order", async () => {
    await using client = await HTTP2.open(shared.server);
    const pids = await pidsOf(client);
    expect(pids.length).toBe(3);
    const messages = Array.from({ length: 100 }, (_, number) => ({ ordered: number }));
    const sender = Number(await post(client, "/broadcast", messages));
    const by = await untilHeard("ordered", pids, 100);
    const id = (await readStats(client)).workers.find(({ pid }) => pid === sender)?.id;
    for (const [pid, lines] of by) {
      const isTaskWorker = pid === pids[2];
      expect(lines).toEqual(
        messages.map((one) => `${isTaskWorker} worker ${id} ${sender} ${JSON.stringify(one)}`),
      );
    }
  });

  test("comes from a task worker and from the manager as well", async () => {
    await using client = await HTTP2.open(shared.server);
    const pids = await pidsOf(client);
    await post(client, "/task", { key: "task", times: 0, broadcast: "from a task" });
    for (const [text, from] of [
      ["from a task", `taskWorker 1 ${pids[2]}`],
      ["from the manager", `manager 0 ${shared.server.pid}`],
    ] as const) {
      for (const [line] of (await untilHeard(text, pids)).values()) expect(line).toContain(from);
    }
  });

  test("carries what structured clone takes, and the cause of an error; what it does not take is named", async () => {
    await using client = await HTTP2.open(shared.server);
    await post(client, "/broadcast-error");
    await untilHeard("cloned", await pidsOf(client));
    expect(JSON.parse(await post(client, "/broadcast-function"))).toEqual({
      name: "CloneError",
      code: "TERCET_CLONE",
      message: "broadcast: message.on.click is a function, which cannot be cloned",
    });
    expect(JSON.parse(await post(client, "/broadcast-large")).message).toMatch(
      /^broadcast: message has 1100\d{3} bytes, and 1048576 are allowed$/,
    );
  });

  test("does not wait in the manager for ever: a process that takes none is ended when there is too much", async () => {
    await using client = await HTTP2.open(shared.server);
    const pids = await pidsOf(client);
    const sender = Number(await post(client, "/broadcast-much", pids));
    const ended =
      / worker \d \((\d+)\) has stopped answering, and (\d+) bytes of messages wait for it: it is killed$/gm;
    const told = () => [...shared.server.stderr.matchAll(ended)];
    await until("their ends", 20_000, () => told().length === 2);
    expect(new Set([sender, ...told().map(([, pid]) => Number(pid))])).toEqual(new Set(pids));
    for (const [, , bytes] of told()) expect(Number(bytes)).toBeGreaterThan(64 * 1024 * 1024);
    await until("those in their place", 10_000, async () => (await pidsOf(client)).length === 3);
    expect((await pidsOf(client)).filter((pid) => pids.includes(pid))).toEqual([sender]);
  });

  test("whose listener fails is in the log, and the others hear it", async () => {
    await using client = await HTTP2.open(shared.server);
    const pids = await pidsOf(client);
    await post(client, "/broadcast", ["fail", "fail later"]);
    await untilHeard("heard all the same", pids, 2);
    for (const part of ["worker 1", "worker 2", "task worker 1"]) {
      for (const error of ["a listener that fails", "a listener that fails later"]) {
        await until(`${error} in ${part}`, 5000, () =>
          shared.server.stderr.includes(`tercet ${part}: error in a "message" listener: Error: ${error}\n`),
        );
      }
    }
  });
});

describe("a table", () => {
  test("is the same in every process, and each operation is atomic", async () => {
    await using client = await HTTP2.open(shared.server);
    // Thousands at a time, of both workers and of a task.
    const calls = Array.from({ length: 20 }, () =>
      operate(client, ...Array.from({ length: 100 }, () => ["incr", "sum", "count"])),
    );
    const task = post(client, "/task", { key: "sum", times: 100 });
    const sums = (await Promise.all(calls)).flat();
    await task;
    expect(new Set(sums).size).toBe(2000);
    expect(await operate(client, ["get", "sum"], ["get", "manager"])).toEqual([
      { count: 2100, name: "", body: expect.anything() },
      { count: 7, name: "", body: expect.anything() },
    ]);
    const workers = new Set(await Promise.all(Array.from({ length: 20 }, () => post(client, "/pid"))));
    expect(workers.size).toBe(2);
    // Of many who want it, one has it.
    const locks = await Promise.all(
      Array.from({ length: 50 }, () => operate(client, ["compareAndSet", "lock", null, { name: "me" }])),
    );
    expect(locks.flat().filter(Boolean).length).toBe(1);
    expect(await operate(client, ["compareAndSet", "lock", { name: "me" }, null])).toEqual([true]);
  });

  test("does what is asked in one turn in its order, and forgets a row in time", async () => {
    await using client = await HTTP2.open(shared.server);
    const results = await operate(
      client,
      ["set", "row", { count: 1, body: { bytes: [1, 2] } }, { ttl: 300 }],
      ["incr", "row", "count", 5],
      ["get", "row"],
    );
    expect(results).toEqual([null, 6, { count: 6, name: "", body: { type: "Buffer", data: [1, 2] } }]);
    await until("the row to be gone", 5000, async () => (await operate(client, ["get", "row"]))[0] === null);
  });

  test("refuses what is wrong, and says why", async () => {
    await using client = await HTTP2.open(shared.server);
    expect(await operate(client, ["set", "row", { count: "1" }])).toEqual({
      name: "TableError",
      code: "TERCET_TABLE",
      message: `table "hits": column "count" is '1'; it must be a whole number from -(2^53 - 1) to 2^53 - 1`,
    });
    await operate(client, ["clear"]);
    const full = await operate(client, ...["a", "b", "c", "d", "e"].map((key) => ["set", key, {}]));
    expect(full).toMatchObject({ name: "TableError", code: "TERCET_TABLE_FULL" });
    expect(await operate(client, ["count"])).toEqual([4]);
    expect(JSON.parse(await post(client, "/same-table")).message).toStartWith(
      'table "hits" is declared with 9 rows of n integer; it was declared before, with 4 rows of body bytes(8)',
    );
    expect(await post(client, "/late-table")).toBe("1");
    await operate(client, ["clear"]);
  });

  test("loses nothing when a worker dies, and nothing in a reload; what a worker asks as it leaves is done", async () => {
    await using client = await HTTP2.open(shared.server);
    const before = await pidsOf(client);
    await operate(client, ["set", "kept", { count: 1, name: "été" }]);
    await post(client, "/exit");
    await until("another worker", 5000, async () => {
      const pids = await pidsOf(client);
      return pids.length === 3 && pids.some((pid) => !before.includes(pid));
    });
    expect(await post(client, "/reload")).toBe("reloaded");
    expect(await operate(client, ["get", "kept"])).toMatchObject([{ count: 1, name: "été" }]);
    await until("the old ones to have left", 5000, async () => {
      const [left] = await operate(client, ["get", "left"]);
      return left?.count === 3;
    });
    // The task worker left before there were new workers to hear it.
    const now = await pidsOf(client);
    await until("what the workers said as they left", 5000, () => {
      const by = heard("a worker leaves");
      return now.every((pid) => by.get(pid)?.filter((line) => line.split(" ")[1] === "worker").length === 2);
    });
  });

  test("that new code declares otherwise keeps that code from being loaded", async () => {
    await using client = await HTTP2.open(shared.server);
    writeFileSync(file("rows"), "5");
    const { name, message } = JSON.parse(await post(client, "/reload"));
    writeFileSync(file("rows"), "4");
    expect(name).toBe("ReloadError");
    expect(message).toStartWith('table "hits" is declared with 5 rows of');
    expect(message).toContain("it is there already, with 4 rows of");
    expect(await operate(client, ["incr", "after", "count"])).toEqual([1]);
  });
});

test("in the mode base, too, there are tasks, tables and messages", async () => {
  await using server = await start("base");
  await using client = await HTTP2.open(server);
  expect(
    JSON.parse(await post(client, "/task", { key: "a", times: 3, broadcast: "from base" })),
  ).toMatchObject({
    count: 3,
  });
  expect(await operate(client, ["incr", "a", "count"])).toEqual([4]);
  const pids = await pidsOf(client);
  expect(pids.length).toBe(3);
  await until("the message in each", 5000, () => {
    const by = heard("from base", server.scratch.file("log"));
    return pids.every((pid) => by.get(pid)?.length === 1);
  });
});
