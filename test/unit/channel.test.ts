/** The end of a channel between two sockets of the system. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExchangeId } from "../../src/exchange.ts";
import { Channel } from "../../src/wire/channel.ts";
import { inTime } from "../support/poll.ts";

const ID = 1 as ExchangeId;
const BYTES = 50_000;

test("what was sent before the end is read, though the peer writes first", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tercet-channel-"));
  const server = createServer();
  try {
    const path = join(folder, "socket");
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const told = Promise.withResolvers<Error | null>();
    const channel = new Channel(connect(path), { frame: () => {}, closed: told.resolve }, queueMicrotask);
    const socket = await accepted;
    let received = 0;
    const closed = Promise.withResolvers<Error | null>();
    const frame = ({ payload }: { payload: { left: number } }) => {
      received += payload.left;
    };
    const peer = new Channel(socket, { frame, closed: closed.resolve }, setImmediate);
    socket.pause();
    channel.writer.data(ID, Buffer.alloc(BYTES), true);
    const ended = channel.end();
    expect(await inTime("the end to be told", 5_000, told.promise)).toBeNull();
    peer.writer.credit(ID, 1);
    peer.flush();
    // Whatever becomes of what was written shows now.
    await new Promise((resolve) => setImmediate(resolve));
    socket.resume();
    expect(await inTime("the peer to close", 5_000, closed.promise)).toBeNull();
    await inTime("the end", 5_000, ended);
    expect(received).toBe(BYTES);
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
});
