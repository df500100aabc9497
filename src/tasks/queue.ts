/** Where tasks wait in a task worker: what every kind of queue promises. */
import type { Parts } from "../clone/parts.ts";

/** A task on its way. */
export interface QueuedTask {
  /** Nobody else's, in all processes and for all time: whoever hands it over makes it up. */
  readonly id: string;
  /** Somebody waits for the outcome. */
  readonly isAwaited: boolean;
  /** Milliseconds for each attempt; 0 for no limit. */
  readonly timeout: number;
  /** Of its next run, or of the one that it was claimed for; from 1. */
  readonly attempt: number;
  /** How often it runs at most. */
  readonly attempts: number;
  readonly data: Parts;
}

/** How a task has ended. */
export interface Outcome {
  /** It has a result; else an error. */
  readonly ok: boolean;
  readonly value: Parts;
}

/** `open`: it waits, or runs somewhere · `unknown`: there is none, or its outcome was received. */
export type Standing = "open" | "unknown" | Outcome;

/**
 * A queue of tasks, as one task worker sees it. The queue itself may be this process's alone, or be shared with other task
 * workers, in one file or in a distributed engine; so every call may take its time, and may fail. What holds for every one:
 *
 * - **Once `add` has resolved the queue has the task**, whatever becomes of the process that handed it over. With `isDurable`
 *   also whatever becomes of this one: it is kept until it is finished.
 * - **One claimant at a time.** No two live processes have the same task. What a process has claimed when it dies is claimed
 *   again, with a higher `attempt`, by whoever comes first, as long as there are `attempts` left (durable queues), or is gone
 *   with it (others). So a task of a durable queue runs at least once, and may run more than once.
 * - **In order**: of those that wait, the one that has been due the longest is claimed first. A task added again under the
 *   same id is one task.
 * - **Bounded**: `add` rejects with a TaskQueueFullError where as many wait as are allowed.
 * - **A call that rejects has done nothing.** `finish` and `retry` do not reject, since the task has run: where they fail
 *   they resolve, and go on being tried for as long as the process lives. If it dies before, the task runs again.
 */
export interface TaskQueue {
  /** What was added outlives this process. */
  readonly isDurable: boolean;
  /** Tasks that wait, here or, of a queue that is shared, in all of it. */
  readonly waiting: number;

  /** @throws TaskQueueFullError, TaskError where the queue fails (as a rejection) */
  add(task: QueuedTask): Promise<void>;

  /** Gives this process up to `limit` tasks that are due. Never rejects: a queue that fails has none, and says so in the log. */
  claim(limit: number): Promise<readonly QueuedTask[]>;

  /**
   * Acknowledges a task: it has run for the last time. Where it is awaited the outcome is kept until `received`, or for a
   * minute, for whoever finds it. A durable queue keeps a task that failed and was not awaited, for people to look at.
   */
  finish(task: QueuedTask, outcome: Outcome): Promise<void>;

  /** The task waits again. @param delay milliseconds until it is due */
  retry(task: QueuedTask, delay: number): Promise<void>;

  /** Takes a task out that nobody has claimed. @returns false where somebody has */
  withdraw(id: string): Promise<boolean>;

  /** How tasks stand that were added, to whichever process. */
  find(ids: readonly string[]): Promise<ReadonlyMap<string, Standing>>;

  /** Whoever awaited it has the outcome. */
  received(id: string): Promise<void>;

  /** Something was added by another process: there may be something to claim. */
  look(): void;

  /** Lets go of what is claimed and not finished, and of whatever the queue holds open. */
  close(): Promise<void>;
}

/** What a queue tells its task worker. */
export interface TaskQueueEvents {
  /** There may be something to claim. */
  available(): void;
  /** A task has ended without having been run here: it had run as often as it may, and its task workers died. */
  ended(id: string, outcome: Outcome): void;
  /** Outcomes for which nobody has come: whoever ran the tasks has no link to who awaits them. */
  untold(ids: readonly string[]): void;
  log(line: string): void;
}
