/** What every queue of tasks promises, and what one in a file does beyond that. */
import { afterAll, afterEach, describe, expect, setSystemTime, spyOn, test } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { decode, encode, encodeError } from "../../src/clone/clone.ts";
import { TaskError, TaskLostError, TaskQueueFullError } from "../../src/tasks/errors.ts";
import { MemoryQueue } from "../../src/tasks/memory-queue.ts";
import type { Outcome, QueuedTask, TaskQueue } from "../../src/tasks/queue.ts";
import { SqliteQueue } from "../../src/tasks/sqlite-queue.ts";
import { failureOf, until } from "../support/poll.ts";
import { fixture } from "../support/server.ts";
import { SmallDisk } from "../support/small-disk.ts";

const MAX_QUEUE = 5;
const directory = mkdtempSync(join(tmpdir(), "tercet-queue-"));
const path = join(directory, "tasks.db");
const open: TaskQueue[] = [];
const children: Bun.Subprocess<"ignore", "pipe", "inherit">[] = [];
const log: string[] = [];
const ended = new Map<string, Outcome>();
let available = 0;
let untold: readonly string[] = [];

async function openQueue(at = path): Promise<SqliteQueue> {
  const queue = await SqliteQueue.open(
    { path: at, maxQueue: MAX_QUEUE },
    {
      available: () => available++,
      ended: (id, outcome) => ended.set(id, outcome),
      untold: (ids) => {
        untold = ids;
      },
      log: (line) => log.push(line),
    },
  );
  open.push(queue);
  return queue;
}

afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
    await child.exited;
  }
  for (const queue of open.splice(0)) await queue.close();
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory);
  log.length = 0;
  ended.clear();
  available = 0;
  untold = [];
});

afterAll(() => rmSync(directory, { recursive: true }));

let last = 0;
function task(data: unknown, more: Partial<QueuedTask> = {}): QueuedTask {
  const id = `client-${++last}`;
  return { id, isAwaited: false, timeout: 0, attempt: 1, attempts: 3, data: encode(data, "t", "d"), ...more };
}

const dataOf = (tasks: readonly QueuedTask[]) => tasks.map(({ data }) => decode(data));
const result = (value: unknown): Outcome => ({ ok: true, value: encode(value, "t", "r") });
const failure = (message: string): Outcome => ({ ok: false, value: encodeError(new Error(message)) });

/** Nothing can be written until `mockRestore`. */
function lockOut() {
  return spyOn(DatabaseSync.prototype, "exec").mockImplementation((sql) => {
    if (sql.startsWith("BEGIN")) throw new Error("database is locked");
  });
}

/** A process of its own that has claimed so many tasks. */
async function claimant(count: number): Promise<{ ids: string[]; kill(): Promise<void> }> {
  const child = Bun.spawn([process.execPath, fixture("claims-tasks.ts"), path, String(count)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  children.push(child);
  const { value } = await child.stdout.getReader().read();
  const ids = new TextDecoder().decode(value).trim().split(" ");
  return {
    ids,
    async kill() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

test("a queue in memory lets go of what was withdrawn, though nothing is claimed", async () => {
  const queue = new MemoryQueue(MAX_QUEUE);
  await queue.add(task("stays"));
  const withdrawn: WeakRef<QueuedTask>[] = [];
  for (let i = 0; i < 5000; i++) {
    const one = task(i);
    withdrawn.push(new WeakRef(one));
    await queue.add(one);
    await queue.withdraw(one.id);
  }
  Bun.gc(true);
  expect(withdrawn.filter((one) => one.deref() !== undefined).length).toBeLessThan(2000);
  await queue.add(task("last"));
  expect(dataOf(await queue.claim(10))).toEqual(["stays", "last"]);
});

for (const [kind, make] of [
  ["memory", async () => new MemoryQueue(MAX_QUEUE)],
  ["SQLite", openQueue],
] as const) {
  describe(`a queue in ${kind}`, () => {
    test("gives tasks in their order, each once", async () => {
      const queue: TaskQueue = await make();
      await Promise.all([1, 2, 3].map((data) => queue.add(task(data))));
      expect(queue.waiting).toBe(3);
      const first = await queue.claim(2);
      expect(dataOf(first)).toEqual([1, 2]);
      expect(first.map(({ attempt }) => attempt)).toEqual([1, 1]);
      expect(dataOf(await queue.claim(10))).toEqual([3]);
      expect(await queue.claim(10)).toEqual([]);
      for (const one of first) await queue.finish(one, result(null));
      expect(await queue.claim(10)).toEqual([]);
      expect(queue.waiting).toBe(0);
    });

    test("what is asked in one turn is done in its order", async () => {
      const queue: TaskQueue = await make();
      const added = Promise.all([queue.add(task("a")), queue.add(task("b"))]);
      const claimed = queue.claim(5);
      await added;
      expect(dataOf(await claimed)).toEqual(["a", "b"]);
    });

    test("is bounded: one more is refused, and the others are there", async () => {
      const queue: TaskQueue = await make();
      const adds = Array.from({ length: MAX_QUEUE + 2 }, (_, data) => queue.add(task(data)));
      const outcomes = await Promise.allSettled(adds);
      expect(outcomes.filter(({ status }) => status === "fulfilled").length).toBe(MAX_QUEUE);
      expect((outcomes.at(-1) as PromiseRejectedResult).reason).toBeInstanceOf(TaskQueueFullError);
      expect(dataOf(await queue.claim(100))).toEqual([0, 1, 2, 3, 4]);
      await queue.add(task("again"));
      expect(dataOf(await queue.claim(100))).toEqual(["again"]);
    });

    test("has the room of what was claimed before in the same turn, or is one task with another", async () => {
      const queue: TaskQueue = await make();
      const twice = task(0);
      const adds = [twice, twice, task(1), task(2), task(3), task(4)].map((one) => queue.add(one));
      const claimed = queue.claim(1);
      await Promise.all([...adds, queue.add(task(5))]);
      expect(dataOf([...(await claimed), ...(await queue.claim(100))])).toEqual([0, 1, 2, 3, 4, 5]);
    });

    test("gives a task again when it is to be tried again, as the next attempt", async () => {
      const queue: TaskQueue = await make();
      await queue.add(task("again"));
      const [first] = await queue.claim(1);
      await queue.retry(first as QueuedTask, 0);
      const [second] = await queue.claim(1);
      expect([second?.id, second?.attempt]).toEqual([first?.id, 2]);
    });

    test("gives back what has not been claimed, and only that", async () => {
      const queue: TaskQueue = await make();
      const [waiting, claimed] = [task(1), task(2)];
      await queue.add(claimed);
      await queue.claim(1);
      await queue.add(waiting);
      expect(await queue.withdraw(claimed.id)).toBe(false);
      expect(await queue.withdraw(waiting.id)).toBe(true);
      expect(await queue.withdraw(waiting.id)).toBe(false);
      expect(await queue.claim(5)).toEqual([]);
    });
  });
}

describe("a queue in SQLite", () => {
  test("keeps what was added, and its large buffers, when the process has gone", async () => {
    const first = await openQueue();
    await first.add(task({ buffer: Buffer.alloc(100_000, 7) }));
    await first.close();
    const second = await openQueue();
    const [data] = dataOf(await second.claim(1)) as [{ buffer: Buffer }];
    expect(data.buffer).toEqual(Buffer.alloc(100_000, 7));
  });

  test("is nobody else's to read", async () => {
    const queue = await openQueue();
    await queue.add(task("private"));
    for (const name of readdirSync(directory)) {
      // The lock's own journal holds nothing.
      if (!name.endsWith("-journal"))
        expect([name, statSync(join(directory, name)).mode & 0o077]).toEqual([name, 0]);
    }
  });

  test("is shared: two processes never have the same task", async () => {
    const queue = await openQueue();
    for (const data of [1, 2, 3, 4]) await queue.add(task(data));
    const other = await claimant(2);
    const own = await queue.claim(5);
    expect(new Set([...other.ids, ...own.map(({ id }) => id)]).size).toBe(4);
  });

  test("one that it cannot keep is no reason to refuse what was asked with it", async () => {
    const queue = await openQueue();
    const wrong = task("wrong", { timeout: "no number" as never });
    const adds = await Promise.allSettled([queue.add(task(1)), queue.add(wrong), queue.add(task(2))]);
    expect(adds.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect((adds[1] as PromiseRejectedResult).reason.message).toStartWith(`the task queue ${path} fails: `);
    expect(dataOf(await queue.claim(5))).toEqual([1, 2]);
  });

  test("what is asked together waits together for somebody who has the file locked, and is refused together", async () => {
    const queue = await openQueue();
    const exec = lockOut();
    try {
      const adds = await Promise.allSettled([1, 2, 3].map((data) => queue.add(task(data))));
      expect(adds.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
      expect(exec.mock.calls.filter(([sql]) => sql.startsWith("BEGIN")).length).toBe(1);
    } finally {
      exec.mockRestore();
    }
    expect(log).toEqual([`the task queue ${path} fails: database is locked`]);
    await queue.add(task("again"));
    expect(dataOf(await queue.claim(5))).toEqual(["again"]);
  });

  test("by another name it is the same: what a live process has is its own", async () => {
    const queue = await openQueue();
    await queue.add(task("claimed"));
    await queue.claim(1);
    mkdirSync(join(directory, "other"));
    symlinkSync(path, join(directory, "other", "link.db"));
    const other = await openQueue(join(directory, "other", "link.db"));
    await other.add(task("waits"));
    expect(dataOf(await other.claim(5))).toEqual(["waits"]);
  });

  test("once the file was replaced, or removed, nothing more is taken, the log says so, and what waits is run", async () => {
    const queue = await openQueue();
    const other = await openQueue();
    for (const data of [1, 2]) await queue.add(task(data));
    await other.claim(1);
    writeFileSync(join(directory, "new.db"), "");
    for (const change of [() => renameSync(join(directory, "new.db"), path), () => rmSync(path)]) {
      change();
      const error = await failureOf("a refusal", 5000, queue.add(task("lost")));
      expect(error).toBeInstanceOf(TaskError);
      expect(error.message).toBe(`the task queue ${path} fails: it was removed or replaced`);
    }
    for (const name of readdirSync(directory)) if (name.includes("claimant")) rmSync(join(directory, name));
    // Who is alive cannot be seen any more, and nobody is taken for dead.
    const before = available;
    await until("a look around of each", 5000, () => available > before + 1);
    expect(dataOf(await queue.claim(5))).toEqual([2]);
    expect(log).toEqual(
      Array(2).fill(expect.stringContaining(`the task queue ${path} was removed or replaced`)),
    );
  });

  test("what could not be kept of a task that has run is kept at the latest when the queue is closed", async () => {
    const queue = await openQueue();
    await queue.add(task("done"));
    const [done] = (await queue.claim(1)) as [QueuedTask];
    const exec = lockOut();
    await queue.finish(done, result(null));
    exec.mockRestore();
    await queue.close();
    expect(await (await openQueue()).claim(1)).toEqual([]);
  });

  test("what is added is flushed to the disk, and what is claimed is not", async () => {
    const queue = await openQueue();
    const exec = spyOn(DatabaseSync.prototype, "exec");
    try {
      for (let i = 0; i < 2; i++) {
        await queue.add(task(i));
        await queue.claim(1);
      }
      const flushed = ["PRAGMA synchronous = FULL", "BEGIN IMMEDIATE", "COMMIT"];
      const written = ["PRAGMA synchronous = NORMAL", "BEGIN IMMEDIATE", "COMMIT"];
      expect(exec.mock.calls.flat()).toEqual([...flushed, ...written, ...flushed, ...written]);
    } finally {
      exec.mockRestore();
    }
  });

  test("what is due longer is claimed earlier, and given in that order", async () => {
    const queue = await openQueue();
    await queue.add(task("tried"));
    const [tried] = (await queue.claim(1)) as [QueuedTask];
    await queue.add(task("new"));
    await queue.retry(tried, 1000);
    try {
      setSystemTime(Date.now() + 2000);
      expect(dataOf(await queue.claim(2))).toEqual(["new", "tried"]);
    } finally {
      setSystemTime();
    }
  });

  test("a task that is added again is one task", async () => {
    const queue = await openQueue();
    const one = task("once");
    await Promise.all([queue.add(one), queue.add(one)]);
    await queue.add(one);
    expect((await queue.claim(5)).length).toBe(1);
  });

  test("what a live process has is its own, however long it says nothing; what a killed one had waits again", async () => {
    const queue = await openQueue();
    for (const data of [1, 2, 3]) await queue.add(task(data));
    const other = await claimant(2);
    await until("a look around", 5000, () => available > 0);
    expect(dataOf(await queue.claim(5))).toEqual([3]);
    await other.kill();
    await until("the release", 5000, async () => queue.waiting === 2);
    const again = await queue.claim(5);
    expect(dataOf(again)).toEqual([1, 2]);
    expect(again.map(({ attempt }) => attempt)).toEqual([2, 2]);
    // Nothing of the dead is left.
    expect(readdirSync(directory).filter((name) => /claimant-[0-9a-f]+$/.test(name)).length).toBe(1);
  });

  test("whoever opens it finds at once what the dead had claimed", async () => {
    const queue = await openQueue();
    await queue.add(task("left"));
    const other = await claimant(1);
    await queue.close();
    await other.kill();
    const began = performance.now();
    const next = await openQueue();
    await until("the release", 5000, () => next.waiting === 1);
    expect(performance.now() - began).toBeLessThan(900);
  });

  test("a task whose process dies each time has failed in the end: who awaits it is told", async () => {
    const queue = await openQueue();
    const awaited = task("deadly", { isAwaited: true, attempts: 1 });
    const deferred = task("deadly too", { attempts: 1 });
    for (const one of [awaited, deferred]) await queue.add(one);
    await (await claimant(2)).kill();
    await until("the end of it", 5000, () => ended.has(awaited.id));
    const error = decode(ended.get(awaited.id)?.value ?? []) as Error;
    expect(error.name).toBe("TaskLostError");
    expect(error.message).toBe(`task ${awaited.id} was run once, and each time its task worker ended`);
    expect(ended.has(deferred.id)).toBe(false);
    expect(log.join()).toContain(`task ${deferred.id} has failed`);
    expect(await queue.claim(5)).toEqual([]);
    expect(TaskLostError.name).toBe(error.name);
  });

  test("keeps the outcome of what is awaited until it is received", async () => {
    const queue = await openQueue();
    const [one, two, three] = [1, 2, 3].map((data) => task(data, { isAwaited: true })) as [
      QueuedTask,
      QueuedTask,
      QueuedTask,
    ];
    for (const each of [one, two, three]) await queue.add(each);
    const [first, second] = (await queue.claim(2)) as [QueuedTask, QueuedTask];
    await queue.finish(first, result("done"));
    await queue.finish(second, failure("not done"));
    await until("a look at what nobody has come for", 5000, () => untold.length > 0);
    expect(untold).toEqual([one.id, two.id]);
    const other = await openQueue();
    const ids = [one.id, two.id, three.id, "client-unknown"];
    const found = await other.find(ids);
    const shown = ids.map((id) => {
      const standing = found.get(id);
      return typeof standing === "object" ? [standing.ok, decode(standing.value)] : standing;
    });
    expect(shown).toEqual([[true, "done"], [false, new Error("not done")], "open", "unknown"]);
    await other.received(one.id);
    expect((await queue.find([one.id])).get(one.id)).toBe("unknown");
  });

  test("forgets an outcome that nobody has come for within a minute, and keeps an error for people to look at", async () => {
    const queue = await openQueue();
    for (const data of [1, 2]) await queue.add(task(data, { isAwaited: true }));
    const [first, second] = (await queue.claim(2)) as [QueuedTask, QueuedTask];
    await queue.finish(first, result("done"));
    await queue.finish(second, failure("not done"));
    const states = () => {
      const database = new DatabaseSync(path, { readOnly: true });
      const rows = database.prepare("SELECT state, outcome FROM task").all();
      database.close();
      return rows;
    };
    try {
      setSystemTime(Date.now() + 61_000);
      await until("a look around", 5000, () => states().length === 1);
    } finally {
      setSystemTime();
    }
    expect(states()).toEqual([{ state: "failed", outcome: null }]);
    expect([...(await queue.find([first.id, second.id])).values()]).toEqual(["unknown", "unknown"]);
  });

  test("keeps a task that failed and that nobody awaited, for people to look at", async () => {
    const queue = await openQueue();
    await queue.add(task("x"));
    const [one] = await queue.claim(1);
    await queue.finish(one as QueuedTask, failure("it never works"));
    await queue.close();
    const database = new DatabaseSync(path);
    const rows = database.prepare("SELECT state, error FROM task").all();
    database.close();
    expect(rows).toEqual([{ state: "failed", error: expect.stringContaining("it never works") }]);
  });

  test("a clock that is set back delays nothing, and brings no retry forward that it has not moved", async () => {
    const hour = 3_600_000;
    const now = Date.now();
    const queue = await openQueue();
    const tryLater = async (data: unknown, delay = 3 * hour) => {
      await queue.add(task(data));
      const [one] = await queue.claim(1);
      await queue.retry(one as QueuedTask, delay);
    };
    try {
      setSystemTime(now - 2 * hour);
      await tryLater("tried before");
      await tryLater("let go", 0);
      setSystemTime(now);
      // One has seen this time for certain.
      const [leaving] = [await openQueue(), await openQueue()];
      await leaving.claim(1);
      await tryLater("tried");
      await leaving.close();
      await queue.add(task("new"));
      setSystemTime(now - hour);
      let found: readonly QueuedTask[] = [];
      await until("what has to wait no more", 5000, async () => {
        found = await queue.claim(5);
        return found.length > 0;
      });
      expect(dataOf(found)).toEqual(["let go", "tried", "new"]);
    } finally {
      setSystemTime();
    }
  });

  test("a retry is due after its delay, and not before", async () => {
    const queue = await openQueue();
    await queue.add(task("later"));
    const [one] = await queue.claim(1);
    const began = performance.now();
    await queue.retry(one as QueuedTask, 300);
    expect(await queue.claim(1)).toEqual([]);
    await until("the next attempt", 5000, async () => (await queue.claim(1)).length === 1);
    expect(performance.now() - began).toBeGreaterThan(290);
  });
});

describe("a file that is no queue", () => {
  const cases: [string, () => void, string][] = [
    [
      "in a folder that is not there",
      () => rmSync(directory, { recursive: true }),
      `the folder ${directory} is not there`,
    ],
    [
      "that is no database",
      () => writeFileSync(path, "no database\n".repeat(1000)),
      `${path} is no SQLite database`,
    ],
    [
      "that is a folder",
      () => mkdirSync(path),
      `${path} cannot be read and written: unable to open database file`,
    ],
    [
      "of another program",
      () => withDatabase((database) => database.exec("CREATE TABLE other (x)")),
      `${path} is a database of another program`,
    ],
    [
      "of a newer Tercet",
      () =>
        withDatabase((database) =>
          database.exec("PRAGMA application_id = 1416782708; PRAGMA user_version = 9"),
        ),
      `${path} was written by a newer Tercet: its schema is 9, and this one knows 1`,
    ],
  ];
  for (const [what, make, message] of cases) {
    test(what, async () => {
      make();
      const error = await failureOf("an error", 5000, openQueue());
      expect(error).toBeInstanceOf(TaskError);
      expect(error.message).toBe(`tasks.durable: ${message}`);
    });
  }

  test("that is damaged", async () => {
    const queue = await openQueue();
    for (const data of [1, 2, 3]) await queue.add(task(Buffer.alloc(20_000, data)));
    await queue.close();
    const { size } = statSync(path);
    const bytes = Buffer.from(await Bun.file(path).arrayBuffer());
    bytes.fill(0xff, 4096, size - 4096);
    writeFileSync(path, bytes);
    const error = await failureOf("an error", 5000, openQueue());
    expect(error.message).toStartWith(`tasks.durable: ${path} is damaged: `);
    expect(error.message).not.toContain("\n");
  });
});

function withDatabase(change: (database: DatabaseSync) => void): void {
  const database = new DatabaseSync(path);
  change(database);
  database.close();
}

/** Leaves no room for anything. Who may not mount a disk, and so fill it, holds the file locked instead. @returns makes room again */
function leaveNoRoom(disk: string, at: string, isMounted: boolean): () => void {
  if (!isMounted) {
    const lock = new DatabaseSync(at);
    lock.exec("BEGIN IMMEDIATE");
    return () => lock.close();
  }
  const filler = join(disk, "filler");
  Bun.spawnSync(["dd", "if=/dev/zero", `of=${filler}`, "bs=4k"], { stderr: "ignore" });
  return () => rmSync(filler);
}

test("a full disk refuses what is new and loses nothing; with room again all goes on", async () => {
  const folder = join(directory, "disk");
  using disk = SmallDisk.mount(folder, "400k");
  const at = join(folder, "tasks.db");
  try {
    const queue = await openQueue(at);
    await queue.add(task("first", { isAwaited: true }));
    const [first] = (await queue.claim(1)) as [QueuedTask];
    const makeRoom = leaveNoRoom(folder, at, disk !== null);
    const error = await failureOf("a refusal", 20_000, queue.add(task(Buffer.alloc(30_000))));
    expect(error).toBeInstanceOf(TaskError);
    expect(error.message).toStartWith(`the task queue ${at} fails: `);
    // There is nothing to claim, and so nothing to write.
    expect(await queue.claim(1)).toEqual([]);
    await failureOf("another", 20_000, queue.add(task(Buffer.alloc(30_000))));
    expect(log.filter((line) => line === error.message).length).toBe(1);
    await queue.finish(first, result("done"));
    makeRoom();
    await until("the outcome to be kept", 5000, async () => {
      return typeof (await queue.find([first.id])).get(first.id) === "object";
    });
    await queue.add(task("second"));
    expect(dataOf(await queue.claim(5))).toEqual(["second"]);
    expect(log).toContain(`the task queue ${at} works again`);
  } finally {
    for (const queue of open.splice(0)) await queue.close();
  }
}, 60_000);
