/** A worker between its reactors and its handler, without a process. */
import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import type { Exchange, ExchangeId } from "../../src/exchange.ts";
import { DATA_BYTES, FrameError, FrameType, type FrameWriter } from "../../src/wire/frames.ts";
import { writeRequest, writeTrailers } from "../../src/wire/heads.ts";
import type { Progress } from "../../src/wire/progress.ts";
import { WINDOW_BYTES } from "../../src/wire/window.ts";
import { Worker } from "../../src/worker/worker.ts";
import { openChannel, say, wrongHellos } from "../support/channel.ts";
import { inTime } from "../support/poll.ts";
import { requestHead } from "../support/request-head.ts";

/** A worker whose handler leaves what it gets open, and what it was told. */
function workerOf() {
  const exchanges: Exchange[] = [];
  const told: string[] = [];
  const notes: string[] = [];
  const logged: string[] = [];
  const progress = {
    begin: (pid: number, id: ExchangeId) => notes.push(`begin ${pid} ${id}`),
    end: () => notes.push("end"),
  };
  const worker = new Worker(
    1,
    (exchange) => {
      notes.push("handler");
      exchange.onAborted = ({ id }) => told.push(`abort ${id}`);
      exchanges.push(exchange);
    },
    { compression: null, proxies: null },
    2,
    progress as unknown as Progress,
    {
      spent: () => told.push("spent"),
      retired: () => told.push("retired"),
      connections: { events: new Set(), told: () => {} },
      log: (line) => logged.push(line),
    },
  );
  return { worker, exchanges, told, notes, logged };
}

/** A reactor's end of a channel to it, which has said hello. */
async function attach(worker: Worker) {
  const { socket, attached } = openChannel((socket) => worker.attach(socket), { workerId: 0, pid: 77 });
  await attached;
  return {
    socket,
    request: (id: number) =>
      say(socket, (writer) => writeRequest(writer, id as ExchangeId, requestHead(), null, true)),
    retire: () => say(socket, (writer) => writer.signal(FrameType.goaway)),
    die: async () => {
      socket.destroy();
      await once(socket, "close");
    },
  };
}

test("what it runs is noted while its handler runs, and not while that waits", async () => {
  const { worker, notes } = workerOf();
  (await attach(worker)).request(5);
  expect(notes).toEqual(["begin 77 5", "handler", "end"]);
});

test("where a reactor dies its handlers are told, and those of the others are not", async () => {
  const { worker, told } = workerOf();
  const [one, other] = [await attach(worker), await attach(worker)];
  one.request(1);
  other.request(2);
  expect([worker.counts(), told]).toEqual([{ inFlight: 2, requests: 2 }, ["spent"]]);
  const asked = worker.connection("a");
  await one.die();
  expect([worker.counts(), told]).toEqual([{ inFlight: 1, requests: 2 }, ["spent", "abort 1"]]);
  await other.die();
  expect(await inTime("the answer", 1000, asked)).toBeNull();
});

test("it has retired when every reactor has said so, or is gone, and all that it had is over", async () => {
  const { worker, exchanges, told } = workerOf();
  const [one, other] = [await attach(worker), await attach(worker)];
  one.request(1);
  one.retire();
  exchanges[0]?.sink.respond({ status: 200, fields: [] }, null);
  expect(told).toEqual([]);
  await other.die();
  expect(told).toEqual(["retired"]);
});

test("it has not retired while it has something in flight", async () => {
  const { worker, exchanges, told } = workerOf();
  const [one, other] = [await attach(worker), await attach(worker)];
  one.request(1);
  one.retire();
  other.retire();
  expect(told).toEqual([]);
  exchanges[0]?.sink.respond({ status: 200, fields: [] }, null);
  expect(told).toEqual(["retired"]);
});

describe("the channel closes of a reactor that sends", () => {
  const piece = new Uint8Array(DATA_BYTES);
  const wrong: Record<string, (writer: FrameWriter, id: ExchangeId) => void> = {
    "data behind the end": (writer, id) => {
      writer.data(id, piece, true);
      writer.data(id, piece, false);
    },
    "trailers behind the end": (writer, id) => {
      writer.data(id, null, true);
      writeTrailers(writer, id, []);
    },
    "more of the body than its window": (writer, id) => {
      for (let sent = 0; sent <= WINDOW_BYTES; sent += DATA_BYTES) writer.data(id, piece, false);
    },
    "credit that was never spent": (writer, id) => writer.credit(id, 1),
    "a frame of a worker's": (writer) => writer.signal(FrameType.pong),
    "what is no JSON of a connection": (writer, id) => {
      writer.begin(FrameType.event, 0, id);
      writer.latin1("{");
      writer.finish();
    },
  };
  for (const [what, write] of Object.entries(wrong)) {
    test(what, async () => {
      const { worker, told, logged } = workerOf();
      const { socket } = await attach(worker);
      const id = 5 as ExchangeId;
      say(socket, (writer) => writeRequest(writer, id, requestHead(), null, false));
      say(socket, (writer) => write(writer, id));
      expect([socket.destroyed, told]).toEqual([true, ["abort 5"]]);
      expect(logged).toEqual([expect.stringMatching(/^the channel to a reactor broke: ./)]);
    });
  }

  test("something else than a hello, or that of another version: whoever attaches it is told, and not the log", async () => {
    for (const first of wrongHellos({ workerId: 0, pid: 77 })) {
      const { worker, logged } = workerOf();
      const { attached } = openChannel((socket) => worker.attach(socket), first);
      await expect(attached).rejects.toBeInstanceOf(FrameError);
      expect(logged).toEqual([]);
    }
  });
});
