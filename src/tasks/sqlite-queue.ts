/**
 * A queue in an SQLite file, which all task workers share. What is added is on the disk before `add` resolves; that a task is
 * claimed or done is written, so that it outlives every process, but is not flushed: after a power failure the last of it may
 * be gone, and a task that was done runs again. All that is asked in one turn of the event loop is one transaction.
 */
import { realpathSync, statSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import { pack } from "../clone/parts.ts";
import { Claimant, claimantsOf, DeadClaimant } from "./claimant.ts";
import { TaskError, TaskQueueFullError } from "./errors.ts";
import type { Outcome, QueuedTask, Standing, TaskQueue, TaskQueueEvents } from "./queue.ts";
import { failureOf, openQueueFile } from "./queue-file.ts";
import {
  deaths,
  isThere,
  keptOf,
  type Row,
  type Statements,
  standingOf,
  statementsOf,
  taskOf,
  textOf,
} from "./queue-statements.ts";

/** Milliseconds between two looks for tasks of other processes, alive or dead. */
const LOOK_INTERVAL = 1000;
/** Milliseconds for which an outcome is kept that nobody has come for. */
const OUTCOME_KEPT = 60_000;

/** What is to be done in the next transaction. */
interface Operation {
  /** It has to be on the disk before anybody is told. */
  readonly isFlushed: boolean;
  /** @returns an error where this one is refused, and nothing has failed */
  run(): unknown;
  done(value: unknown): void;
  failed(error: TaskError): void;
}

export interface SqliteQueueOptions {
  readonly path: string;
  /** Tasks that may wait in the file. */
  readonly maxQueue: number;
}

export class SqliteQueue implements TaskQueue {
  readonly isDurable = true;
  /** Of the file itself, whatever links lead there. */
  readonly #path: string;
  readonly #inode: number;
  readonly #maxQueue: number;
  readonly #events: TaskQueueEvents;
  readonly #database: DatabaseSync;
  readonly #statements: Statements;
  readonly #claimant: Claimant;
  readonly #flush = () => this.#commitAll();
  readonly #timer: NodeJS.Timeout;
  #operations: Operation[] = [];
  /** Of tasks that have run: they failed, and are tried again. */
  #overdue: Operation[] = [];
  /** Null: as SQLite was built, which may be either. */
  #isFlushing: boolean | null = null;
  /** Tasks that may be added in this transaction; counted with the first. */
  #room: number | null = null;
  #waiting = 0;
  #failing = "";
  #isMissing = false;
  /** By the system's clock; at first the clock may have been set while nobody looked. */
  #lastLook = Number.POSITIVE_INFINITY;
  #isClosed = false;

  /**
   * Opens the file, and takes over what dead processes had claimed.
   * @throws TaskError (as a rejection), which says in one line why the file cannot be used
   */
  static async open(options: SqliteQueueOptions, events: TaskQueueEvents): Promise<SqliteQueue> {
    const database = await openQueueFile(options.path);
    try {
      // Who shares it may know it by another name: where the file itself is, each finds what the others have claimed.
      const path = realpathSync(options.path);
      return new SqliteQueue({ ...options, path }, database, Claimant.take(path), events);
    } catch (error) {
      database.close();
      throw failureOf(options.path, error);
    }
  }

  private constructor(
    { path, maxQueue }: SqliteQueueOptions,
    database: DatabaseSync,
    claimant: Claimant,
    events: TaskQueueEvents,
  ) {
    this.#path = path;
    this.#inode = statSync(path).ino;
    this.#maxQueue = maxQueue;
    this.#events = events;
    this.#database = database;
    this.#claimant = claimant;
    this.#statements = statementsOf(database);
    this.#timer = setInterval(() => this.#lookAround(), LOOK_INTERVAL);
    this.#lookAround();
  }

  get waiting(): number {
    try {
      this.#waiting = (this.#statements.count.get() as { count: number }).count;
    } catch (error) {
      this.#tell(failureOf(this.#path, error));
    }
    return this.#waiting;
  }

  add({ id, isAwaited, timeout, attempt, attempts, data }: QueuedTask): Promise<void> {
    return this.#ask(true, () => {
      if (this.#room === null) {
        // What is written to a file without a name is on no disk when the last process has closed it.
        if (!this.#isInPlace()) return failureOf(this.#path, new Error("it was removed or replaced"));
        this.#room = this.#maxQueue - (this.#statements.count.get() as { count: number }).count;
      }
      if (this.#room <= 0) {
        return new TaskQueueFullError(`${this.#maxQueue} tasks wait already (tasks.maxQueue)`);
      }
      const { changes } = this.#statements.add.run({
        id,
        now: Date.now(),
        awaited: isAwaited ? 1 : 0,
        timeout,
        attempt: attempt - 1,
        attempts,
        data: pack(data),
      });
      this.#room -= Number(changes);
    });
  }

  claim(limit: number): Promise<readonly QueuedTask[]> {
    const claimed = this.#ask<readonly QueuedTask[]>(false, () => {
      const rows = this.#statements.claim.all({ claimant: this.#claimant.id, now: Date.now(), limit });
      if (this.#room !== null) this.#room += rows.length;
      return (rows as unknown as Row[]).sort((a, b) => a.due - b.due || a.seq - b.seq).map(taskOf);
    });
    // It was logged; the next look will show whether the queue works again.
    return claimed.catch(() => []);
  }

  finish(task: QueuedTask, outcome: Outcome): Promise<void> {
    const { id, isAwaited } = task;
    const own = { id, claimant: this.#claimant.id };
    return this.#settle(() => {
      if (isAwaited) this.#statements.keep.run({ ...own, ...keptOf(outcome) });
      else if (outcome.ok) this.#statements.remove.run(own);
      else this.#statements.fail.run({ ...own, now: Date.now(), error: textOf(outcome) });
    });
  }

  async retry({ id }: QueuedTask, delay: number): Promise<void> {
    await this.#settle(() => {
      const now = Date.now();
      this.#statements.retry.run({ id, claimant: this.#claimant.id, now, due: now + delay });
    });
    setTimeout(() => {
      if (!this.#isClosed) this.#events.available();
    }, delay);
  }

  withdraw(id: string): Promise<boolean> {
    return this.#ask(false, () => Number(this.#statements.withdraw.run({ id }).changes) > 0);
  }

  find(ids: readonly string[]): Promise<ReadonlyMap<string, Standing>> {
    return this.#ask(
      false,
      () => new Map(ids.map((id) => [id, standingOf(this.#statements.find.get({ id }))])),
    );
  }

  received(id: string): Promise<void> {
    return this.#settle(() => {
      this.#statements.received.run({ id });
    });
  }

  look(): void {
    this.#events.available();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    clearInterval(this.#timer);
    for (const operation of this.#overdue.splice(0)) this.#push(operation);
    await this.#settle(() => {
      this.#statements.letGo.run({ claimant: this.#claimant.id, now: Date.now() });
    });
    this.#isClosed = true;
    this.#database.close();
    this.#claimant.release();
  }

  #ask<T>(isFlushed: boolean, run: () => unknown): Promise<T> {
    if (this.#isClosed) return Promise.reject(failureOf(this.#path, new Error("it was closed")));
    return new Promise<T>((done, failed) => {
      this.#push({ isFlushed, run, done: done as (value: unknown) => void, failed });
    });
  }

  /** What concerns a task that has run is tried until it succeeds. */
  #settle(run: () => void): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    return new Promise((done) => {
      const operation: Operation = {
        isFlushed: false,
        run,
        done: () => done(),
        failed: () => {
          this.#overdue.push(operation);
          done();
        },
      };
      this.#push(operation);
    });
  }

  #push(operation: Operation): void {
    if (this.#operations.push(operation) === 1) setImmediate(this.#flush);
  }

  #commitAll(): void {
    const operations = this.#operations;
    this.#operations = [];
    if (operations.length === 0 || this.#isClosed) return;
    if (this.#commit(operations)) return;
    // One of them may be the cause, and is no reason to refuse the others.
    for (const operation of operations) this.#commit([operation]);
  }

  /** @returns false where one of several failed: nobody was told then */
  #commit(operations: readonly Operation[]): boolean {
    this.#room = null;
    let hasBegun = false;
    try {
      this.#flushNext(operations.some(({ isFlushed }) => isFlushed));
      this.#database.exec("BEGIN IMMEDIATE");
      hasBegun = true;
      const before = this.#failing === "" ? 0 : this.#changes();
      const values = operations.map((operation) => operation.run());
      this.#database.exec("COMMIT");
      // What has changed nothing works on a full disk, too.
      if (this.#failing !== "" && this.#changes() > before) {
        this.#events.log(`the task queue ${this.#path} works again`);
        this.#failing = "";
      }
      for (const [index, operation] of operations.entries()) {
        const value = values[index];
        if (value instanceof TaskError) operation.failed(value);
        else operation.done(value);
      }
      return true;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      // Where it could not begin, none of them is the cause, and each by itself would wait for the lock as long again.
      if (hasBegun && operations.length > 1) return false;
      const failure = failureOf(this.#path, error);
      this.#tell(failure);
      for (const operation of operations) operation.failed(failure);
      return true;
    }
  }

  /** Whether the next transaction is on the disk when it is done. */
  #flushNext(isFlushing: boolean): void {
    if (isFlushing === this.#isFlushing) return;
    this.#database.exec(`PRAGMA synchronous = ${isFlushing ? "FULL" : "NORMAL"}`);
    this.#isFlushing = isFlushing;
  }

  /** Rows that were changed since the file was opened. */
  #changes(): number {
    return (this.#statements.changes.get() as { total: number }).total;
  }

  /** A failure that lasts is told once. */
  #tell(failure: TaskError): void {
    if (failure.message !== this.#failing) this.#events.log(failure.message);
    this.#failing = failure.message;
  }

  #lookAround(): void {
    for (const operation of this.#overdue.splice(0)) this.#push(operation);
    try {
      // The files of those that live may be gone as well.
      if (this.#isInPlace()) this.#buryTheDead();
      const untold = this.#statements.untold.all({ before: Date.now() - LOOK_INTERVAL }) as { id: string }[];
      if (untold.length > 0) this.#events.untold(untold.map(({ id }) => id));
      this.#hasten();
      const before = { before: Date.now() - OUTCOME_KEPT };
      // Asked first: what only reads waits for nobody.
      if (isThere(this.#statements.isForgotten.get(before))) {
        this.#statements.forgetResults.run(before);
        this.#statements.forgetErrors.run(before);
      }
      if (isThere(this.#statements.isDue.get({ now: Date.now() }))) this.#events.available();
    } catch (error) {
      this.#tell(failureOf(this.#path, error));
    }
  }

  /** Its name leads to it. Whoever opens it from now on finds another one, or none. */
  #isInPlace(): boolean {
    const there = statSync(this.#path, { throwIfNoEntry: false });
    const isMissing = there?.ino !== this.#inode;
    if (isMissing && !this.#isMissing) {
      this.#events.log(
        `the task queue ${this.#path} was removed or replaced while it was in use: it takes no more tasks, and those that it has are lost when this process ends before they are done`,
      );
    }
    this.#isMissing = isMissing;
    return !isMissing;
  }

  /** Where the clock was set back, what was to be run at once would wait until it is as late again. */
  #hasten(): void {
    const now = Date.now();
    if (now < this.#lastLook) this.#statements.hasten.run({ now });
    this.#lastLook = now;
  }

  #buryTheDead(): void {
    for (const id of this.#otherClaimants()) {
      const dead = DeadClaimant.find(this.#path, id);
      if (dead !== null) void this.#release(dead);
    }
  }

  #otherClaimants(): Set<string> {
    const running = this.#statements.claimants.all({ claimant: this.#claimant.id }) as { claimant: string }[];
    const others = new Set([...claimantsOf(this.#path), ...running.map(({ claimant }) => claimant)]);
    others.delete(this.#claimant.id);
    return others;
  }

  /** What a dead process had claimed waits again, or has failed where it has run as often as it may. */
  async #release(dead: DeadClaimant): Promise<void> {
    const own = { claimant: dead.id };
    try {
      const spent = await this.#ask<[string, Outcome | null][]>(false, () => {
        this.#statements.release.run({ ...own, now: Date.now() });
        const rows = this.#statements.spent.all(own) as { id: string; awaited: number; attempt: number }[];
        return rows.map(({ id, awaited, attempt }) => {
          const outcome = deaths(id, attempt);
          if (awaited === 1) this.#statements.keep.run({ ...own, id, ...keptOf(outcome) });
          else this.#statements.fail.run({ ...own, id, now: Date.now(), error: textOf(outcome) });
          return [id, awaited === 1 ? outcome : null];
        });
      });
      dead.bury(true);
      for (const [id, outcome] of spent) {
        if (outcome !== null) this.#events.ended(id, outcome);
        else this.#events.log(`task ${id} has failed: its task worker has died each time that it ran`);
      }
      this.#events.available();
    } catch {
      // It was logged, and is tried again at the next look.
      dead.bury(false);
    }
  }
}
