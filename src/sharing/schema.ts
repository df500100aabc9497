/** What a table's rows are made of: the types of columns, and the checks of values. */
import { inspect } from "node:util";
import { unknownName } from "../unknown-name.ts";
import { TableError } from "./table-error.ts";

/**
 * `integer`: a whole number of up to 2^53 - 1 either way · `float`: a finite number · `string`: a text of at most so many bytes
 * of UTF-8, 1 to 65536 · `bytes`: at most so many bytes, 1 to 65536.
 */
export type Column = "integer" | "float" | { readonly type: "string" | "bytes"; readonly bytes: number };

export type Columns = Readonly<Record<string, Column>>;

export interface TableSchema<C extends Columns = Columns> {
  /** Rows that the table may have, 1 to 1000000; all of them, as large as they may be, have 256 MiB at most. */
  readonly rows: number;
  /** 1 to 64 columns by their names: letters, digits and underscores, after a letter. */
  readonly columns: C;
}

/** A row. What was never set is 0, an empty string or no bytes. */
export type Row<C extends Columns> = {
  -readonly [Name in keyof C]: C[Name] extends "integer" | "float"
    ? number
    : C[Name] extends { readonly type: "string" }
      ? string
      : Uint8Array;
};

export type Value = number | string | Uint8Array;

const MAX_ROWS = 1_000_000;
const MAX_COLUMNS = 64;
const MAX_VALUE_BYTES = 65_536;
/** Of a table whose rows all are as large as they may be. */
const MAX_TABLE_BYTES = 256 * 1024 * 1024;
const NUMBER_BYTES = 8;
const NAME = /^[A-Za-z]\w{0,63}$/;
const NAMED = "a letter and at most 63 letters, digits and underscores";
const COLUMN = `"integer", "float", or { type: "string" or "bytes", bytes: 1 to ${MAX_VALUE_BYTES} }`;

/** @throws TableError */
export function checkSchema(name: string, schema: TableSchema): void {
  if (typeof name !== "string" || !NAME.test(name)) {
    throw new TableError(`a table is named ${inspect(name)}; it must be ${NAMED}`);
  }
  const fault = unknownName(schema ?? {}, ["rows", "columns"]);
  if (fault !== null) throw new TableError(`table "${name}": ${fault}`);
  const { rows, columns } = schema ?? {};
  if (!Number.isInteger(rows) || rows < 1 || rows > MAX_ROWS) {
    throw new TableError(
      `table "${name}": rows is ${inspect(rows)}; it must be a whole number from 1 to ${MAX_ROWS}`,
    );
  }
  const entries = typeof columns === "object" && columns !== null ? Object.entries(columns) : [];
  if (entries.length === 0 || entries.length > MAX_COLUMNS) {
    throw new TableError(
      `table "${name}": it has ${entries.length} columns; it must have 1 to ${MAX_COLUMNS}`,
    );
  }
  for (const [column, type] of entries) {
    if (!NAME.test(column)) {
      throw new TableError(`table "${name}": a column is named "${column}"; it must be ${NAMED}`);
    }
    if (!isColumn(type))
      throw new TableError(`table "${name}": column "${column}" is ${inspect(type)}; it must be ${COLUMN}`);
  }
  const rowBytes = entries.reduce(
    (sum, [, type]) => sum + (typeof type === "string" ? NUMBER_BYTES : type.bytes),
    0,
  );
  if (rows * rowBytes > MAX_TABLE_BYTES) {
    throw new TableError(
      `table "${name}": ${rows} rows of ${rowBytes} bytes are ${rows * rowBytes}, and ${MAX_TABLE_BYTES} are allowed`,
    );
  }
}

function isColumn(column: unknown): column is Column {
  if (column === "integer" || column === "float") return true;
  if (typeof column !== "object" || column === null) return false;
  const { type, bytes } = column as { type?: unknown; bytes?: unknown };
  const isWhole = Number.isInteger(bytes) && (bytes as number) >= 1 && (bytes as number) <= MAX_VALUE_BYTES;
  return (
    (type === "string" || type === "bytes") && isWhole && unknownName(column, ["type", "bytes"]) === null
  );
}

/** Two schemas of one text are the same. */
export function textOf({ rows, columns }: TableSchema): string {
  const sorted = Object.entries(columns).sort(([a], [b]) => (a < b ? -1 : 1));
  const types = sorted.map(([name, column]) =>
    typeof column === "string" ? `${name} ${column}` : `${name} ${column.type}(${column.bytes})`,
  );
  return `${rows} rows of ${types.join(", ")}`;
}

export function emptyValue(column: Column): Value {
  if (typeof column === "string") return 0;
  return column.type === "string" ? "" : Buffer.alloc(0);
}

/** Null where the value is right for the column; else what would be. */
export function allowedIn(column: Column, value: unknown): string | null {
  if (column === "integer")
    return Number.isSafeInteger(value) ? null : "a whole number from -(2^53 - 1) to 2^53 - 1";
  if (column === "float") return Number.isFinite(value) ? null : "a finite number";
  if (column.type === "string") {
    const fits = typeof value === "string" && Buffer.byteLength(value) <= column.bytes;
    return fits ? null : `a string of at most ${column.bytes} bytes in UTF-8`;
  }
  return value instanceof Uint8Array && value.length <= column.bytes
    ? null
    : `a Uint8Array of at most ${column.bytes} bytes`;
}

/** A value as an error shows it. */
export function shown(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === "string" && value.length > 60) return `a string of ${Buffer.byteLength(value)} bytes`;
  return inspect(value, { depth: 0, breakLength: Number.POSITIVE_INFINITY });
}
