/** A request's body over a stream that something else lets go on, as Bun does with the socket of HTTP/1.1 over TLS. */
import { expect, test } from "bun:test";
import { Readable } from "node:stream";
import { BodyLostError } from "../../src/exchange.ts";
import { ReadableBody } from "../../src/listeners/readable-body.ts";
import { failureOf, inTime } from "../support/poll.ts";

const CHUNK = 64 * 1024;

function open() {
  const stream = new Readable({ read: () => {} });
  const flow = {
    isPaused: false,
    resumed: 0,
    pause: () => {
      flow.isPaused = true;
    },
    resume: () => {
      flow.isPaused = false;
      flow.resumed++;
    },
  };
  const body = new ReadableBody(stream, undefined, flow, () => ["x-sum", "1"]);
  const come = async (chunk: Buffer | null = Buffer.alloc(CHUNK)) => {
    stream.push(chunk);
    await new Promise(setImmediate);
  };
  const read = () => inTime("a read", 5_000, body.read());
  return { stream, flow, body, come, read };
}

test("is held back again, and goes on when enough of it was read", async () => {
  const { flow, come, read } = open();
  await come();
  expect(flow.isPaused).toBe(false);
  await come();
  expect(flow.isPaused).toBe(true);
  flow.isPaused = false;
  await come();
  // One chunk is half of what holds it back: less than that is to be left.
  for (let reads = 0; reads < 3; reads++) {
    expect(flow.isPaused).toBe(true);
    expect((await read())?.length).toBe(CHUNK);
  }
  expect([flow.isPaused, flow.resumed]).toEqual([false, 1]);
  await come();
  await read();
  expect(flow.resumed).toBe(1);
});

test("ends for whoever waits, with its trailers, and stays at its end", async () => {
  const { stream, body, come } = open();
  const reads = async () => [await body.read(), await body.read(), body.trailers];
  const reading = inTime("the end", 5_000, reads());
  await come(Buffer.from("abc"));
  expect(body.trailers).toEqual([]);
  await come(null);
  expect(await reading).toEqual([Buffer.from("abc"), null, ["x-sum", "1"]]);
  stream.destroy();
  await new Promise(setImmediate);
  expect(await body.read()).toBeNull();
});

test("is lost when its client goes away, but for what has come", async () => {
  for (const error of [undefined, new Error("reset")]) {
    const { stream, body, come, read } = open();
    await come();
    stream.destroy(error);
    await new Promise(setImmediate);
    expect((await read())?.length).toBe(CHUNK);
    const lost = await failureOf("the read", 5_000, body.read());
    expect([lost instanceof BodyLostError, lost.cause]).toEqual([true, error]);
  }
  const { stream, body } = open();
  const waiting = failureOf("the read", 5_000, body.read());
  stream.destroy();
  expect(await waiting).toBeInstanceOf(BodyLostError);
});

test("goes on when it is cancelled, and nothing of it is kept", async () => {
  const { flow, body, come, read } = open();
  await come();
  await come();
  body.cancel();
  expect(flow.isPaused).toBe(false);
  for (let more = 0; more < 3; more++) await come();
  expect([await read(), flow.isPaused, flow.resumed]).toEqual([null, false, 1]);
  const another = open();
  const waiting = another.read();
  another.body.cancel();
  expect([await waiting, another.flow.resumed]).toEqual([null, 0]);
});
