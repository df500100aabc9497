/** A request's body over a stream that something else lets go on, as Bun does with the socket of HTTP/1.1 over TLS. */
import { expect, test } from "bun:test";
import { Readable } from "node:stream";
import { ReadableBody } from "../../src/listeners/readable-body.ts";

const CHUNK = 64 * 1024;
/** What waits before the client is held back. */
const HIGH_WATER = 2 * CHUNK;

test("is held back again, and goes on when enough of it was read", async () => {
  const stream = new Readable({ read: () => {} });
  const flow = {
    isPaused: false,
    pause: () => {
      flow.isPaused = true;
    },
    resume: () => {
      flow.isPaused = false;
    },
  };
  const body = new ReadableBody(stream, undefined, flow, () => []);
  const come = async () => {
    stream.push(Buffer.alloc(CHUNK));
    await new Promise(setImmediate);
  };
  await come();
  expect(flow.isPaused).toBe(false);
  await come();
  expect(flow.isPaused).toBe(true);
  flow.resume();
  await come();
  expect(flow.isPaused).toBe(true);
  for (let left = HIGH_WATER + CHUNK; left > HIGH_WATER / 2; left -= CHUNK) {
    expect(flow.isPaused).toBe(true);
    expect((await body.read())?.length).toBe(CHUNK);
  }
  expect((await body.read())?.length).toBe(CHUNK);
  expect(flow.isPaused).toBe(false);
});
