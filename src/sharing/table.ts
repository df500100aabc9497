/** A table as user code holds it: each call is an operation that the manager does. */
import { TableChecks } from "./checks.ts";
import type { TableOperation } from "./operation.ts";
import type { Columns, Row, TableSchema } from "./schema.ts";
import { checkSchema, textOf } from "./schema.ts";
import { TableError } from "./table-error.ts";

/** Has the manager do an operation. */
export type Operate = (operation: TableOperation) => Promise<unknown>;

export interface RowOptions {
  /** Milliseconds after which the row is gone, from 1 on; 0 for never. */
  ttl?: number;
}

/**
 * A small table that all workers, task workers and the manager share: rows by their keys, of typed columns. The manager keeps it,
 * in its memory, and does one operation after another: each is atomic. What one process asks is done in the order in which it
 * asked. A table lives as long as the manager; no worker's end and no reload changes it.
 *
 * A key is a string of 1 to 256 bytes. Whatever is wrong rejects with a TableError that names the column and the value; then
 * nothing has changed.
 */
export class Table<C extends Columns = Columns> {
  readonly name: string;
  readonly #checks: TableChecks;
  readonly #operate: Operate;

  /** @internal */
  constructor(name: string, columns: Columns, operate: Operate) {
    this.name = name;
    this.#checks = new TableChecks(name, columns);
    this.#operate = operate;
  }

  /** Undefined where there is no such row. */
  async get(key: string): Promise<Row<C> | undefined> {
    this.#checks.key(key);
    return (await this.#operate({ table: this.name, type: "get", key })) as Row<C> | undefined;
  }

  /**
   * Sets the columns that are named; the others stay, or are 0 or empty where the row is made. A row keeps its `ttl` where none
   * is given.
   * @throws TableError; with code TERCET_TABLE_FULL where the table has as many rows as it may (as a rejection)
   */
  async set(key: string, values: Partial<Row<C>>, options?: RowOptions): Promise<void> {
    this.#checks.key(key);
    this.#checks.values(values);
    this.#checks.options(options);
    await this.#operate({ table: this.name, type: "set", key, values, ttl: options?.ttl });
  }

  /** @returns false where there was no such row */
  async delete(key: string): Promise<boolean> {
    this.#checks.key(key);
    return (await this.#operate({ table: this.name, type: "delete", key })) as boolean;
  }

  /**
   * Adds to a column of integer or float, and resolves with the sum. A row that is not there is made, and has the `ttl` then.
   * @param by what is added; it may be negative
   * @throws TableError; where the sum is out of the column's range, too (as a rejection)
   */
  async incr(key: string, column: keyof C & string, by = 1, options?: RowOptions): Promise<number> {
    this.#checks.key(key);
    this.#checks.increment(column, by);
    this.#checks.options(options);
    return (await this.#operate({
      table: this.name,
      type: "incr",
      key,
      column,
      by,
      ttl: options?.ttl,
    })) as number;
  }

  /**
   * Sets the columns that `values` names where those that `expected` names are as it says, and resolves with whether they were.
   * @param expected null: there is no such row
   * @param values null: the row is deleted
   */
  async compareAndSet(
    key: string,
    expected: Partial<Row<C>> | null,
    values: Partial<Row<C>> | null,
    options?: RowOptions,
  ): Promise<boolean> {
    this.#checks.key(key);
    if (expected !== null) this.#checks.values(expected);
    if (values !== null) this.#checks.values(values);
    this.#checks.options(options);
    const operation = {
      table: this.name,
      type: "compareAndSet",
      key,
      expected,
      values,
      ttl: options?.ttl,
    } as const;
    return (await this.#operate(operation)) as boolean;
  }

  /** Rows. */
  async count(): Promise<number> {
    return (await this.#operate({ table: this.name, type: "count" })) as number;
  }

  /** Every row, in the order in which they were made: all of the table crosses over. */
  async entries(): Promise<[key: string, row: Row<C>][]> {
    return (await this.#operate({ table: this.name, type: "entries" })) as [string, Row<C>][];
  }

  /** Deletes every row. */
  async clear(): Promise<void> {
    await this.#operate({ table: this.name, type: "clear" });
  }
}

/** The tables that a process has declared. */
export class Tables {
  readonly #tables = new Map<string, { readonly schema: TableSchema; readonly table: Table }>();
  #operate: Operate | null = null;

  /**
   * The same table for the same name.
   * @throws TableError where the schema is wrong, or another than before
   */
  declare<C extends Columns>(name: string, schema: TableSchema<C>): Table<C> {
    checkSchema(name, schema);
    const there = this.#tables.get(name);
    if (there !== undefined && textOf(there.schema) !== textOf(schema)) {
      throw new TableError(
        `table "${name}" is declared with ${textOf(schema)}; it was declared before, with ${textOf(there.schema)}`,
      );
    }
    if (there !== undefined) return there.table as unknown as Table<C>;
    let declared = this.#operate && declaration(this.#operate, name, schema);
    // Whoever uses it is told.
    declared?.catch(() => {});
    const table = new Table(name, schema.columns, async (operation) => {
      if (this.#operate === null) throw new TableError(`table "${name}": the server has not started`);
      if (declared !== null) await declared;
      declared = null;
      return this.#operate(operation);
    });
    this.#tables.set(name, { schema, table });
    return table as unknown as Table<C>;
  }

  /**
   * Declares to the manager what was declared here, and from now on whatever is.
   * @throws TableError (as a rejection) where a table is there with another schema
   */
  async connect(operate: Operate): Promise<void> {
    this.#operate = operate;
    await Promise.all(Array.from(this.#tables, ([name, { schema }]) => declaration(operate, name, schema)));
  }
}

function declaration(operate: Operate, table: string, schema: TableSchema): Promise<unknown> {
  return operate({ table, type: "declare", schema });
}
