/** What the native HTTP/3 engine's listener keeps of exchanges and their responses, without the engine. */
import { describe, expect, test } from "bun:test";
import { now } from "../../src/clock.ts";
import type { ResponseHead } from "../../src/exchange.ts";
import type { NativeExchange } from "../../src/listeners/native/exchange.ts";
import { ResponseInits } from "../../src/listeners/native/response-inits.ts";
import { ResponseStream } from "../../src/listeners/native/response-stream.ts";
import { Unwatched } from "../../src/listeners/native/unwatched.ts";
import { DeadlineError, inTime, until } from "../support/poll.ts";

function begun(mayEndAnywhere: boolean) {
  const abandoned = new Set<ResponseStream>();
  let drained = 0;
  const stream = new ResponseStream(
    mayEndAnywhere,
    () => drained++,
    () => {},
    abandoned,
  );
  const reader = stream.readable.getReader();
  return { stream, reader, abandoned, drained: () => drained };
}

describe("a response that is given up in the middle", () => {
  test("is left without its end, which would make it whole", async () => {
    const { stream, reader, abandoned } = begun(false);
    expect(stream.push(Buffer.from("half"))).toBe(false);
    expect((await reader.read()).value).toEqual(Buffer.from("half"));
    stream.abandon();
    expect(abandoned.size).toBe(1);
    await expect(inTime("an end", 50, reader.read())).rejects.toThrow(DeadlineError);
    await reader.cancel();
    expect(abandoned.size).toBe(0);
  });

  test("ends where it may end anywhere, as an event stream may, and its client comes again", async () => {
    const { stream, reader, abandoned, drained } = begun(true);
    stream.push(Buffer.from("one event"));
    stream.push(Buffer.from("another"));
    expect(drained()).toBe(0);
    await reader.read();
    expect((await reader.read()).value).toEqual(Buffer.from("another"));
    expect(drained()).toBe(1);
    stream.abandon();
    expect((await inTime("its end", 1000, reader.read())).done).toBe(true);
    expect(abandoned.size).toBe(0);
  });
});

describe("a response that ends", () => {
  test("does so behind what was written, whether its client waits for that or not", async () => {
    for (const waits of [false, true]) {
      const { stream, reader } = begun(false);
      const first = waits ? reader.read() : null;
      await new Promise(setImmediate);
      for (const text of ["one", "two"]) stream.push(Buffer.from(text));
      const read = [(await (first ?? reader.read())).value, (await reader.read()).value];
      expect(read.map(String)).toEqual(["one", "two"]);
      const last = waits ? reader.read() : null;
      // Until the stream asks for more.
      await new Promise(setImmediate);
      stream.end();
      expect((await inTime("its end", 1000, last ?? reader.read())).done).toBe(true);
    }
    const { stream, reader } = begun(false);
    for (const text of ["one", "two"]) stream.push(Buffer.from(text));
    stream.end();
    expect([String((await reader.read()).value), String((await reader.read()).value)]).toEqual([
      "one",
      "two",
    ]);
    expect((await inTime("its end", 1000, reader.read())).done).toBe(true);
  });

  test("by its client's leaving gives nothing more", async () => {
    const { stream, reader } = begun(false);
    stream.push(Buffer.from("unread"));
    stream.discard();
    await expect(inTime("a piece", 20, reader.read())).rejects.toThrow(DeadlineError);
  });
});

test("a head is taken for no other, and one that comes again for itself", () => {
  const inits = new ResponseInits();
  const heads: ResponseHead[] = [
    { status: 200, fields: ["x-a", "1"] },
    { status: 201, fields: ["x-a", "1"] },
    { status: 201, fields: ["x-a", "2"] },
    { status: 201, fields: ["x-a", "2", "x-b", "1"] },
    { status: 201, fields: ["x-a", "2"] },
  ];
  const plain = ({ status, headers }: ResponseInit) => ({ status, fields: [...(headers as Headers)].flat() });
  for (const head of [...heads, ...heads.toReversed()]) expect(plain(inits.of(head))).toEqual(head as never);
  const [first] = heads as [ResponseHead];
  const init = inits.of(first);
  expect(inits.of({ ...first })).toBe(init);
  expect(inits.of(first)).toBe(init);
});

test("each exchange is watched that is not soon over, whenever it has come", async () => {
  const watched: string[] = [];
  const unwatched = new Unwatched();
  const add = (name: string) => {
    const watch = () => void watched.push(name);
    const exchange = { receivedAt: now(), older: null, newer: null, watch } as unknown as NativeExchange;
    unwatched.add(exchange);
    return exchange;
  };
  const soonOver = add("soon over");
  add("the first");
  await Bun.sleep(30);
  const newest = add("over as the newest");
  for (let i = 0; i < 2; i++) for (const over of [newest, soonOver]) unwatched.remove(over);
  add("the second");
  await until("the watch", 2000, () => watched.length === 2);
  expect(watched).toEqual(["the first", "the second"]);
  // When there was none for a while.
  add("the third");
  await until("the watch", 2000, () => watched.length === 3);
});
