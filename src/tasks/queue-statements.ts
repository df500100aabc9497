/** What a durable queue says to SQLite, and how its rows are read. */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { decode, encodeError } from "../clone/clone.ts";
import { type Parts, pack, unpack } from "../clone/parts.ts";
import { TaskLostError } from "./errors.ts";
import type { Outcome, QueuedTask, Standing } from "./queue.ts";

const SQL = {
  count: "SELECT count(*) AS count FROM task WHERE state = 'queued'",
  changes: "SELECT total_changes() AS total",
  isDue: "SELECT EXISTS (SELECT 1 FROM task WHERE state = 'queued' AND due <= :now) AS found",
  add: `INSERT INTO task (id, state, due, awaited, timeout, attempt, attempts, data)
    VALUES (:id, 'queued', :now, :awaited, :timeout, :attempt, :attempts, :data) ON CONFLICT (id) DO NOTHING`,
  claim: `UPDATE task SET state = 'running', claimant = :claimant, attempt = attempt + 1, ended = NULL
    WHERE seq IN (SELECT seq FROM task WHERE state = 'queued' AND due <= :now ORDER BY due, seq LIMIT :limit)
    RETURNING seq, due, id, awaited, timeout, attempt, attempts, data`,
  remove: "DELETE FROM task WHERE id = :id AND claimant = :claimant",
  keep: `UPDATE task SET state = 'finished', claimant = NULL, ended = :now, ok = :ok, outcome = :outcome, error = :error
    WHERE id = :id AND claimant = :claimant`,
  fail: `UPDATE task SET state = 'failed', claimant = NULL, ended = :now, error = :error
    WHERE id = :id AND claimant = :claimant`,
  retry: `UPDATE task SET state = 'queued', claimant = NULL, due = :due, ended = :now
    WHERE id = :id AND claimant = :claimant`,
  hasten: `UPDATE task SET due = :now
    WHERE state = 'queued' AND due > :now AND (ended IS NULL OR ended > :now)`,
  withdraw: "DELETE FROM task WHERE id = :id AND state = 'queued'",
  find: "SELECT state, ok, outcome FROM task WHERE id = :id",
  received: "DELETE FROM task WHERE id = :id AND state = 'finished'",
  claimants: "SELECT DISTINCT claimant FROM task WHERE state = 'running' AND claimant <> :claimant",
  release: `UPDATE task SET state = 'queued', claimant = NULL, due = :now
    WHERE state = 'running' AND claimant = :claimant AND attempt < attempts`,
  spent: "SELECT id, awaited, attempt FROM task WHERE state = 'running' AND claimant = :claimant",
  letGo: `UPDATE task SET state = 'queued', claimant = NULL, due = :now, attempt = attempt - 1
    WHERE state = 'running' AND claimant = :claimant`,
  untold: "SELECT id FROM task WHERE state = 'finished' AND ended < :before",
  isForgotten: "SELECT EXISTS (SELECT 1 FROM task WHERE state = 'finished' AND ended < :before) AS found",
  forgetResults: "DELETE FROM task WHERE state = 'finished' AND ended < :before AND ok = 1",
  forgetErrors:
    "UPDATE task SET state = 'failed', outcome = NULL WHERE state = 'finished' AND ended < :before",
} as const;

export type Statements = { readonly [Name in keyof typeof SQL]: StatementSync };

/** A row that was claimed. */
export interface Row {
  readonly seq: number;
  readonly due: number;
  readonly id: string;
  readonly awaited: number;
  readonly timeout: number;
  readonly attempt: number;
  readonly attempts: number;
  readonly data: Uint8Array;
}

export function statementsOf(database: DatabaseSync): Statements {
  const prepared = Object.entries(SQL).map(([name, sql]) => [name, database.prepare(sql)]);
  return Object.fromEntries(prepared) as Statements;
}

/** Of SELECT EXISTS. */
export function isThere(row: unknown): boolean {
  return (row as { found: number }).found === 1;
}

export function taskOf({ id, awaited, timeout, attempt, attempts, data }: Row): QueuedTask {
  return { id, isAwaited: awaited === 1, timeout, attempt, attempts, data: unpack(data) };
}

export function standingOf(row: unknown): Standing {
  const found = row as { state: string; ok: number; outcome: Uint8Array } | undefined;
  if (found === undefined || found.state === "failed") return "unknown";
  return found.state === "finished" ? { ok: found.ok === 1, value: unpack(found.outcome) } : "open";
}

/** Columns of an outcome that is kept. */
export function keptOf(outcome: Outcome) {
  const error = outcome.ok ? null : textOf(outcome);
  return { now: Date.now(), ok: outcome.ok ? 1 : 0, outcome: pack(outcome.value), error };
}

/** Of a failure, for people to read. */
export function textOf({ value }: { readonly value: Parts }): string {
  const error = decode(value);
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Of a task whose task worker died each time that it ran. */
export function deaths(id: string, attempt: number): Outcome {
  const times = attempt === 1 ? "once" : `${attempt} times`;
  const error = new TaskLostError(`task ${id} was run ${times}, and each time its task worker ended`);
  return { ok: false, value: encodeError(error) };
}
