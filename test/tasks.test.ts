/** Tasks that are kept in memory: what comes back, what becomes of one whose time or whose process ends, and who waits. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { HTTP1 } from "./support/clients.ts";
import { inTime, until } from "./support/poll.ts";
import { fixture, runCli, Scratch, startCli, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { readStats } from "./support/stats.ts";
import { Gate, notesOf, TaskCaller } from "./support/tasks.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const HEADERS = { "content-type": "application/json" };

describe("two task workers, one task at a time", () => {
  const shared = sharedServer(async () => {
    const scratch = await Scratch.make();
    return startFixture("tasks.ts", {
      scratch,
      // A connection is to outlive a worker.
      options: { mode: "process", workers: 2, tasks: { workers: 2, maxQueue: 4 } },
      env: { TERCET_TEST_FROM_MANAGER: scratch.file("manager"), TERCET_TEST_VERSION: scratch.file("broken") },
    });
  });
  const open = () => TaskCaller.open(shared.server);
  const file = (name: string) => shared.server.scratch.file(name);
  /** Both are there, and the ids of their processes. */
  const bothReady = (caller: TaskCaller) =>
    until("two task workers", 10_000, async () => {
      const workers = await caller.taskWorkers();
      return (
        workers.length === 2 &&
        workers.every(({ state }) => state === "ready") &&
        workers.map(({ pid }) => pid)
      );
    });

  test("a task's result comes back from a task worker", async () => {
    await using caller = await open();
    const { result } = await caller.task({ do: "echo", name: "one" });
    expect(result).toEqual({
      name: "one",
      attempt: 1,
      isTaskWorker: true,
      pid: expect.any(Number),
      id: expect.stringMatching(/^[0-9a-f]{12}-\d+$/),
    });
    const workers = await caller.taskWorkers();
    expect(workers.map(({ id, state }) => [id, state])).toEqual([
      [1, "ready"],
      [2, "ready"],
    ]);
    expect(workers.map(({ pid }) => pid)).toContain(result?.pid ?? 0);
    expect(workers.reduce((sum, { tasks }) => sum + tasks, 0)).toBeGreaterThan(0);
    await shared.server.prints(`workerStart of task worker 2 in ${workers[1]?.pid}`);
    expect((await readStats(caller.client)).workers.map(({ pid }) => pid)).not.toContain(result?.pid ?? 0);
  });

  test("what a task enters is not the async context of the next", async () => {
    await using caller = await open();
    const tasks = await Promise.all(Array.from({ length: 4 }, () => caller.task({ do: "enter" })));
    expect(tasks.map(({ result }) => result as unknown)).toEqual(Array(4).fill("nothing"));
  });

  test("whatever structured clone takes goes there and back", async () => {
    await using caller = await open();
    expect(await caller.get<unknown>("/rich")).toEqual({ equal: true, isBuffer: true, error: [true, "why"] });
  });

  test("a task's error keeps its name, message, stack, cause and code", async () => {
    await using caller = await open();
    expect(await caller.task({ do: "fail", name: "luck" })).toEqual({
      name: "TypeError",
      message: "no luck",
      code: "ENO",
      cause: "RangeError: too far",
      stack: expect.stringContaining("fixtures/tasks.ts"),
    });
  });

  test("what cannot be cloned rejects, and names the value", async () => {
    await using caller = await open();
    expect(await caller.get<unknown>("/uncloneable")).toMatchObject({
      name: "CloneError",
      message: "task: data.user.save is a function, which cannot be cloned",
    });
    expect(await caller.task({ do: "uncloneable" })).toMatchObject({
      name: "CloneError",
      message: "task: result.user.save is a function, which cannot be cloned",
    });
  });

  test("a wrong option rejects, and names it", async () => {
    await using caller = await open();
    const wrong = [{ timeout: -1 }, { idempotent: 1 }, { attempts: 0 }, { delay: 1 }];
    const outcomes = await Promise.all(wrong.map((options) => caller.task({ do: "echo" }, options)));
    expect(outcomes.map(({ message }) => message)).toEqual([
      'task: option "timeout" is -1; it must be a whole number of milliseconds from 1 to 2147483647, or 0 for no limit',
      'task: option "idempotent" is 1; it must be true or false',
      'task: option "attempts" is 0; it must be a whole number from 1 to 1000',
      'task: there is no option "delay"; there are timeout, idempotent, attempts',
    ]);
    expect(new Set(outcomes.map(({ name }) => name))).toEqual(new Set(["OptionError"]));
  });

  test("from a task, and from the manager, too; before the start there is nobody", async () => {
    await using caller = await open();
    expect((await caller.task({ do: "task" })).result?.name).toBe("from a task");
    expect(JSON.parse(readFileSync(file("manager"), "utf8")).result.name).toBe("manager");
    await shared.server.prints("task: the server has not started");
  });

  test("a task that takes too long is told so by its signal, and its caller by an error", async () => {
    await using caller = await open();
    const log = file("aborted");
    const began = performance.now();
    const { name, message } = await caller.task({ do: "untilAborted", log }, { timeout: 200 });
    expect(name).toBe("TaskTimeoutError");
    expect(message).toMatch(/^task [0-9a-f]{12}-\d+ was not done within 200 ms$/);
    expect(performance.now() - began).toBeLessThan(2000);
    await until("the signal", 2000, () => notesOf(log).includes("aborted by TaskTimeoutError"));
    expect((await caller.task({ do: "echo" })).result?.attempt).toBe(1);
  });

  test("one whose time is over while it waits never runs", async () => {
    await using caller = await open();
    const log = file("too-late");
    using gate = new Gate(file("both-are-over"));
    const held = [1, 2].map(() => caller.task({ do: "hold", until: gate.path, name: "held", log }));
    await until("both", 2000, () => notesOf(log).length === 2);
    const late = await caller.task({ do: "echo", name: "late", log }, { timeout: 200 });
    expect(late.name).toBe("TaskTimeoutError");
    gate.open();
    await Promise.all(held);
    // Behind whatever waits.
    await Promise.all([1, 2, 3, 4].map(() => caller.task({ do: "sleep", ms: 20, name: "next", log })));
    expect(notesOf(log).map((line) => line.split(" ")[0])).not.toContain("late");
  });

  test("one that waits behind a long one runs as soon as any task worker has nothing to do", async () => {
    await using caller = await open();
    const log = file("order");
    using gate = new Gate(file("long-is-over"));
    const long = caller.task({ do: "hold", until: gate.path, name: "long", log });
    await until("the long one", 2000, () => notesOf(log).length === 1);
    // Half of them wait behind it at first.
    const short = ["a", "b", "c", "d"].map((name) => caller.task({ do: "sleep", ms: 20, name, log }));
    await inTime("the short ones", 5000, Promise.all(short));
    gate.open();
    const pids = notesOf(log).map((line) => line.split(" ")[2]);
    expect(new Set(pids.slice(1)).size).toBe(1);
    expect(pids[1]).not.toBe(pids[0] as string);
    expect((await long).result?.name).toBe("long");
  });

  test("as many wait as may; one more is refused", async () => {
    await using caller = await open();
    const sleeps = Array.from({ length: 2 * (1 + 4) + 20 }, () => caller.task({ do: "sleep", ms: 300 }));
    const outcomes = await Promise.all(sleeps);
    const refused = outcomes.filter(({ name }) => name === "TaskQueueFullError");
    expect(refused.length).toBeGreaterThan(0);
    // Each of two workers may have some on the way while they cannot be sent.
    expect(outcomes.filter(({ result }) => result !== undefined).length).toBeGreaterThanOrEqual(10);
    expect(refused[0]?.message).toContain("(tasks.maxQueue)");
    expect((await caller.task({ do: "echo" })).result?.attempt).toBe(1);
  });

  test("a deferred task runs, and what it throws is in the log under its id", async () => {
    await using caller = await open();
    const log = file("deferred");
    expect(await caller.defer({ do: "echo", log, name: "deferred" })).toEqual({ result: null });
    await until("the run", 5000, () => notesOf(log).length === 1);
    expect(await caller.defer({ do: "fail", log, name: "reason" })).toEqual({ result: null });
    await shared.server.logs(/task [0-9a-f]{12}-\d+ has failed: TypeError: no reason/);
    await shared.server.logs("caused by RangeError: too far");
    expect((await caller.defer({ do: "echo" }, { timeout: "1" })).name).toBe("OptionError");
  });

  test("a deferred task outlives the worker that handed it over", async () => {
    await using caller = await open();
    const log = file("orphan");
    // It has to wait behind these.
    for (let i = 0; i < 2; i++) await caller.defer({ do: "sleep", ms: 500, log, name: "first" });
    const lost = caller.post("/defer-and-die", { data: { do: "echo", log, name: "orphan" } });
    await lost.then(
      () => expect.unreachable(),
      () => {},
    );
    await until("the run", 5000, () => notesOf(log).some((line) => line.startsWith("orphan 1")));
    await until("the workers to be back", 5000, async () => {
      const { workers } = await readStats(caller.client);
      return workers.filter(({ state }) => state === "ready").length === 2;
    });
  });

  test("a task worker that dies rejects what it ran; what waited in it runs elsewhere", async () => {
    await using caller = await open();
    const log = file("waited");
    // One on each task worker; the second kills its own.
    using gate = new Gate(file("waited-enough"));
    const long = caller.task({ do: "hold", until: gate.path, log });
    await until("the long one", 2000, () => notesOf(log).length === 1);
    const outcomes = await Promise.all([
      caller.task({ do: "kill", log }),
      ...["a", "b", "c"].map((name) => caller.task({ do: "echo", name, log })),
    ]);
    expect(outcomes[0]?.name).toBe("TaskLostError");
    expect(outcomes[0]?.message).toMatch(/^task \S+ was lost: task worker \d \(\d+\) ended while it ran$/);
    expect(outcomes.slice(1).map(({ result, message }) => result?.name ?? message)).toEqual(["a", "b", "c"]);
    gate.open();
    expect((await long).result?.attempt).toBe(1);
    // Each has run once.
    expect(notesOf(log).length).toBe(5);
    await bothReady(caller);
    expect((await caller.taskWorkers()).reduce((sum, { restarts }) => sum + restarts, 0)).toBeGreaterThan(0);
  });

  test("where it says so, a task runs again when its task worker died", async () => {
    await using caller = await open();
    const again = await caller.task({ do: "exit", times: 2, name: "again" }, { idempotent: true });
    expect(again.result).toMatchObject({ name: "again", attempt: 3 });
    const never = await caller.task({ do: "exit" }, { idempotent: true, attempts: 2 });
    expect(never.name).toBe("TaskLostError");
  });

  test("a task worker stuck in a loop is killed when its task's time is over, and others go on", async () => {
    await using caller = await open();
    const before = await bothReady(caller);
    const log = file("spin");
    const spin = caller.task({ do: "spin", log }, { timeout: 300 });
    await until("the loop", 300, () => notesOf(log).length === 1);
    expect((await caller.task({ do: "echo" }, { timeout: 5000 })).result?.attempt).toBe(1);
    expect((await spin).name).toBe("TaskTimeoutError");
    await until("its end", 10_000, async () => {
      const pids = (await caller.taskWorkers()).map(({ pid }) => pid);
      return !before.every((pid) => pids.includes(pid));
    });
    await bothReady(caller);
    await shared.server.logs(/task worker \d \(\d+\) has stopped answering: it is killed/);
  });

  test("one that computes for longer than a heartbeat, and may, is left alone", async () => {
    await using caller = await open();
    const before = await bothReady(caller);
    const log = file("computing");
    const spin = caller.task({ do: "spin", times: 1, log }, { timeout: 4000, idempotent: true });
    await until("the loop", 2000, () => notesOf(log).length === 1);
    // Three heartbeats that nobody answers.
    await until("silence", 3900, async () =>
      (await caller.taskWorkers()).some(({ state }) => state === "silent"),
    );
    await Bun.sleep(1500);
    expect((await caller.taskWorkers()).map(({ pid }) => pid)).toEqual(before);
    expect((await spin).name).toBe("TaskTimeoutError");
    await until("its end", 10_000, async () => {
      const pids = (await caller.taskWorkers()).map(({ pid }) => pid);
      return !before.every((pid) => pids.includes(pid));
    });
  });

  test("a reload gives new task workers every new task; the old ones finish what they run, and nothing is lost", async () => {
    await using caller = await open();
    const log = file("reload");
    const before = await bothReady(caller);
    using gate = new Gate(file("reloaded"));
    const names = ["a", "b", "c", "d", "e", "f"];
    // Two run, and the others wait behind them.
    const tasks = names.map((name) => caller.task({ do: "hold", until: gate.path, name, log }));
    await until("both to run", 2000, () => notesOf(log).length === 2);
    expect(await caller.get<unknown>("/reload")).toEqual({ result: null });
    const next = caller.task({ do: "echo", name: "next" });
    await until("the new ones to have them", 5000, () => notesOf(log).length === 4);
    gate.open();
    expect(before).not.toContain((await next).result?.pid ?? 0);
    const outcomes = await Promise.all(tasks);
    expect(outcomes.map(({ result, message }) => result?.name ?? message)).toEqual(names);
    // What had begun was finished where it was, and what had not runs in the new ones; each once.
    const pids = notesOf(log).map((line) => Number(line.split(" ")[2]));
    expect(pids.length).toBe(6);
    expect(pids.map((pid) => before.includes(pid))).toEqual([true, true, false, false, false, false]);
    await bothReady(caller);
    for (const pid of before)
      await shared.server.prints(new RegExp(`workerStop of task worker \\d in ${pid}`));
    writeFileSync(file("broken"), "");
    expect(await caller.get<Error>("/reload")).toMatchObject({ name: "ReloadError" });
    expect((await caller.task({ do: "echo" })).result?.attempt).toBe(1);
  });
});

test("a task worker that was once too full is known to be free when it is", async () => {
  await using server = await startFixture("tasks.ts", {
    options: { mode: "process", workers: 2, dispatch: "connection", tasks: { workers: 2, maxQueue: 1 } },
  });
  await using callers = new AsyncDisposableStack();
  const byWorker = new Map<number, TaskCaller>();
  await until("a connection to each worker", 10_000, async () => {
    const caller = callers.use(await TaskCaller.open(server));
    byWorker.set(await caller.get<number>("/pid"), caller);
    return byWorker.size === 2;
  });
  const [one, other] = [...byWorker.values()] as [TaskCaller, TaskCaller];
  const file = (name: string) => server.scratch.file(name);
  // Of two that are equally busy, the first and the second in turn: each round begins at the other one.
  for (const round of [1, 2, 3, 4]) {
    using first = new Gate(file(`first-${round}`));
    const filling = Array.from({ length: 4 }, () => one.task({ do: "hold", until: first.path }));
    await until("no room", 5000, async () =>
      (await one.taskWorkers()).every(({ inFlight, queued }) => inFlight === 1 && queued === 1),
    );
    expect((await other.task({ do: "echo" })).name).toBe("TaskQueueFullError");
    first.open();
    await Promise.all(filling);
    const log = file(`long-${round}`);
    using second = new Gate(file(`second-${round}`));
    const long = one.task({ do: "hold", until: second.path, log });
    await until("the long one", 5000, () => notesOf(log).length === 1);
    const short = other.task({ do: "echo", name: "short" });
    expect((await inTime("the short one", 5000, short)).result?.name).toBe("short");
    second.open();
    expect((await long).result?.attempt).toBe(1);
    for (let i = 0; i < round; i++) await other.task({ do: "echo" });
  }
});

test("task workers are replaced after maxTasks, and no task is lost; a shutdown runs what waits", async () => {
  await using server = await startFixture("tasks.ts", {
    options: { tasks: { maxTasks: 10, concurrency: 2 } },
  });
  await using caller = await TaskCaller.open(server);
  const log = server.scratch.file("last");
  const pids = new Set<number>();
  for (let round = 0; round < 4; round++) {
    const tasks = Array.from({ length: 10 }, () => caller.task({ do: "sleep", ms: 5 }));
    for (const { result } of await Promise.all(tasks)) pids.add(result?.pid ?? 0);
  }
  expect(pids.has(0)).toBe(false);
  await server.logs("task worker 1 is replaced: it has run 10 tasks");
  const [first] = pids;
  const isNoted = () =>
    readdirSync(server.scratch.run, { recursive: true, encoding: "utf8" }).some((path) =>
      path.endsWith(`/task-${first}.deadline`),
    );
  await until("nothing of the first to be left", 5_000, () => !isNoted());
  for (const name of ["a", "b", "c", "d", "e"]) await caller.defer({ do: "sleep", ms: 100, name, log });
  server.kill("SIGTERM");
  expect(await server.ended()).toBe(0);
  expect(notesOf(log).length).toBe(5);
  await server.leavesNothing();
});

test("a task that was done in the turn in which another ended its process is done", async () => {
  await using server = await startFixture("tasks.ts", { options: { tasks: { concurrency: 2 } } });
  await using caller = await TaskCaller.open(server);
  const log = server.scratch.file("held");
  const done = caller.task({ do: "hold", name: "done", log });
  await until("the first", 10_000, () => notesOf(log).length === 1);
  expect((await caller.task({ do: "end" })).name).toBe("TaskLostError");
  expect((await done).result?.name).toBe("done");
});

test("kill -9 of the manager leaves no task worker behind, stuck as it may be", async () => {
  await using server = await startFixture("tasks.ts", { options: { tasks: { workers: 2 } } });
  await using caller = await TaskCaller.open(server);
  const log = server.scratch.file("stuck");
  caller.task({ do: "spin", log }).catch(() => {});
  await until("the loop", 5000, () => notesOf(log).length === 1);
  server.kill("SIGKILL");
  expect(await server.ended()).toBe("SIGKILL");
  await until("every process to end", 5000, () => server.remaining().length === 0);
});

describe("without somebody to run them", () => {
  const cases: [string, Record<string, unknown>, Record<string, string>, string][] = [
    ["the option", {}, {}, 'task: there is nobody to run it: the option "tasks" is not set'],
    [
      "a listener",
      { tasks: {} },
      { TERCET_TEST_NO_LISTENER: "1" },
      'task: there is nobody to run it: no listener, server.on("task", …)',
    ],
  ];
  for (const [what, options, env, message] of cases) {
    test(`no ${what}: a task rejects, and there is no process`, async () => {
      await using server = await startFixture("tasks.ts", { options: { mode: "process", ...options }, env });
      await using caller = await TaskCaller.open(server);
      expect(await caller.task({ do: "echo" })).toMatchObject({ name: "TaskError", message });
      expect(await caller.taskWorkers()).toEqual([]);
      // The manager's children: a reactor and a worker.
      expect(server.remaining().length).toBe(3);
    });
  }
});

describe("tercet serve", () => {
  test("runs the module's task, which its fetch finds in env.tercet", async () => {
    await using server = await startCli(fixture("task-module.ts"), { flags: { "task-workers": 1 } });
    await using client = await HTTP1.open(server);
    const response = await client.request({ path: "/", headers: HEADERS, body: "[1,2,3]" });
    expect(await response.body.json<unknown>()).toEqual({ sum: 6, isElsewhere: true, isServer: true });
  });

  test("a module without one, and durable tasks without task workers, are an error at the start", async () => {
    await using program = await runCli(fixture("app.ts"), { flags: { "task-workers": 1 } });
    expect(await program.ended()).toBe(1);
    // And nothing of the workers, which may be about to connect to reactors that have gone by then.
    expect(program.stderr).toMatch(
      /^tercet: \S+app\.ts runs no tasks: with --task-workers it must export default \{ fetch, task.*\n$/,
    );
    await using other = await runCli(fixture("app.ts"), { flags: { "durable-tasks": "x.db" } });
    expect(await other.ended()).toBe(1);
    expect(other.stderr).toContain(
      'option "task-workers" is missing: --durable-tasks needs somebody to run them',
    );
  });
});
