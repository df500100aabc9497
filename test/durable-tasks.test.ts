/** Tasks that are kept in a file until they are done, whatever dies. What the queue itself does: `unit/task-queue.test.ts`. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { runDurableTasks } from "../chaos/durable-tasks.ts";
import { inTime, until } from "./support/poll.ts";
import { runFixture, Scratch, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { Gate, notesOf, TaskCaller } from "./support/tasks.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

describe("a durable queue", () => {
  const shared = sharedServer(async () => {
    const scratch = await Scratch.make();
    const tasks = { workers: 2, durable: scratch.file("tasks.db"), backoff: 50 };
    return startFixture("tasks.ts", { scratch, options: { workers: 2, tasks } });
  });
  const open = () => TaskCaller.open(shared.server);
  const file = (name: string) => shared.server.scratch.file(name);
  const rows = (sql: string) => {
    const database = new DatabaseSync(file("tasks.db"), { readOnly: true });
    try {
      return database.prepare(sql).all();
    } finally {
      database.close();
    }
  };
  /** Nothing is left of what was done. */
  const untilEmpty = () =>
    until("an empty file", 5000, () => rows("SELECT id FROM task WHERE state <> 'failed'").length === 0);

  test("gives the result, and forgets the task when that has arrived", async () => {
    await using caller = await open();
    const outcomes = await Promise.all(["a", "b", "c"].map((name) => caller.task({ do: "echo", name })));
    expect(outcomes.map(({ result }) => [result?.name, result?.attempt])).toEqual([
      ["a", 1],
      ["b", 1],
      ["c", 1],
    ]);
    expect(await caller.get<unknown>("/rich")).toEqual({ equal: true, isBuffer: true, error: [true, "why"] });
    await untilEmpty();
  });

  test("runs a task again that failed, later and later, until it succeeds; each failure is in the log", async () => {
    await using caller = await open();
    const log = file("retried");
    const began = performance.now();
    const { result } = await caller.task({ do: "fail", times: 3, name: "at last", log });
    expect(result).toMatchObject({ name: "at last", attempt: 4 });
    // 50, 100 and 200 ms, each up to a fifth less.
    expect(performance.now() - began).toBeGreaterThan(280);
    expect(notesOf(log).map((line) => line.split(" ").at(-2))).toEqual(["1", "2", "3", "4"]);
    await shared.server.logs(
      new RegExp(
        `task ${result?.id} has failed, attempt 3 of 5, and is tried again in \\d+ ms: TypeError: no at last`,
      ),
    );
  });

  test("gives up after as many attempts as it may have: who awaits it gets the error, else it is kept", async () => {
    await using caller = await open();
    const { name, message, code, cause } = await caller.task({ do: "fail", name: "luck" }, { attempts: 2 });
    expect({ name, message, code, cause }).toEqual({
      name: "TypeError",
      message: "no luck",
      code: "ENO",
      cause: "RangeError: too far",
    });
    await untilEmpty();
    await caller.defer({ do: "fail", name: "use" }, { attempts: 2 });
    const failed = await until("the last attempt", 5000, () => {
      const found = rows("SELECT attempt, error FROM task WHERE state = 'failed'");
      return found.length > 0 && found;
    });
    expect(failed).toEqual([{ attempt: 2, error: expect.stringContaining("TypeError: no use") }]);
    await shared.server.logs(/task \S+ has failed, attempt 2 of 2: TypeError: no use/);
  });

  test("gives the result to who awaits it, though the task worker that had the task dies, and then the next", async () => {
    await using caller = await open();
    const log = file("deadly");
    const { result } = await caller.task({ do: "exit", times: 2, name: "survived", log });
    expect(result).toMatchObject({ name: "survived", attempt: 3 });
    expect(new Set(notesOf(log).map((line) => line.split(" ")[2])).size).toBe(3);
    const lost = await caller.task({ do: "exit" }, { attempts: 2 });
    expect(lost).toMatchObject({
      name: "TaskLostError",
      message: expect.stringMatching(/^task \S+ was run 2 times, and each time its task worker ended$/),
    });
    await untilEmpty();
  });

  test("an attempt that takes too long is aborted, and the next has its chance", async () => {
    await using caller = await open();
    const log = file("late");
    const { name, message } = await caller.task({ do: "untilAborted", log }, { timeout: 300, attempts: 2 });
    expect(name).toBe("TaskTimeoutError");
    expect(message).toEndWith("was not done within 300 ms; it is in the durable queue all the same");
    await until(
      "the second attempt to end",
      5000,
      () => notesOf(log).filter((line) => line.startsWith("aborted")).length === 2,
    );
    await untilEmpty();
  });

  test("what waits is for whichever task worker is free; a reload leaves it to the new ones", async () => {
    await using caller = await open();
    const log = file("reload");
    using gate = new Gate(file("reloaded"));
    const before = (await caller.taskWorkers()).map(({ pid }) => pid);
    const tasks = Array.from({ length: 6 }, () => caller.task({ do: "hold", until: gate.path, log }));
    await until("two to run", 5000, () => notesOf(log).length === 2);
    await until("the others to wait", 5000, async () =>
      (await caller.taskWorkers()).every(({ queued }) => queued === 4),
    );
    expect(await caller.get<unknown>("/reload")).toEqual({ result: null });
    await until("two more, in the new ones", 5000, () => notesOf(log).length === 4);
    gate.open();
    for (const { result } of await inTime("their results", 10_000, Promise.all(tasks)))
      expect(result?.attempt).toBe(1);
    const pids = notesOf(log).map((line) => Number(line.split(" ")[2]));
    expect(pids.map((pid) => before.includes(pid))).toEqual([true, true, false, false, false, false]);
    await untilEmpty();
  });
});

test("what was enqueued outlives kill -9 of the manager, and what had begun runs again when the server is there again", async () => {
  const scratch = await Scratch.make();
  const kept = await Scratch.make();
  using _ = kept;
  const log = kept.file("log");
  using gate = new Gate(kept.file("gate"));
  const options = { tasks: { workers: 2, durable: kept.file("tasks.db") } };
  {
    await using server = await startFixture("tasks.ts", { scratch, options });
    await using caller = await TaskCaller.open(server);
    for (const name of ["a", "b", "c", "d"]) await caller.defer({ do: "hold", until: gate.path, name, log });
    await until("two to run", 5000, () => notesOf(log).length === 2);
    server.kill("SIGKILL");
    await server.ended();
    await until("every process to end", 5000, () => server.remaining().length === 0);
  }
  gate.open();
  await using server = await startFixture("tasks.ts", { options });
  await until("every run", 5000, () => notesOf(log).length === 6);
  const attempts = (name: string) =>
    notesOf(log)
      .filter((line) => line.startsWith(name))
      .map((line) => line.split(" ")[1]);
  const all = ["a", "b", "c", "d"].map(attempts);
  expect(all.filter((of) => of.length === 2)).toEqual([
    ["1", "2"],
    ["1", "2"],
  ]);
  expect(all.filter((of) => of.length === 1)).toEqual([["1"], ["1"]]);
  await server.stop();
});

test("two servers on one file run each other's tasks, and each gets its results", async () => {
  const kept = await Scratch.make();
  using _ = kept;
  const log = kept.file("log");
  using gate = new Gate(kept.file("gate"));
  const options = { tasks: { durable: kept.file("tasks.db") } };
  await using first = await startFixture("tasks.ts", { options });
  await using second = await startFixture("tasks.ts", { options });
  await using caller = await TaskCaller.open(first);
  await using other = await TaskCaller.open(second);
  // The first is busy with one; the second takes the other.
  const tasks = ["a", "b"].map((name) => caller.task({ do: "hold", until: gate.path, name, log }));
  await until("both to run", 10_000, () => notesOf(log).length === 2);
  gate.open();
  const results = await inTime("both results", 10_000, Promise.all(tasks));
  expect(results.map(({ result }) => result?.name)).toEqual(["a", "b"]);
  const pids = [...(await caller.taskWorkers()), ...(await other.taskWorkers())].map(({ pid }) => pid);
  expect(results.map(({ result }) => result?.pid).toSorted()).toEqual(pids.toSorted());
});

test("a file that is no queue ends the start, with one line", async () => {
  const scratch = await Scratch.make();
  const durable = scratch.file("tasks.db");
  writeFileSync(durable, "no database\n".repeat(1000));
  await using program = await runFixture("tasks.ts", { scratch, options: { tasks: { durable } } });
  expect(await program.ended()).toBe(1);
  expect(program.stderr).toContain(`tasks.durable: ${durable} is no SQLite database`);
  await program.leavesNothing();
});

test("every process killed at random: each task is done at least once", async () => {
  const settings = { tasks: 150, killEvery: 200, managerEach: 5, doneBetween: 10, within: 90_000 };
  const { measured, broken } = await runDurableTasks(settings, () => {});
  expect({ measured, broken }).toEqual({ measured, broken: [] });
}, 120_000);
