/** A task worker's loop over a durable queue that is none, without a client. */
import { expect, test } from "bun:test";
import { encode } from "../../src/clone/clone.ts";
import type { ResolvedTasks } from "../../src/options.ts";
import type { Deadline } from "../../src/tasks/deadline.ts";
import type { QueuedTask, TaskQueue } from "../../src/tasks/queue.ts";
import { TaskWorker } from "../../src/tasks/task-worker.ts";
import { until } from "../support/poll.ts";

/** A worker that runs one task, and what it says of it. @param timeout milliseconds */
function workerOf(timeout: number, run: () => unknown, kept: Promise<void> = Promise.resolve()) {
  const said: string[] = [];
  const data = encode("data", "task", "data");
  const tasks: QueuedTask[] = [{ id: "a-1", isAwaited: false, timeout, attempt: 1, attempts: 2, data }];
  const told = (how: string) => {
    said.push(how);
    return kept;
  };
  const queue = {
    isDurable: true,
    waiting: 0,
    claim: async () => tasks.splice(0),
    finish: () => told("finish"),
    retry: () => told("retry"),
  } as unknown as TaskQueue;
  const deadline = { begin: () => said.push("begin"), end: () => said.push("end") } as unknown as Deadline;
  const options = { concurrency: 1, backoff: 1 } as ResolvedTasks;
  const worker = new TaskWorker(queue, run, options, 0, deadline, {
    spent: () => {},
    rested: () => said.push("rested"),
    look: () => {},
    log: () => {},
  });
  return { worker, said };
}

test("what a task does after its time is over is no second end of it", async () => {
  const late = Promise.withResolvers<string>();
  const { worker, said } = workerOf(1, () => late.promise);
  await worker.claim();
  await until("the end of its time", 1000, () => said.includes("retry"));
  late.resolve("late");
  await Bun.sleep(1);
  expect([said, worker.counts().inFlight]).toEqual([["begin", "end", "retry"], 0]);
});

test("it has not rested before the queue knows how its last task has ended", async () => {
  const kept = Promise.withResolvers<void>();
  const { worker, said } = workerOf(0, () => "done", kept.promise);
  await worker.claim();
  await until("its end", 1000, () => said.includes("finish"));
  await worker.retire(false);
  await Bun.sleep(1);
  expect(said).toEqual(["begin", "end", "finish"]);
  kept.resolve();
  await until("its rest", 1000, () => said.includes("rested"));
});
