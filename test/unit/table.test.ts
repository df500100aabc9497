/** Tables, without a process: what an operation does, and what is said of a wrong one. */
import { describe, expect, setSystemTime, test } from "bun:test";
import { Sharing } from "../../src/manager/sharing.ts";
import { Tables } from "../../src/sharing/table.ts";
import { TableError } from "../../src/sharing/table-error.ts";
import { TableStore } from "../../src/sharing/table-store.ts";
import { failureOf } from "../support/poll.ts";

const SCHEMA = {
  rows: 3,
  columns: {
    count: "integer",
    ratio: "float",
    name: { type: "string", bytes: 5 },
    body: { type: "bytes", bytes: 4 },
  },
} as const;

/** Tables of two processes. */
async function tableAt(clock: { now: number } = { now: 0 }) {
  const store = new TableStore();
  const tables = new Tables();
  const other = new Tables();
  const table = tables.declare("t", SCHEMA);
  for (const each of [tables, other]) {
    await each.connect(async (operation) => {
      const result = store.run(operation, clock.now);
      if ("error" in result) throw new TableError(result.error, result.code);
      return result.value;
    });
  }
  return { table, tables, other };
}

const errorOf = (promise: Promise<unknown>) => failureOf("an error", 1000, promise);

describe("a row", () => {
  test("has what was set, and 0 or nothing for the rest", async () => {
    const { table } = await tableAt();
    expect(await table.get("a")).toBeUndefined();
    await table.set("a", { count: 5, name: "été" });
    await table.set("a", { ratio: 0.5, body: Buffer.from([1, 2, 3, 4]) });
    expect(await table.get("a")).toEqual({
      count: 5,
      ratio: 0.5,
      name: "été",
      body: Buffer.from([1, 2, 3, 4]),
    });
    await table.set("b", {});
    expect(await table.entries()).toEqual([
      ["a", { count: 5, ratio: 0.5, name: "été", body: Buffer.from([1, 2, 3, 4]) }],
      ["b", { count: 0, ratio: 0, name: "", body: Buffer.alloc(0) }],
    ]);
    expect(await table.delete("a")).toBe(true);
    expect(await table.delete("a")).toBe(false);
    expect(await table.count()).toBe(1);
    await table.clear();
    expect(await table.count()).toBe(0);
  });

  test("is nobody's but the table's", async () => {
    const { table } = await tableAt();
    const body = Buffer.from([1]);
    await table.set("a", { body });
    body[0] = 9;
    const read = (await table.get("a")) as { body: Uint8Array };
    expect(read.body[0]).toBe(1);
    read.body[0] = 9;
    expect((await table.get("a"))?.body[0]).toBe(1);
    for (const [, listed] of await table.entries()) listed.body[0] = 9;
    expect((await table.get("a"))?.body[0]).toBe(1);
  });

  test("is incremented, and made where it is not there", async () => {
    const { table } = await tableAt();
    expect(await table.incr("a", "count")).toBe(1);
    expect(await table.incr("a", "count", -5)).toBe(-4);
    expect(await table.incr("a", "ratio", 0.25)).toBe(0.25);
    await table.set("a", { count: Number.MAX_SAFE_INTEGER });
    expect((await errorOf(table.incr("a", "count"))).message).toBe(
      `table "t": column "count" of row 'a' cannot be 9007199254740992: that is out of its range`,
    );
    expect((await table.get("a"))?.count).toBe(Number.MAX_SAFE_INTEGER);
  });

  test("is set only where it is as expected", async () => {
    const { table } = await tableAt();
    expect(await table.compareAndSet("lock", { count: 1 }, { count: 2 })).toBe(false);
    expect(await table.compareAndSet("lock", null, { count: 1, body: Buffer.from([7]) })).toBe(true);
    expect(await table.compareAndSet("lock", null, { count: 1 })).toBe(false);
    expect(await table.compareAndSet("lock", { count: 2 }, { count: 3 })).toBe(false);
    expect(await table.compareAndSet("lock", { count: 1, body: Buffer.from([8]) }, { count: 3 })).toBe(false);
    expect(await table.compareAndSet("lock", { count: 1, body: Buffer.from([7]) }, { count: 3 })).toBe(true);
    expect((await table.get("lock"))?.count).toBe(3);
    expect(await table.compareAndSet("lock", { count: 3 }, null)).toBe(true);
    expect(await table.count()).toBe(0);
  });

  test("is gone when its time is over, and makes room", async () => {
    const clock = { now: 1000 };
    const { table } = await tableAt(clock);
    await table.set("short", { count: 1 }, { ttl: 10 });
    await table.set("kept", { count: 1 }, { ttl: 10 });
    await table.set("kept", { count: 2 }, { ttl: 0 });
    // The window of a rate limit: the first to count begins it.
    expect(await table.incr("window", "count", 1, { ttl: 20 })).toBe(1);
    clock.now = 1009;
    expect(await table.incr("window", "count", 1, { ttl: 20 })).toBe(2);
    expect((await table.get("short"))?.count).toBe(1);
    clock.now = 1010;
    expect(await table.get("short")).toBeUndefined();
    expect(await table.count()).toBe(2);
    clock.now = 1020;
    await table.set("new", {});
    await table.set("newer", {});
    expect((await table.entries()).map(([key]) => key)).toEqual(["kept", "new", "newer"]);
    expect(await table.incr("window", "count").catch((error) => error.code)).toBe("TERCET_TABLE_FULL");
  });

  test("whose time is over is not listed, nor deleted, and is made again as the last", async () => {
    const clock = { now: 0 };
    const { table } = await tableAt(clock);
    await table.set("a", {}, { ttl: 10 });
    await table.set("b", {});
    clock.now = 10;
    expect(await table.delete("a")).toBe(false);
    await table.set("a", {}, { ttl: 10 });
    expect((await table.entries()).map(([key]) => key)).toEqual(["b", "a"]);
    clock.now = 20;
    expect((await table.entries()).map(([key]) => key)).toEqual(["b"]);
    await table.set("a", {}, { ttl: 10 });
    clock.now = 30;
    expect(await table.count()).toBe(1);
  });
});

test("a row has its time whatever the system's clock is set to", async () => {
  const sharing = new Sharing(() => []);
  const schema = { rows: 1, columns: { n: "integer" } } as const;
  await sharing.operate({ table: "t", type: "declare", schema });
  await sharing.operate({ table: "t", type: "set", key: "k", values: { n: 1 }, ttl: 60_000 });
  try {
    setSystemTime(Date.now() + 3_600_000);
    expect(await sharing.operate({ table: "t", type: "get", key: "k" })).toEqual({ n: 1 });
  } finally {
    setSystemTime();
  }
});

test("a full table says so, and changes what is there all the same", async () => {
  const { table } = await tableAt();
  for (const key of ["a", "b", "c"]) await table.set(key, {});
  const error = (await errorOf(table.set("d", {}))) as TableError;
  expect(error).toBeInstanceOf(TableError);
  expect(error.code).toBe("TERCET_TABLE_FULL");
  expect(error.message).toBe(`table "t" is full: it has 3 rows, and row 'd' would be one more`);
  await table.set("a", { count: 1 });
  expect((await table.get("a"))?.count).toBe(1);
});

describe("a wrong value rejects, and names the column and the value", () => {
  const wrong: [string, Record<string, unknown>, string][] = [
    [
      "integer",
      { count: 1.5 },
      `column "count" is 1.5; it must be a whole number from -(2^53 - 1) to 2^53 - 1`,
    ],
    [
      "integer too large",
      { count: 2 ** 53 },
      'column "count" is 9007199254740992; it must be a whole number',
    ],
    ["text for integer", { count: "1" }, `column "count" is '1'; it must be a whole number`],
    ["float", { ratio: Number.NaN }, 'column "ratio" is NaN; it must be a finite number'],
    ["string", { name: 5 }, 'column "name" is 5; it must be a string of at most 5 bytes in UTF-8'],
    ["string too long", { name: "étéé" }, `column "name" is 'étéé'; it must be a string of at most 5 bytes`],
    ["bytes", { body: "text" }, `column "body" is 'text'; it must be a Uint8Array of at most 4 bytes`],
    [
      "bytes too long",
      { body: Buffer.alloc(5) },
      'column "body" is 5 bytes; it must be a Uint8Array of at most 4',
    ],
    ["a function", { count: () => 1 }, 'column "count" is [Function: count]; it must be a whole number'],
    ["a list", [], "the values are []; they must be an object"],
    ["unknown column", { other: 1 }, `there is no column 'other'; there are count, ratio, name, body`],
    ["inherited name", JSON.parse('{"__proto__":1}'), `there is no column '__proto__'; there are count`],
  ];
  for (const [what, values, message] of wrong) {
    test(what, async () => {
      const { table } = await tableAt();
      for (const call of [table.set("a", values), table.compareAndSet("a", null, values)]) {
        const error = await errorOf(call);
        expect(error).toBeInstanceOf(TableError);
        expect(error.message).toStartWith(`table "t": ${message}`);
      }
      expect(await table.count()).toBe(0);
    });
  }

  test("options of a row", async () => {
    const { table } = await tableAt();
    const wrongOptions: [object, string][] = [
      [{ tll: 1 }, 'there is no option "tll"; there are ttl'],
      [5 as unknown as object, "the options are 5; they must be an object"],
      [{ ttl: 0.5 }, "ttl is 0.5; it must be a whole number of milliseconds from 1 on, or 0 for no end"],
    ];
    for (const [options, message] of wrongOptions) {
      const calls = [
        table.set("a", {}, options),
        table.incr("a", "count", 1, options),
        table.compareAndSet("a", null, {}, options),
      ];
      for (const call of calls) expect(await errorOf(call)).toEqual(new TableError(`table "t": ${message}`));
    }
    expect(await table.count()).toBe(0);
  });

  test("a key, a ttl, a step", async () => {
    const { table } = await tableAt();
    const messages = [
      errorOf(table.get("")),
      errorOf(table.get("k".repeat(257))),
      errorOf(table.get("é".repeat(129))),
      errorOf(table.set("a", {}, { ttl: -1 })),
      errorOf(table.compareAndSet("a", null, {}, { ttl: 1.5 })),
      errorOf(table.set("a", null as never)),
      errorOf(table.compareAndSet("a", { count: "1" as never }, {})),
      errorOf(table.incr("a", "name")),
      errorOf(table.incr("a", "count", 0.5)),
    ];
    expect((await Promise.all(messages)).map(({ message }) => message)).toEqual([
      `table "t": a key is ''; it must be a string of 1 to 256 bytes in UTF-8`,
      'table "t": a key is a string of 257 bytes; it must be a string of 1 to 256 bytes in UTF-8',
      'table "t": a key is a string of 258 bytes; it must be a string of 1 to 256 bytes in UTF-8',
      'table "t": ttl is -1; it must be a whole number of milliseconds from 1 on, or 0 for no end',
      'table "t": ttl is 1.5; it must be a whole number of milliseconds from 1 on, or 0 for no end',
      'table "t": the values are null; they must be an object',
      `table "t": column "count" is '1'; it must be a whole number from -(2^53 - 1) to 2^53 - 1`,
      'table "t": column "name" is of string; only integer and float can be incremented',
      'table "t": column "count" is incremented by 0.5; it must be a whole number from -(2^53 - 1) to 2^53 - 1',
    ]);
  });
});

describe("a declaration", () => {
  test("of the same table, in whatever order of columns, is the same table", async () => {
    const { table, tables } = await tableAt();
    const { body, ...rest } = SCHEMA.columns;
    expect(tables.declare("t", { rows: 3, columns: { body, ...rest } }) as unknown).toBe(table);
  });

  test("of another under its name is an error", async () => {
    const { tables } = await tableAt();
    expect(() => tables.declare("t", { rows: 4, columns: { n: "integer" } })).toThrow(
      new TableError(
        'table "t" is declared with 4 rows of n integer; it was declared before, with ' +
          "3 rows of body bytes(4), count integer, name string(5), ratio float",
      ),
    );
  });

  test("that a process makes later is done before what it asks", async () => {
    const { tables } = await tableAt();
    const late = tables.declare("late", { rows: 1, columns: { n: "integer" } });
    expect(await Promise.all([late.incr("a", "n"), late.incr("a", "n")])).toEqual([1, 2]);
  });

  test("that a process makes later otherwise than another did is an error of whoever uses it", async () => {
    const { tables, other } = await tableAt();
    other.declare("late", { rows: 2, columns: { n: "integer" } });
    const late = tables.declare("late", { rows: 1, columns: { n: "integer" } });
    // Nobody has caught it by then.
    await new Promise(setImmediate);
    expect((await errorOf(late.incr("a", "n"))).message).toStartWith(
      'table "late" is declared with 1 rows of n integer; it is there already, with 2 rows',
    );
  });

  test("of all that is allowed", () => {
    const text = { type: "string", bytes: 65_536 } as const;
    const tables = new Tables();
    tables.declare("t".repeat(64), { rows: 4096, columns: { text } });
    const columns = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`c${i}`, "integer" as const]));
    tables.declare("columns", { rows: 1, columns });
    tables.declare("rows", { rows: 1_000_000, columns: { n: "integer" } });
  });

  test("before the start there is nobody to ask", async () => {
    const table = new Tables().declare("t", SCHEMA);
    expect((await errorOf(table.get("a"))).message).toBe('table "t": the server has not started');
  });

  const wrong: [string, unknown, string][] = [
    [
      "a b",
      SCHEMA,
      "a table is named 'a b'; it must be a letter and at most 63 letters, digits and underscores",
    ],
    [
      "t",
      { rows: 0, columns: SCHEMA.columns },
      'table "t": rows is 0; it must be a whole number from 1 to 1000000',
    ],
    ["t", { rows: 1, columns: {} }, 'table "t": it has 0 columns; it must have 1 to 64'],
    [
      "t",
      { rows: 1, columns: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`c${i}`, "integer"])) },
      'table "t": it has 65 columns; it must have 1 to 64',
    ],
    ["t", { rows: 1, columns: { "a-b": "integer" } }, 'table "t": a column is named "a-b"; it must be'],
    [
      "t",
      { rows: 1, columns: { a: "text" } },
      `table "t": column "a" is 'text'; it must be "integer", "float", or`,
    ],
    ["t".repeat(65), SCHEMA, "it must be a letter and at most 63 letters, digits and underscores"],
    ["t", { rows: 1_000_001, columns: { n: "integer" } }, 'table "t": rows is 1000001; it must be'],
    [
      "t",
      { rows: 1, columns: { a: { type: "bytes", bytes: 0 } } },
      `table "t": column "a" is { type: 'bytes', bytes: 0 }; it must be`,
    ],
    [
      "t",
      { rows: 1, columns: { a: { type: "string", bytes: 65_537 } } },
      `table "t": column "a" is { type: 'string', bytes: 65537 }; it must be`,
    ],
    [
      "t",
      { rows: 1, columns: { a: { type: "string" } } },
      `table "t": column "a" is { type: 'string' }; it must be`,
    ],
    [
      "t",
      { rows: 1_000_000, columns: { a: { type: "string", bytes: 300 }, n: "integer" } },
      'table "t": 1000000 rows of 308 bytes are 308000000, and 268435456 are allowed',
    ],
    [
      "t",
      { rows: 1, columns: { a: { type: "string", bytes: 1, ttl: 1 } } },
      `table "t": column "a" is { type: 'string', bytes: 1, ttl: 1 }; it must be`,
    ],
    ["t", { ...SCHEMA, ttl: 1 }, 'table "t": there is no option "ttl"; there are rows, columns'],
    ["t", null, 'table "t": rows is undefined; it must be'],
  ];
  for (const [name, schema, message] of wrong) {
    test(`wrong: ${message}`, () => {
      expect(() => new Tables().declare(name, schema as never)).toThrow(message);
    });
  }
});
