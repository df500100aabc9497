/** An exchange as a handler has it, in either mode, compressed and not, without a client. */
import { describe, expect, spyOn, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { brotliDecompressSync, constants, gunzipSync, zstdDecompressSync } from "node:zlib";
import { LocalExchange, type LocalOwner } from "../../src/base/local-exchange.ts";
import {
  BodyLostError,
  type Exchange,
  type ExchangeId,
  type Fields,
  type RequestBody,
  type ResponseHead,
} from "../../src/exchange.ts";
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
import { Encoder, encode } from "../../src/worker/encoder.ts";
import type { AnsweringExchange, HandlerExchange } from "../../src/worker/handler-exchange.ts";
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

test("what calls a response whose async handler has returned is told who ended it", async () => {
  const left = Promise.withResolvers<HttpResponse>();
  const handler = requestHandler(async (_, response) => {
    await Bun.sleep(0);
    left.resolve(response);
  }, resolveOptions({}));
  await handler(KINDS["in the mode process"](false));
  const response = await left.promise;
  const why = "the response has ended: its async handler returned, and had not called detach()";
  expect(() => response.end("late")).toThrow(`end: ${why}`);
  expect(() => response.header("x", "1")).toThrow(`header: ${why}`);
  expect(await failureOf("a write", 1000, response.write("late"))).toMatchObject({
    message: `write: ${why}`,
  });
});

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

describe("a compressed response", () => {
  const TYPE = ["content-type", "text/plain"];
  const OK = { status: 200, fields: TYPE };
  /** Bytes that are compressed in one turn of the event loop. */
  const TURN = 128 * 1024;

  /** An exchange, and what its client is sent of it. */
  const open = (accepted = "gzip", method = "GET") => {
    const heads: ResponseHead[] = [];
    const pieces: Uint8Array[] = [];
    const ends: (Fields | null)[] = [];
    const sink = {
      hasRoom: true,
      onDrain: null as (() => void) | null,
      respond: (head: ResponseHead, body: Uint8Array | null) => {
        heads.push(head);
        if (body !== null) pieces.push(body);
      },
      head: (head: ResponseHead) => void heads.push(head),
      data: (chunk: Uint8Array) => {
        pieces.push(chunk);
        return sink.hasRoom;
      },
      end: (trailers: Fields | null) => void ends.push(trailers),
      abort: () => {},
    };
    const body = { read: () => new Promise(() => {}), cancel: () => {} };
    const head = { ...requestHead(["accept-encoding", accepted]), method };
    const owner = { completed: () => {}, broken: () => {} } as unknown as LocalOwner;
    const Made = compressing(LocalExchange, coding);
    const exchange = new Made({ id: 1, body, sink } as unknown as Exchange, head, owner);
    const sent = () => gunzipSync(Buffer.concat(pieces), { finishFlush: constants.Z_SYNC_FLUSH });
    return { exchange, sink, heads, pieces, ends, sent };
  };

  test("says by what it varies where it streams to a client that takes no coding", () => {
    const { exchange, heads, pieces } = open("identity");
    exchange.head(OK);
    exchange.data(Buffer.from("abc"));
    expect([heads, pieces]).toEqual([
      [{ ...OK, fields: [...TYPE, "vary", "accept-encoding"], verbatim: true }],
      [Buffer.from("abc")],
    ]);
  });

  test("is none where the whole body would get no smaller", () => {
    const body = randomBytes(100_000);
    const { exchange, heads, pieces } = open();
    exchange.respond(OK, body);
    expect([heads[0]?.fields, pieces]).toEqual([[...TYPE, "vary", "accept-encoding"], [body]]);
    const writer = new FrameWriter();
    const Made = compressing(ChannelExchange, coding);
    new Made(1 as ExchangeId, HEAD, false, { writer } as Channel, () => {}).respond(OK, body);
    const frames = writer.take();
    expect([frames.includes(body.subarray(0, 1000)), frames.includes("gzip")]).toEqual([true, false]);
  });

  test("to HEAD has the coding where the body is known to be large enough, and no body", () => {
    const asked = (fields: Fields) => {
      const { exchange, heads } = open("gzip", "HEAD");
      exchange.respond({ status: 200, fields: [...TYPE, ...fields] }, null);
      return heads[0]?.fields.slice(TYPE.length);
    };
    const varies = ["vary", "accept-encoding"];
    expect(asked(["content-length", "2000"])).toEqual([...varies, "content-encoding", "gzip"]);
    expect(asked([])).toEqual(varies);
    expect(asked(["content-length", "20"])).toEqual(["content-length", "20"]);
    const { exchange, heads, pieces, ends } = open("gzip", "HEAD");
    exchange.head(OK);
    exchange.end(null);
    expect([heads[0]?.fields.slice(-2), pieces, ends]).toEqual([["content-encoding", "gzip"], [], [null]]);
    const none = open();
    none.exchange.respond(OK, null);
    expect(none.heads).toEqual([OK]);
  });

  test("is made as its client has room for it, and an empty write makes nothing", async () => {
    using encoded = spyOn(Encoder.prototype, "encode");
    const made = () => encoded.mock.calls.reduce((bytes, [chunk]) => bytes + chunk.length, 0);
    const turn = () => new Promise(setImmediate);
    const { exchange, sink, ends, sent } = open();
    let drained = 0;
    exchange.onDrain = () => drained++;
    exchange.head(OK);
    expect([exchange.data(Buffer.from("a")), String(sent())]).toEqual([true, "a"]);
    expect([exchange.data(Buffer.alloc(0)), encoded.mock.calls.length]).toEqual([true, 1]);
    sink.hasRoom = false;
    const large = randomBytes(2 * TURN);
    const small = ["c", "d"].map((text) => Buffer.from(text));
    expect([large, ...small].map((chunk) => exchange.data(chunk))).toEqual([false, false, false]);
    exchange.end(["x-sum", "1"]);
    await turn();
    expect(made()).toBe(1 + TURN);
    sink.onDrain?.();
    await turn();
    expect([drained, made(), ends]).toEqual([0, 1 + 2 * TURN, []]);
    sink.hasRoom = true;
    sink.onDrain?.();
    expect(sent().equals(Buffer.concat([Buffer.from("a"), large, ...small]))).toBe(true);
    expect(ends).toEqual([["x-sum", "1"]]);
  });

  test("is made a turn's worth at a time, and its client is told when there is room for more", async () => {
    using encoded = spyOn(Encoder.prototype, "encode");
    const { exchange, sent } = open();
    const drained = Promise.withResolvers<void>();
    exchange.onDrain = drained.resolve;
    exchange.head(OK);
    const body = Buffer.alloc(2 * TURN - 1, "ab");
    expect(exchange.data(body)).toBe(false);
    expect(encoded.mock.calls.map(([chunk, then]) => [chunk.length, then])).toEqual([[TURN, "continue"]]);
    await inTime("room", 5_000, drained.promise);
    expect(sent().equals(body)).toBe(true);
  });

  test("frees what it was made with at its end, when it is given up, and when its client leaves", () => {
    using closed = spyOn(Encoder.prototype, "close");
    using encoded = spyOn(Encoder.prototype, "encode");
    const large = Buffer.alloc(2 * TURN);
    for (const [count, finish] of Object.entries<(exchange: AnsweringExchange) => void>([
      (exchange) => exchange.end(null),
      (exchange) => exchange.abort("no more"),
      (exchange) => exchange.abandon("the client left"),
    ])) {
      const { exchange } = open();
      exchange.head(OK);
      exchange.data(Buffer.from("a"));
      expect(closed).toHaveBeenCalledTimes(Number(count));
      finish(exchange);
      expect(closed).toHaveBeenCalledTimes(Number(count) + 1);
      encoded.mockClear();
      exchange.data(large);
      expect(encoded).not.toHaveBeenCalled();
    }
    const { exchange } = open();
    exchange.abandon("the client left");
    exchange.head(OK);
    exchange.data(large);
    expect(encoded).not.toHaveBeenCalled();
  });

  test("takes nothing more of the request's body when it has ended, though some of it is still to be made", async () => {
    const { exchange, sink, ends } = open();
    exchange.head(OK);
    sink.hasRoom = false;
    exchange.data(Buffer.alloc(2 * TURN));
    const reading = exchange.body?.read() ?? Promise.resolve();
    exchange.end(null);
    expect(await failureOf("the read", 5_000, reading)).toBeInstanceOf(BodyLostError);
    expect(ends).toEqual([]);
  });
});

describe("a coding", () => {
  const WHOLE = { zstd: zstdDecompressSync, br: brotliDecompressSync, gzip: gunzipSync };
  const codings = Object.keys(WHOLE) as (keyof typeof WHOLE)[];
  const { levels } = coding.options;

  test.each(codings)(
    "%s: what gets larger than one turn's worth comes whole, each piece by itself",
    (name) => {
      const encoder = new Encoder(name, levels);
      const [first, second] = [randomBytes(300_000), randomBytes(300_000)];
      const coded = [encoder.encode(first, "flush"), encoder.encode(second, "finish")];
      encoder.close();
      expect(WHOLE[name](Buffer.concat(coded)).equals(Buffer.concat([first, second]))).toBe(true);
    },
  );

  test.each(codings)("%s: its level is that of whole bodies and of streams", (name) => {
    const text = Buffer.from(
      Array.from({ length: 20_000 }, (_, i) => ((i * i) % 977).toString(36)).join(" "),
    );
    const lengths = [1, 9].map((level) => {
      const own = { ...levels, [name]: level };
      const encoder = new Encoder(name, own);
      const [whole, streamed] = [encode(name, own, text), encoder.encode(text, "finish")];
      encoder.close();
      return [whole.length, streamed.length] as const;
    });
    const [fast, thorough] = lengths as [readonly [number, number], readonly [number, number]];
    expect(thorough[0]).toBeLessThan(fast[0]);
    expect(thorough[1]).toBeLessThan(fast[1]);
  });

  test("of a stream has a window, and a context, of which there may be many", () => {
    const made = (name: keyof typeof WHOLE) => {
      const encoder = new Encoder(name, levels);
      return { encoder, first: encoder.encode(Buffer.from("a"), "flush") };
    };
    const opened = codings.map(made);
    const [zstd, br] = opened.map(({ first }) => first) as [Uint8Array, Uint8Array];
    // Both of 128 KiB: RFC 8878 §3.1.1.1.2, RFC 7932 §9.1.
    expect([(zstd[5] as number) >> 3, (br[0] as number) & 0x7f]).toEqual([17 - 10, 1]);
    const before = process.memoryUsage.rss();
    for (let i = 0; i < 200; i++) opened.push(made("zstd"));
    // It is 255 KiB of each.
    expect((process.memoryUsage.rss() - before) / 200).toBeLessThan(350 * 1024);
    for (const { encoder } of opened) encoder.close();
  });
});
