/** A task as user code sees it. */
import type { Server } from "../server.ts";

/** What a "task" listener is told beside the data. */
export interface Task {
  /** The same in every attempt, in the log, and for nobody else: such as `9f2c41d07b3a-17`. */
  readonly id: string;
  /** From 1. */
  readonly attempt: number;
  /** At most so many attempts. */
  readonly attempts: number;
  /** Aborts when the task has taken longer than its `timeout`; its reason is the TaskTimeoutError. */
  readonly signal: AbortSignal;
  readonly server: Server;
}

/**
 * Does a task; what it returns, or resolves with, is the task's result, and what it throws is its error. Runs in a task
 * worker.
 */
// biome-ignore lint/suspicious/noExplicitAny: what the data is was decided by whoever handed it over, and is said by the listener.
export type TaskHandler = (data: any, task: Task) => unknown;

/** What a single task may have otherwise than the option `tasks` says. */
export interface TaskOptions {
  /**
   * Milliseconds, 1 to 2^31 - 1, or 0 for no limit: for `server.task` from its call to the result, and for each attempt, here
   * and in a durable queue. What takes longer fails with TaskTimeoutError, and `task.signal` aborts.
   * @default tasks.timeout
   */
  timeout?: number;
  /**
   * It may run again when the task worker that ran it has died. Without it such a task fails with TaskLostError, unless it is
   * durable: these always run again.
   * @default false
   */
  idempotent?: boolean;
  /**
   * How often it runs at most, 1 to 1000: a durable task again after each error and each death of its task worker, another
   * one after a death, where it is idempotent.
   * @default tasks.attempts
   */
  attempts?: number;
}
