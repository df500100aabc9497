/** Whoever hands tasks over, against task workers that say what the test has them say. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encode } from "../../src/clone/clone.ts";
import type { ResolvedTasks } from "../../src/options.ts";
import { TaskClient } from "../../src/tasks/client.ts";
import { TaskLink } from "../../src/tasks/link.ts";
import { MessageType, Refusal, TASK_WIRE_VERSION } from "../../src/tasks/messages.ts";
import type { TaskWorkerAddress } from "../../src/tasks/remote.ts";
import { failureOf, inTime, until } from "../support/poll.ts";

const directory = mkdtempSync(join(tmpdir(), "tercet-task-client-"));
afterAll(() => rmSync(directory, { recursive: true }));

const OPTIONS: ResolvedTasks = {
  workers: 2,
  concurrency: 1,
  maxQueue: 1,
  timeout: 0,
  attempts: 5,
  backoff: 1000,
  maxTasks: 0,
  durable: null,
};

let last = 0;

/** A task worker of whose doings the test decides. It listens, and says hello when it is told to. */
class ScriptedWorker implements AsyncDisposable {
  readonly address: TaskWorkerAddress;
  /** What it was told, but for hellos. */
  readonly heard: { readonly type: MessageType; readonly call: number; readonly awaited: number[] }[] = [];
  readonly #links: TaskLink[] = [];
  readonly #server = createServer((socket) => {
    const owner = {
      message: ({
        type,
        call,
        head,
      }: {
        type: MessageType;
        call: number;
        head: { left: number; f64(): number };
      }) => {
        const awaited: number[] = [];
        if (type === MessageType.awaiting) while (head.left > 0) awaited.push(head.f64());
        if (type !== MessageType.hello) this.heard.push({ type, call, awaited });
      },
      closed: () => {},
    };
    this.#links.push(new TaskLink(socket, owner, queueMicrotask));
  });

  static async listen(): Promise<ScriptedWorker> {
    const worker = new ScriptedWorker(++last);
    await new Promise<void>((resolve) => worker.#server.listen(worker.address.socket, resolve));
    return worker;
  }

  private constructor(id: number) {
    // No process has such an id.
    this.address = { id, pid: -id, socket: join(directory, `${id}.sock`) };
  }

  async connected(): Promise<void> {
    await until("a connection", 5000, () => this.#links.length > 0);
  }

  async greet(): Promise<void> {
    await this.connected();
    this.#links.at(-1)?.send(MessageType.hello, 0, (head) => {
      head.u8(TASK_WIRE_VERSION);
      head.u32(0);
    });
  }

  /** How often it was sent the task. */
  sent(call: number): number {
    return this.heard.filter((one) => one.type === MessageType.task && one.call === call).length;
  }

  say(type: MessageType, call: number, value?: unknown): void {
    const parts = value === undefined ? [] : encode(value, "t", "r");
    this.#links.at(-1)?.send(type, call, (head) => head.u32(0), parts);
  }

  refuse(call: number, why: number): void {
    this.#links.at(-1)?.send(MessageType.refused, call, (head) => {
      head.u32(1);
      head.u8(why);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    await Promise.all(this.#links.map((link) => link.end()));
    await closed;
  }
}

function clientOf(workers: readonly ScriptedWorker[], options: Partial<ResolvedTasks> = {}) {
  const log: string[] = [];
  const client = new TaskClient({ ...OPTIONS, ...options }, (line) => log.push(line));
  client.employ(
    workers.map(({ address }) => address),
    [],
    [],
  );
  return { client, log, [Symbol.asyncDispose]: () => client.close() };
}

test("a task that came back when every queue was full is sent again when something has ended", async () => {
  await using worker = await ScriptedWorker.listen();
  await using own = clientOf([worker]);
  const result = own.client.task("data");
  await worker.greet();
  await until("the task", 5000, () => worker.sent(1) === 1);
  worker.say(MessageType.accepted, 1);
  worker.refuse(1, Refusal.returned);
  await until("the task again", 5000, () => worker.sent(1) === 2);
  worker.refuse(1, Refusal.full);
  worker.say(MessageType.load, 0);
  await until("the task once more", 5000, () => worker.sent(1) === 3);
  worker.say(MessageType.result, 1, "done");
  expect(await inTime("the result", 5000, result)).toBe("done");
});

test("a task that waits for a task worker's hello waits no more when that has gone", async () => {
  await using full = await ScriptedWorker.listen();
  await using mute = await ScriptedWorker.listen();
  await using own = clientOf([full, mute]);
  const refusal = failureOf("a refusal", 5000, own.client.task("data"));
  await mute.connected();
  await full.greet();
  await until("the task", 5000, () => full.sent(1) === 1);
  full.refuse(1, Refusal.full);
  await mute[Symbol.asyncDispose]();
  // It may be asked once more.
  const again = until("the task again", 5000, () => full.sent(1) === 2).then(() =>
    full.refuse(1, Refusal.full),
  );
  again.catch(() => {});
  expect((await refusal).name).toBe("TaskQueueFullError");
});

test("what became of durable tasks is asked of the next task worker, and what it says is acknowledged", async () => {
  await using first = await ScriptedWorker.listen();
  await using second = await ScriptedWorker.listen();
  await using own = clientOf([first], { durable: "tasks.db", maxQueue: 10 });
  const result = own.client.task("kept");
  const loss = failureOf("a loss", 5000, own.client.task("not kept"));
  await first.greet();
  await until("the tasks", 5000, () => first.sent(1) === 1 && first.sent(2) === 1);
  for (const call of [1, 2]) first.say(MessageType.accepted, call);
  await inTime("both to be kept", 5000, own.client.settled());
  const pending = own.client.task("on its way");
  await until("the third", 5000, () => first.sent(3) === 1);
  await first[Symbol.asyncDispose]();
  own.client.employ([second.address], [], [first.address.pid]);
  await second.greet();
  // Of what no queue has there is nothing to ask.
  await until("the third again", 5000, () => second.sent(3) === 1);
  expect(second.heard[0]).toEqual({ type: MessageType.awaiting, call: 0, awaited: [1, 2] });
  second.say(MessageType.result, 3, "done, too");
  expect(await inTime("the third result", 5000, pending)).toBe("done, too");
  second.say(MessageType.result, 1, "done");
  second.say(MessageType.lost, 2);
  expect(await inTime("the result", 5000, result)).toBe("done");
  const { name, message } = await loss;
  expect([name, message]).toEqual([
    "TaskLostError",
    expect.stringMatching(/^task [0-9a-f]{12}-2 was lost: its outcome was not kept for so long$/),
  ]);
  const received = () => second.heard.filter(({ type }) => type === MessageType.received);
  await until("the acknowledgements", 5000, () => received().length === 2);
  expect(received().map(({ call }) => call)).toEqual([3, 1]);
});
