/** An exchange as a handler has it, in either mode, compressed and not, without a client. */
import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { LocalExchange, type LocalOwner } from "../../src/base/local-exchange.ts";
import { BodyLostError, type Exchange, type ExchangeId, type RequestBody } from "../../src/exchange.ts";
import { Background } from "../../src/handler/background.ts";
import { bodyStreamOf, onOver, signalOf } from "../../src/handler/request.ts";
import { HttpResponse } from "../../src/handler/response.ts";
import { type RequestHandler, requestHandler, run } from "../../src/handler/run.ts";
import { ContentCoding } from "../../src/http/content-coding.ts";
import { ReadableBody } from "../../src/listeners/readable-body.ts";
import { resolveOptions } from "../../src/options.ts";
import type { Channel } from "../../src/wire/channel.ts";
import { FrameWriter } from "../../src/wire/frames.ts";
import { ChannelExchange } from "../../src/worker/channel-exchange.ts";
import { compressing } from "../../src/worker/compressing-exchange.ts";
import type { HandlerExchange } from "../../src/worker/handler-exchange.ts";
import { failureOf, inTime, until } from "../support/poll.ts";
import { requestHead } from "../support/request-head.ts";

const HEAD = requestHead(["accept-encoding", "gzip"]);
const { compression } = resolveOptions({});
const coding = new ContentCoding(compression as Exclude<typeof compression, false>);

/** Each has a body, of which nothing has come. */
const KINDS = {
  "in the mode process": (isCompressed: boolean) => {
    const Made = isCompressed ? compressing(ChannelExchange, coding) : ChannelExchange;
    const channel = { writer: new FrameWriter() } as Channel;
    return new Made(1 as ExchangeId, HEAD, true, channel, () => {});
  },
  "in the mode base": (isCompressed: boolean, ownBody?: RequestBody) => {
    const Made = isCompressed ? compressing(LocalExchange, coding) : LocalExchange;
    const sink = { head: () => {}, data: () => false, end: () => {}, respond: () => {}, onDrain: null };
    const lost = Promise.withResolvers<null>();
    const body = { read: () => lost.promise, cancel: () => lost.resolve(null) };
    const exchange = { id: 1, body: ownBody ?? body, sink } as unknown as Exchange;
    const owner = { maxBodyBytes: 100, completed: () => {} } as unknown as LocalOwner;
    return new Made(exchange, HEAD, owner);
  },
};

for (const [mode, open] of Object.entries(KINDS)) {
  describe(mode, () => {
    test.each([false, true])(
      "a write that waits for room resolves when the client has gone, compressed: %p",
      async (isCompressed) => {
        const exchange = open(isCompressed);
        const response = new HttpResponse(exchange).header("content-type", "text/plain");
        let isDone = false;
        const writing = response.write(randomBytes(1_000_000)).then(() => {
          isDone = true;
        });
        await Bun.sleep(1);
        expect(isDone).toBe(false);
        exchange.abandon("the client left");
        await inTime("the write", 1000, writing);
        await inTime("another write", 1000, response.write("more"));
        response.end();
      },
    );

    test("every signal that is asked for aborts when the client leaves, and one later has aborted", () => {
      const exchange = open(false);
      const [one, other] = [signalOf(exchange), signalOf(exchange)];
      expect([one.aborted, other.aborted]).toEqual([false, false]);
      exchange.abandon("the client left");
      expect([one.aborted, other.aborted, signalOf(exchange).aborted]).toEqual([true, true, true]);
    });

    test("whoever waits for its end is told of it, each of them", () => {
      const exchange = open(false);
      const told: number[] = [];
      for (const each of [1, 2]) onOver(exchange, () => told.push(each));
      new HttpResponse(exchange).end("the answer");
      exchange.abandon("the client left");
      expect(told).toEqual([1, 2]);
    });

    test("a read of the body that waits is told when the response has ended", async () => {
      const exchange = open(false);
      const reading = exchange.body?.read() ?? Promise.resolve();
      new HttpResponse(exchange).end("the answer");
      expect(await failureOf("the read", 1000, reading)).toBeInstanceOf(BodyLostError);
    });
  });
}

describe("an event stream", () => {
  const open = () => {
    const exchange = KINDS["in the mode process"](false);
    return { exchange, response: new HttpResponse(exchange) };
  };

  test("beats until it is closed, and not beyond", async () => {
    const { exchange, response } = open();
    const stream = response.sse({ heartbeat: 1 });
    let beats = 0;
    stream.comment = async () => void beats++;
    await until("two beats", 1000, () => beats >= 2);
    exchange.abandon("the client left");
    await inTime("its end", 1000, stream.closed);
    const before = beats;
    await Bun.sleep(20);
    expect(beats).toBe(before);
  });

  test("knows what it is asked for", async () => {
    const { response } = open();
    expect(() => response.sse({ hearbeat: 1 } as never)).toThrow(
      'sse: there is no option "hearbeat"; there are heartbeat',
    );
    const stream = response.sse({ heartbeat: 0 });
    const sent = stream.send({ type: "tick", data: 1 } as never);
    expect(await failureOf("the event", 1000, sent)).toEqual(
      new TypeError('sse: there is no option "type"; there are data, event, id, retry'),
    );
    stream.close();
  });

  test("whose client has left before is closed from the beginning", async () => {
    const { exchange, response } = open();
    exchange.abandon("the client left");
    const stream = response.sse();
    await inTime("its end", 1000, stream.closed);
    expect(stream.isOpen).toBe(false);
  });
});

describe("a handler of the event form that returns a Response", () => {
  const logged = async (handler: RequestHandler) => {
    const lines: string[] = [];
    const exchange = KINDS["in the mode process"](false);
    run(exchange, requestHandler(handler, resolveOptions({})), (line) => lines.push(line));
    await Bun.sleep(0);
    return [lines.length, lines[0]?.match(/TypeError: the handler returned a Response/)?.length ?? 0];
  };
  const returned = new Response("an answer");

  test("fails, and the log says so", async () => {
    expect(await logged(() => returned)).toEqual([1, 1]);
    expect(await logged(async () => returned)).toEqual([1, 1]);
    expect(await logged(() => Promise.resolve().then(() => returned))).toEqual([1, 1]);
  });

  test("does not where it answers itself", async () => {
    const answers: ((response: HttpResponse) => unknown)[] = [
      (response) => response.end(),
      (response) => response.write("the first of it"),
      (response) => response.detach(),
    ];
    for (const answer of answers) {
      const handler: RequestHandler = async (_, response) => {
        void answer(response);
        return returned;
      };
      expect(await logged(handler)).toEqual([0, 0]);
    }
  });
});

test("what goes on in the background is waited for to its end, with what it adds itself", async () => {
  const work = new Background();
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const exchange = KINDS["in the mode process"](false);
  work.add(
    exchange,
    first.promise.then(() => work.add(exchange, second.promise)),
  );
  let isSettled = false;
  const settled = work.settled().then(() => {
    isSettled = true;
  });
  first.resolve();
  await Bun.sleep(1);
  expect([isSettled, work.size]).toEqual([false, 1]);
  second.resolve();
  await inTime("the end", 1000, settled);
  expect(work.size).toBe(0);
});

test("a stream of the body that is cancelled has the rest of it given up", async () => {
  let isCancelled = false;
  const cancel = () => {
    isCancelled = true;
  };
  await bodyStreamOf({ body: { cancel } } as unknown as Exchange)?.cancel();
  expect(isCancelled).toBe(true);
});

describe("a body that was read to its end stays there when the response has ended, and one that was not is lost", () => {
  const opens = {
    "in the mode process": () => {
      const exchange = KINDS["in the mode process"](false);
      exchange.body?.receive(Buffer.from("abc"), false);
      exchange.body?.receive(Buffer.from("def"), true);
      return exchange;
    },
    "in the mode base": (length?: number) => {
      const stream = Readable.from([Buffer.from("abc"), Buffer.from("def")]);
      const body = new ReadableBody(stream, length, stream, () => []);
      return KINDS["in the mode base"](false, body);
    },
  };

  for (const [mode, open] of Object.entries(opens)) {
    test(mode, async () => {
      const [whole, known, partly] = [open(), open(6), open(6)];
      const read = (exchange: HandlerExchange) => exchange.body?.read() ?? Promise.resolve();
      for (const [exchange, reads] of [
        [whole, 3],
        [known, 2],
        [partly, 1],
      ] as const) {
        for (let i = 0; i < reads; i++) await read(exchange);
        new HttpResponse(exchange).end("the answer");
      }
      expect([await read(whole), await read(known)]).toEqual([null, null]);
      expect(await failureOf("the read", 1000, read(partly))).toBeInstanceOf(BodyLostError);
    });
  }
});
