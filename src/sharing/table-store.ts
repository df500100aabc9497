/**
 * The tables themselves, in the manager: one operation after another, so that each is atomic. What is asked was checked by whoever
 * asks (checks.ts). No I/O, and no clock.
 */
import type { TableOperation, TableResult, Values } from "./operation.ts";
import { allowedIn, type Column, emptyValue, shown, type TableSchema, textOf, type Value } from "./schema.ts";
import { TableError } from "./table-error.ts";

interface StoredRow {
  readonly values: Record<string, Value>;
  /** Milliseconds since the Unix epoch; Infinity for never. */
  expires: number;
}

export class TableStore {
  readonly #tables = new Map<string, StoredTable>();

  /** @param now milliseconds since the Unix epoch */
  run(operation: TableOperation, now: number): TableResult {
    try {
      return { value: this.#run(operation, now) };
    } catch (error) {
      if (!(error instanceof TableError)) throw error;
      return { error: error.message, code: error.code };
    }
  }

  #run(operation: TableOperation, now: number): unknown {
    if (operation.type === "declare") return this.#declare(operation.table, operation.schema);
    const table = this.#tables.get(operation.table);
    if (table === undefined) throw new TableError(`there is no table "${operation.table}"`);
    switch (operation.type) {
      case "get":
        return table.get(operation.key, now);
      case "set":
        return table.set(operation.key, operation.values, operation.ttl, now);
      case "delete":
        return table.delete(operation.key, now);
      case "incr":
        return table.incr(operation.key, operation.column, operation.by, operation.ttl, now);
      case "compareAndSet":
        return table.compareAndSet(operation.key, operation.expected, operation.values, operation.ttl, now);
      case "count":
        return table.count(now);
      case "entries":
        return table.entries(now);
      case "clear":
        return table.clear();
    }
  }

  #declare(name: string, schema: TableSchema): void {
    const there = this.#tables.get(name);
    if (there === undefined) this.#tables.set(name, new StoredTable(name, schema));
    else if (there.schemaText !== textOf(schema)) {
      throw new TableError(
        `table "${name}" is declared with ${textOf(schema)}; it is there already, with ${there.schemaText}`,
      );
    }
  }
}

class StoredTable {
  readonly schemaText: string;
  readonly #name: string;
  readonly #maxRows: number;
  readonly #columns: ReadonlyMap<string, Column>;
  readonly #rows = new Map<string, StoredRow>();
  /** No row expires before it. */
  #nextExpiry = Number.POSITIVE_INFINITY;

  constructor(name: string, schema: TableSchema) {
    this.#name = name;
    this.#maxRows = schema.rows;
    this.#columns = new Map(Object.entries(schema.columns));
    this.schemaText = textOf(schema);
  }

  get(key: string, now: number): Record<string, Value> | undefined {
    const row = this.#find(key, now);
    return row && copyOf(row.values);
  }

  set(key: string, values: Values, ttl: number | undefined, now: number): void {
    this.#write(key, this.#find(key, now), values, ttl, now);
  }

  delete(key: string, now: number): boolean {
    return this.#find(key, now) !== undefined && this.#rows.delete(key);
  }

  /** @param ttl of a row that is made */
  incr(key: string, column: string, by: number, ttl: number | undefined, now: number): number {
    const row = this.#find(key, now);
    const sum = ((row?.values[column] as number | undefined) ?? 0) + by;
    if (allowedIn(this.#columns.get(column) as Column, sum) !== null) {
      throw new TableError(
        `table "${this.#name}": column "${column}" of row ${shown(key)} cannot be ${sum}: that is out of its range`,
      );
    }
    this.#write(key, row, { [column]: sum }, row === undefined ? ttl : undefined, now);
    return sum;
  }

  compareAndSet(
    key: string,
    expected: Values | null,
    values: Values | null,
    ttl: number | undefined,
    now: number,
  ): boolean {
    const row = this.#find(key, now);
    if (expected === null ? row !== undefined : row === undefined || !agrees(row.values, expected))
      return false;
    if (values !== null) this.#write(key, row, values, ttl, now);
    else this.#rows.delete(key);
    return true;
  }

  count(now: number): number {
    this.#dropExpired(now);
    return this.#rows.size;
  }

  entries(now: number): [string, Record<string, Value>][] {
    this.#dropExpired(now);
    return Array.from(this.#rows, ([key, { values }]) => [key, copyOf(values)]);
  }

  clear(): void {
    this.#rows.clear();
  }

  #find(key: string, now: number): StoredRow | undefined {
    const row = this.#rows.get(key);
    if (row === undefined || row.expires > now) return row;
    this.#rows.delete(key);
    return undefined;
  }

  #write(
    key: string,
    row: StoredRow | undefined,
    values: Values,
    ttl: number | undefined,
    now: number,
  ): void {
    const written = row ?? this.#make(key, now);
    for (const [column, value] of Object.entries(values)) {
      // What is stored is nobody else's.
      written.values[column] = value instanceof Uint8Array ? Buffer.from(value) : (value as Value);
    }
    if (ttl === undefined) return;
    written.expires = ttl === 0 ? Number.POSITIVE_INFINITY : now + ttl;
    this.#nextExpiry = Math.min(this.#nextExpiry, written.expires);
  }

  #make(key: string, now: number): StoredRow {
    if (this.#rows.size >= this.#maxRows) this.#dropExpired(now);
    if (this.#rows.size >= this.#maxRows) {
      throw new TableError(
        `table "${this.#name}" is full: it has ${this.#maxRows} rows, and row ${shown(key)} would be one more`,
        "TERCET_TABLE_FULL",
      );
    }
    const values: Record<string, Value> = {};
    for (const [column, type] of this.#columns) values[column] = emptyValue(type);
    const row = { values, expires: Number.POSITIVE_INFINITY };
    this.#rows.set(key, row);
    return row;
  }

  #dropExpired(now: number): void {
    if (this.#nextExpiry > now) return;
    this.#nextExpiry = Number.POSITIVE_INFINITY;
    for (const [key, { expires }] of this.#rows) {
      if (expires <= now) this.#rows.delete(key);
      else this.#nextExpiry = Math.min(this.#nextExpiry, expires);
    }
  }
}

function copyOf(values: Readonly<Record<string, Value>>): Record<string, Value> {
  const copy: Record<string, Value> = {};
  for (const [column, value] of Object.entries(values)) {
    copy[column] = value instanceof Uint8Array ? Buffer.from(value) : value;
  }
  return copy;
}

function agrees(values: Readonly<Record<string, Value>>, expected: Values): boolean {
  return Object.entries(expected).every(([column, value]) => {
    const there = values[column];
    return there instanceof Uint8Array ? Buffer.compare(there, value as Uint8Array) === 0 : there === value;
  });
}
