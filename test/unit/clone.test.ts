/** Values on their way to another process: what arrives, and what is said of one that cannot go. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decode, encode, encodeError } from "../../src/clone/clone.ts";
import { CloneError, checkSize, type Parts, pack, unpack } from "../../src/clone/parts.ts";

const over = (value: unknown, through: (parts: Parts) => Parts = (parts) => parts) =>
  decode(through(encode(value, "task", "data")));
const packed = (parts: Parts) => unpack(pack(parts));

function errorOf(value: unknown): Error {
  try {
    encode(value, "task", "data");
  } catch (error) {
    return error as Error;
  }
  throw new Error("it was cloned");
}

/**
 * With maps and sets as lists, and dates as numbers: `toEqual` may compare a member with another that looks like it, and calls two
 * invalid dates different.
 */
function listed(value: unknown): unknown {
  if (value instanceof Date) return { date: value.getTime() };
  if (value instanceof Map) return { map: listed([...value]) };
  if (value instanceof Set) return { set: listed([...value]) };
  if (Array.isArray(value)) return value.map(listed);
  if (value === null || typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype)
    return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, listed(member)]));
}

describe("a value", () => {
  test("arrives equal, whatever it is, by itself and beside a large buffer", () => {
    const anything = fc.anything({ withBigInt: true, withDate: true, withMap: true, withSet: true });
    fc.assert(
      fc.property(anything, fc.boolean(), (value, isPacked) => {
        const through = isPacked ? packed : undefined;
        // Structured clone keeps no prototype: what is compared is the members.
        const members = listed(structuredClone(value));
        expect(listed(over(value, through))).toEqual(members);
        const buffer = Buffer.alloc(5000, 1);
        expect(listed(over({ value, buffer }, through))).toEqual({ value: members, buffer });
      }),
      { numRuns: 300 },
    );
  });

  for (const [how, through] of [
    ["in parts", (parts: Parts) => parts],
    ["packed", packed],
  ] as const) {
    test(`with large buffers: each is a part, of its own type, in its place, ${how}`, () => {
      const buffer = Buffer.alloc(10_000, 1);
      const view = new Uint8Array(20_000).subarray(5000, 15_000).fill(2);
      const sparse: unknown[] = [buffer];
      sparse[2] = new Float64Array(1000).fill(0.5);
      const value = {
        list: sparse,
        map: new Map<unknown, unknown>([
          ["view", view],
          [buffer, "by the same buffer"],
        ]),
        set: new Set([new ArrayBuffer(5000)]),
        data: new DataView(new ArrayBuffer(6000), 8, 5000),
        twice: buffer,
        small: Buffer.from("small"),
      };
      const parts = encode(value, "task", "data");
      expect(parts.length).toBe(6);
      // The clone itself holds none of them.
      expect(parts[0]?.length).toBeLessThan(2000);
      const copy = decode(through(parts)) as typeof value;
      expect(copy).toEqual(value);
      expect(Buffer.isBuffer(copy.list[0])).toBe(true);
      expect(Buffer.isBuffer(copy.small)).toBe(true);
      expect(1 in copy.list).toBe(false);
      expect(copy.list[0]).toBe(copy.twice);
      expect(copy.map.get(copy.twice)).toBe("by the same buffer");
      expect([...copy.set][0]).toBeInstanceOf(ArrayBuffer);
      buffer.fill(9);
      expect(copy.twice[0]).toBe(1);
    });
  }

  test("that holds itself, with a buffer on the way, holds itself", () => {
    const ring: Record<string, unknown> = { other: { buffer: Buffer.alloc(5000, 3) } };
    (ring.other as Record<string, unknown>).back = ring;
    const copy = over(ring) as typeof ring;
    expect((copy.other as Record<string, unknown>).back).toBe(copy);
    expect((copy.other as { buffer: Buffer }).buffer[4999]).toBe(3);
  });

  test("an error keeps its class, name, message, stack, cause and code, wherever it is", () => {
    class MissingError extends Error {
      override readonly name = "MissingError";
    }
    const cause = Object.assign(new RangeError("too far"), { code: "ERANGE" });
    const error = Object.assign(new TypeError("no such thing", { cause }), { code: "ENOTHING" });
    const many = new AggregateError([error, new MissingError("gone")], "both");
    const copy = over({ deep: [error], many }) as {
      deep: [TypeError & { code: string }];
      many: AggregateError;
    };
    const [arrived] = copy.deep;
    expect(arrived).toBeInstanceOf(TypeError);
    expect([arrived.message, arrived.code, arrived.stack]).toEqual([
      error.message,
      "ENOTHING",
      error.stack ?? "",
    ]);
    expect(arrived.cause).toBeInstanceOf(RangeError);
    expect((arrived.cause as { code: string }).code).toBe("ERANGE");
    expect(Object.keys(arrived)).toEqual(["code"]);
    expect(copy.many).toBeInstanceOf(AggregateError);
    expect(copy.many.errors[0]).toBe(arrived);
    expect(copy.many.errors[1].name).toBe("MissingError");
    expect(copy.many.errors[1]).toBeInstanceOf(Error);
  });

  test("an error whose cause cannot be cloned tells it as a text", () => {
    const copy = decode(encodeError(new TypeError("failed", { cause: () => 1 }))) as Error;
    expect([copy.name, copy.message, copy.cause]).toEqual(["TypeError", "failed", "() => 1"]);
    expect(decode(encodeError(Symbol("thrown")))).toBe("Symbol(thrown)");
  });
});

describe("what cannot be cloned is named by its path", () => {
  const cases: [string, unknown, string][] = [
    ["a method", { user: { save() {} } }, "task: data.user.save is a function, which cannot be cloned"],
    ["beside a large buffer", { b: Buffer.alloc(9000), h: [new Headers()] }, "task: data.h[0] is a Headers,"],
    ["a symbol", [0, [Symbol("x")]], "task: data[1][0] is a symbol,"],
    ["a name that is none", { "a b": new AbortController().signal }, 'task: data["a b"] is an AbortSignal,'],
    ["a value of a Map", new Map([["key", { f() {} }]]), "task: data.get('key').f is a function,"],
    ["a key of a Map", { map: new Map([[() => 1, 1]]) }, "task: a key of data.map is a function,"],
    ["a member of a Set", new Set([Promise.resolve()]), "task: a member of data is a Promise,"],
    ["a cause", { e: new Error("x", { cause: () => 1 }) }, "task: data.e.cause is a function,"],
    ["the value itself", () => 1, "task: data is a function,"],
    ["a Proxy", { p: new Proxy({}, {}) }, "task: data.p is a Proxy,"],
    [
      "a getter that throws",
      {
        get secret() {
          throw new Error("not for you");
        },
      },
      "task: data.secret throws when it is read: not for you",
    ],
  ];
  for (const [what, value, message] of cases) {
    test(what, () => {
      const error = errorOf(value);
      expect(error).toBeInstanceOf(CloneError);
      expect(error.message).toStartWith(message);
    });
  }

  test("the nearest one, however deep the rest is", () => {
    let deep: unknown = () => 1;
    for (let i = 0; i < 5000; i++) deep = { deep };
    expect(errorOf({ deep, near: () => 1 }).message).toStartWith("task: data.near is a function");
  });
});

test("what is larger than it may be is named, with its size", () => {
  const parts = [new Uint8Array(60), new Uint8Array(40)];
  expect(() => checkSize(parts, 100, "task: data")).not.toThrow();
  expect(() => checkSize(parts, 99, "task: data")).toThrow(
    new CloneError("task: data has 100 bytes, and 99 are allowed"),
  );
});

test("bytes that are no clone are an error, and nothing worse", () => {
  const whole = pack(encode({ text: "x".repeat(100), buffer: Buffer.alloc(5000) }, "task", "data"));
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.boolean(), (at, byte, isCut) => {
      const damaged = Buffer.from(isCut ? whole.subarray(0, at) : whole);
      if (!isCut) damaged[at] = byte;
      try {
        decode(unpack(damaged));
      } catch (error) {
        expect(error).toBeInstanceOf(CloneError);
      }
    }),
  );
});
