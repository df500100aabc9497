/** What is asked of a table is checked by whoever asks: what is wrong costs nobody else anything. */
import { unknownName } from "../unknown-name.ts";
import { allowedIn, type Column, type Columns, shown } from "./schema.ts";
import { TableError } from "./table-error.ts";

const MAX_KEY_BYTES = 256;

export class TableChecks {
  readonly #name: string;
  readonly #columns: ReadonlyMap<string, Column>;

  constructor(name: string, columns: Columns) {
    this.#name = name;
    this.#columns = new Map(Object.entries(columns));
  }

  /** @throws TableError, as all of these */
  key(key: unknown): void {
    if (typeof key === "string" && key !== "" && Buffer.byteLength(key) <= MAX_KEY_BYTES) return;
    throw this.#error(`a key is ${shown(key)}; it must be a string of 1 to ${MAX_KEY_BYTES} bytes in UTF-8`);
  }

  values(values: unknown): void {
    if (typeof values !== "object" || values === null || Array.isArray(values)) {
      throw this.#error(`the values are ${shown(values)}; they must be an object`);
    }
    for (const [column, value] of Object.entries(values)) {
      const allowed = allowedIn(this.#columnOf(column), value);
      if (allowed !== null) throw this.#error(`column "${column}" is ${shown(value)}; it must be ${allowed}`);
    }
  }

  increment(column: string, by: unknown): void {
    const type = this.#columnOf(column);
    if (type !== "integer" && type !== "float") {
      throw this.#error(`column "${column}" is of ${type.type}; only integer and float can be incremented`);
    }
    const allowed = allowedIn(type, by);
    if (allowed !== null)
      throw this.#error(`column "${column}" is incremented by ${shown(by)}; it must be ${allowed}`);
  }

  options(options: unknown): void {
    if (options === undefined) return;
    if (typeof options !== "object" || options === null)
      throw this.#error(`the options are ${shown(options)}; they must be an object`);
    // A lock with a `tll` would be held for ever.
    const fault = unknownName(options, ["ttl"]);
    if (fault !== null) throw this.#error(fault);
    const { ttl } = options as { ttl?: unknown };
    if (ttl === undefined || (Number.isSafeInteger(ttl) && (ttl as number) >= 0)) return;
    throw this.#error(
      `ttl is ${shown(ttl)}; it must be a whole number of milliseconds from 1 on, or 0 for no end`,
    );
  }

  #columnOf(name: string): Column {
    const column = this.#columns.get(name);
    if (column !== undefined) return column;
    throw this.#error(`there is no column ${shown(name)}; there are ${[...this.#columns.keys()].join(", ")}`);
  }

  #error(what: string): TableError {
    return new TableError(`table "${this.#name}": ${what}`);
  }
}
