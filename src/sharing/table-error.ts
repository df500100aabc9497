/** A table or an operation on it that is wrong: the message says what, where and what would be right. */
export class TableError extends Error {
  /** `TERCET_TABLE_FULL` where the table has as many rows as it may. */
  readonly code: "TERCET_TABLE" | "TERCET_TABLE_FULL";
  override readonly name = "TableError";

  constructor(message: string, code: TableError["code"] = "TERCET_TABLE") {
    super(message);
    this.code = code;
  }
}
