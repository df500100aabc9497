/** What the native HTTP/3 engine's listener keeps of exchanges and their responses, without the engine. */
import { describe, expect, test } from "bun:test";
import { now } from "../../src/clock.ts";
import type { NativeExchange } from "../../src/listeners/native/exchange.ts";
import { ResponseStream } from "../../src/listeners/native/response-stream.ts";
import { Unwatched } from "../../src/listeners/native/unwatched.ts";
import { DeadlineError, inTime, until } from "../support/poll.ts";

describe("a response that is given up in the middle", () => {
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
  add("the second");
  unwatched.remove(soonOver);
  await until("the watch", 2000, () => watched.length === 2);
  expect(watched).toEqual(["the first", "the second"]);
});
