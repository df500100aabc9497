/** The SQLite file of a durable queue: its schema, and the checks before it is used. */
import { closeSync, existsSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { TaskError } from "./errors.ts";

/** "Trct": by this other programs' databases are told from a queue. */
const APPLICATION_ID = 0x54726374;
/** Raised when the tables change. */
const SCHEMA_VERSION = 1;
/** Milliseconds for which a transaction waits for another process's. */
const BUSY_TIMEOUT = 5000;
const OPEN_ATTEMPTS = 50;
/** Milliseconds between two attempts. */
const OPEN_DELAY = 50;

const SCHEMA = `
CREATE TABLE task (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  id       TEXT NOT NULL UNIQUE,
  -- queued: waits · running: claimed · finished: its outcome is kept for whoever awaits it · failed: nobody awaited it
  state    TEXT NOT NULL CHECK (state IN ('queued', 'running', 'finished', 'failed')),
  due      INTEGER NOT NULL,
  awaited  INTEGER NOT NULL,
  timeout  INTEGER NOT NULL,
  attempt  INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  claimant TEXT,
  -- of one that waits: when it failed last, if its next attempt has to wait
  ended    INTEGER,
  ok       INTEGER,
  error    TEXT,
  data     BLOB NOT NULL,
  outcome  BLOB
) STRICT;
CREATE INDEX task_queued ON task (due, seq) WHERE state = 'queued';
CREATE INDEX task_running ON task (claimant) WHERE state = 'running';
CREATE INDEX task_finished ON task (ended) WHERE state = 'finished';
PRAGMA application_id = ${APPLICATION_ID};
PRAGMA user_version = ${SCHEMA_VERSION};
`;

const Code = { busy: 5, readonly: 8, corrupt: 11, cannotOpen: 14, notADatabase: 26 } as const;

/**
 * Opens a queue's file, which is made where there is none.
 * @throws TaskError (as a rejection), which says in one line why the file cannot be used
 */
export async function openQueueFile(path: string): Promise<DatabaseSync> {
  if (!existsSync(dirname(path))) {
    throw new TaskError(`tasks.durable: the folder ${dirname(path)} is not there`);
  }
  for (let attempt = 1; ; attempt++) {
    let database: DatabaseSync | null = null;
    try {
      // What tasks hold is nobody else's; SQLite gives its other files the same mode.
      if (!existsSync(path)) closeSync(openSync(path, "a", 0o600));
      database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT });
      prepare(database, path);
      return database;
    } catch (error) {
      database?.close();
      // Processes that start together make the file together, and SQLite does not let all of them wait for that.
      if (codeOf(error) !== Code.busy || attempt === OPEN_ATTEMPTS) throw wrongFile(path, error as Error);
    }
    await sleep(OPEN_DELAY);
  }
}

/** A failure of the file after it was opened. */
export function failureOf(path: string, error: unknown): TaskError {
  return new TaskError(`the task queue ${path} fails: ${(error as Error).message}`, { cause: error });
}

function prepare(database: DatabaseSync, path: string): void {
  const pragma = (name: string) => Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
  const mode = pragma("journal_mode") === "wal" ? "wal" : pragma("journal_mode = WAL");
  if (mode !== "wal") throw new TaskError(`tasks.durable: ${path} is on a file system without shared memory`);
  database.exec("BEGIN IMMEDIATE");
  const id = pragma("application_id");
  const version = Number(pragma("user_version"));
  const isEmpty = pragma("schema_version") === 0;
  if (id === 0 && isEmpty) database.exec(SCHEMA);
  else if (id !== APPLICATION_ID) {
    throw new TaskError(`tasks.durable: ${path} is a database of another program`);
  } else if (version !== SCHEMA_VERSION) {
    const is = version > SCHEMA_VERSION ? "a newer Tercet" : "another Tercet";
    throw new TaskError(
      `tasks.durable: ${path} was written by ${is}: its schema is ${version}, and this one knows ${SCHEMA_VERSION}`,
    );
  }
  database.exec("COMMIT");
  const damage = pragma("quick_check(1)");
  if (damage !== "ok") throw new TaskError(`tasks.durable: ${path} is damaged: ${oneLine(String(damage))}`);
}

function wrongFile(path: string, error: Error): TaskError {
  if (error instanceof TaskError) return error;
  const cause = { cause: error };
  switch (codeOf(error)) {
    case Code.notADatabase:
      return new TaskError(`tasks.durable: ${path} is no SQLite database`, cause);
    case Code.corrupt:
      return new TaskError(`tasks.durable: ${path} is damaged: ${error.message}`, cause);
    case Code.cannotOpen:
    case Code.readonly:
      return new TaskError(`tasks.durable: ${path} cannot be read and written: ${error.message}`, cause);
    default:
      return new TaskError(`tasks.durable: ${path} cannot be used: ${error.message}`, cause);
  }
}

/** The primary result code. */
function codeOf(error: unknown): number {
  return ((error as { errcode?: number }).errcode ?? 0) & 0xff;
}

function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/g, " ");
}
