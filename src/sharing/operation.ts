/** What can be asked of a table, as it goes from process to process. */
import type { TableSchema } from "./schema.ts";

/** A row's values, or some of them, by column; they are checked where the table is. */
export type Values = Readonly<Record<string, unknown>>;

export type TableOperation = { readonly table: string } & (
  | { readonly type: "declare"; readonly schema: TableSchema }
  | { readonly type: "get" | "delete"; readonly key: string }
  | { readonly type: "set"; readonly key: string; readonly values: Values; readonly ttl: number | undefined }
  | {
      readonly type: "incr";
      readonly key: string;
      readonly column: string;
      readonly by: number;
      readonly ttl: number | undefined;
    }
  | {
      readonly type: "compareAndSet";
      readonly key: string;
      /** Null: there is no such row. */
      readonly expected: Values | null;
      /** Null: the row is deleted. */
      readonly values: Values | null;
      readonly ttl: number | undefined;
    }
  | { readonly type: "count" | "entries" | "clear" }
);

/** How an operation went. */
export type TableResult =
  | { readonly value: unknown }
  | { readonly error: string; readonly code: "TERCET_TABLE" | "TERCET_TABLE_FULL" };
