/** What an exchange sends to its reactor, compressed and not: all of it, in order, within its window and each frame's bounds. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { brotliDecompressSync, constants, gunzipSync, zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import {
  BodyLostError,
  type ExchangeId,
  type Fields,
  type RequestHead,
  type ResponseHead,
} from "../../src/exchange.ts";
import { ContentCoding } from "../../src/http/content-coding.ts";
import { fieldValue } from "../../src/http/fields.ts";
import { resolveOptions } from "../../src/options.ts";
import type { Channel } from "../../src/wire/channel.ts";
import { DATA_BYTES, FrameReader, FrameType, FrameWriter } from "../../src/wire/frames.ts";
import { ResponseHeads, readTrailers } from "../../src/wire/heads.ts";
import { WINDOW_BYTES } from "../../src/wire/window.ts";
import { ChannelExchange } from "../../src/worker/channel-exchange.ts";
import { compressing } from "../../src/worker/compressing-exchange.ts";
import { failureOf, inTime } from "../support/poll.ts";
import { requestHead } from "../support/request-head.ts";

// Milliseconds: on a machine under full load a property takes some seconds.
setDefaultTimeout(60_000);

const { compression } = resolveOptions({});
const options = compression as Exclude<typeof compression, false>;
const Compressing = compressing(ChannelExchange, new ContentCoding(options));
/** Of what has come so far, too. */
const DECODERS = {
  gzip: (bytes: Uint8Array) => gunzipSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH }),
  br: (bytes: Uint8Array) => brotliDecompressSync(bytes, { finishFlush: constants.BROTLI_OPERATION_FLUSH }),
  zstd: (bytes: Uint8Array) => zstdDecompressSync(bytes, { finishFlush: constants.ZSTD_e_flush }),
};
const TEXT = ["content-type", "text/plain"];

/** A reactor, as far as it has one exchange, and its client. */
class Reactor {
  readonly exchange: ChannelExchange;
  readonly #writer = new FrameWriter();
  readonly #reader = new FrameReader();
  readonly #heads = new ResponseHeads();
  readonly #pieces: Buffer[] = [];
  readonly aborts: string[] = [];
  readonly interim: number[] = [];
  head: ResponseHead | null = null;
  trailers: Fields | null = null;
  /** Of the body, for which no credit was returned. */
  #owed = 0;
  /** Of the request's body: credit that has come back. */
  credit = 0;
  ends = 0;

  constructor(coding: string | null, change: Partial<RequestHead> = {}, hasBody = false) {
    const { exchange, writer } = {
      exchange: coding === null ? ChannelExchange : Compressing,
      writer: this.#writer,
    };
    const head = { ...requestHead(coding === null ? [] : ["accept-encoding", coding]), ...change };
    this.exchange = new exchange(1 as ExchangeId, head, hasBody, { writer } as Channel, () => {});
  }

  /** Takes what was sent. */
  take(): void {
    this.#reader.push(Buffer.from(this.#writer.take()), ({ type, end, payload }) => {
      if (type === FrameType.credit) {
        this.credit += payload.u32();
        return;
      }
      // Nothing follows the end.
      expect(this.ends).toBe(0);
      if (type === FrameType.inform) this.interim.push(this.#heads.read(payload).status);
      if (type === FrameType.abort) this.aborts.push(payload.latin1());
      if (type === FrameType.trailers) this.trailers = readTrailers(payload);
      if (type === FrameType.response) this.head = this.#heads.read(payload);
      if (type === FrameType.response || type === FrameType.data) {
        expect(payload.left).toBeLessThanOrEqual(DATA_BYTES);
        if (type === FrameType.data) this.#owed += payload.left;
        expect(this.#owed).toBeLessThanOrEqual(WINDOW_BYTES);
        this.#pieces.push(Buffer.from(payload.rest()));
      }
      if (end || type === FrameType.abort) this.ends++;
    });
  }

  /** The client takes what has come. */
  drain(): void {
    this.take();
    const owed = this.#owed;
    this.#owed = 0;
    if (owed > 0 && this.ends === 0) this.exchange.credit(owed);
    this.take();
  }

  /** Resolves when the response has ended; the client takes all of it. */
  async toEnd(): Promise<void> {
    while (this.ends === 0) {
      this.drain();
      await new Promise(setImmediate);
    }
  }

  get sent(): Buffer {
    return Buffer.concat(this.#pieces);
  }

  /** As the client understands it. */
  get body(): Buffer {
    const coding = fieldValue(this.head?.fields ?? [], "content-encoding") as
      | keyof typeof DECODERS
      | undefined;
    return coding === undefined ? this.sent : DECODERS[coding](this.sent);
  }
}

const bytesOf = (chunks: readonly Uint8Array[]) => chunks.reduce((sum, { length }) => sum + length, 0);
const coding = fc.constantFrom(null, "gzip", "br", "zstd");
const size = fc.oneof(
  fc.nat(2_000),
  fc.nat(300_000),
  fc.constantFrom(0, 1_023, 1_024, 65_536, 131_072, 262_144),
);
const NOISE = randomBytes(300_000);
const REPEATS = Buffer.alloc(300_000, "a text that repeats ");
const chunk = fc.tuple(fc.constantFrom(NOISE, REPEATS), size).map(([of, length]) => of.subarray(0, length));

test("a body in pieces comes whole, whatever they are and whenever there is room, and its trailers behind it", async () => {
  const trailers = fc.constantFrom(null, ["x-sum", "1"]);
  const chunks = fc.array(chunk, { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(coding, chunks, trailers, fc.boolean(), async (coding, chunks, trailers, waits) => {
      const reactor = new Reactor(coding);
      const { exchange } = reactor;
      exchange.head({ status: 200, fields: TEXT });
      for (const [i, chunk] of chunks.entries()) {
        const room = Promise.withResolvers<void>();
        exchange.onDrain = room.resolve;
        const hasRoom = exchange.data(chunk);
        reactor.take();
        if (hasRoom && chunk.length > 0) expect(reactor.body.length).toBe(bytesOf(chunks.slice(0, i + 1)));
        if (hasRoom || !waits) continue;
        const draining = setInterval(() => reactor.drain());
        await inTime("room", 30_000, room.promise).finally(() => clearInterval(draining));
      }
      exchange.end(trailers);
      await inTime("the end", 30_000, reactor.toEnd());
      expect(reactor.body.equals(Buffer.concat(chunks))).toBe(true);
      expect(reactor.trailers).toEqual(trailers);
    }),
    {
      numRuns: 50,
      // Several wait when it ends.
      examples: [
        [null, [NOISE.subarray(0, WINDOW_BYTES), NOISE.subarray(0, 10), NOISE.subarray(0, 20)], null, false],
      ],
    },
  );
});

test("each piece can be read as soon as it was written", () => {
  for (const coding of [null, "gzip", "br", "zstd"]) {
    const reactor = new Reactor(coding);
    reactor.exchange.head({ status: 200, fields: TEXT });
    for (const text of ["one", "", "two"]) expect(reactor.exchange.data(Buffer.from(text))).toBe(true);
    reactor.take();
    expect([coding, reactor.body.toString()]).toEqual([coding, "onetwo"]);
  }
});

test("HEAD is told what GET would be, and is sent no body", () => {
  const fields = [...TEXT, "content-length", "5000", "etag", '"a"'];
  const reactor = new Reactor("gzip", { method: "HEAD" });
  reactor.exchange.respond({ status: 200, fields }, null);
  const begun = new Reactor("gzip", { method: "HEAD" });
  begun.exchange.head({ status: 200, fields });
  begun.exchange.end(null);
  // It may be too small to be compressed.
  const unknown = new Reactor("gzip", { method: "HEAD" });
  unknown.exchange.respond({ status: 200, fields: TEXT }, null);
  unknown.take();
  expect(unknown.head?.fields).toEqual([...TEXT, "vary", "accept-encoding"]);
  const post = new Reactor("gzip", { method: "POST" });
  post.exchange.respond({ status: 200, fields }, null);
  const coded = [...TEXT, "etag", 'W/"a"', "vary", "accept-encoding", "content-encoding", "gzip"];
  for (const each of [reactor, begun, post]) each.take();
  expect([reactor, begun, post].map(({ head }) => head?.fields)).toEqual([coded, coded, fields]);
  expect([reactor, begun, post].map(({ sent, ends }) => [sent.length, ends])).toEqual(Array(3).fill([0, 1]));
});

test("nothing follows the end of a response, and nothing what its client has left", () => {
  const head = { status: 200, fields: [] };
  const all = ({ exchange }: Reactor) => {
    exchange.respond(head, "late");
    exchange.inform({ status: 103, fields: [] });
    exchange.head(head);
    exchange.data(Buffer.from("late"));
    exchange.end(null);
    exchange.abort("late");
    void exchange.file(head, { path: "/a", identity: "", pieces: [] });
  };
  const whole = new Reactor(null);
  whole.exchange.respond(head, "the body");
  all(whole);
  whole.take();
  expect([whole.sent.toString(), whole.ends]).toEqual(["the body", 1]);
  for (const coding of [null, "gzip"]) {
    const left = new Reactor(coding);
    left.exchange.head({ status: 200, fields: TEXT });
    left.exchange.data(NOISE);
    left.take();
    const { length } = left.sent;
    left.exchange.abandon("the client left");
    all(left);
    left.take();
    expect([left.sent.length, left.ends, left.aborts]).toEqual([length, 0, []]);
  }
});

test("an interim response goes out where it reaches the client", () => {
  for (const sendsInterim of [true, false]) {
    const reactor = new Reactor(null, { sendsInterim });
    expect(reactor.exchange.inform({ status: 103, fields: [] })).toBe(sendsInterim);
    reactor.take();
    expect(reactor.interim).toEqual(sendsInterim ? [103] : []);
  }
});

test("a request's body is read whole, however it comes, and its credit goes back as it is read", async () => {
  const pieceOf = fc.record({ length: fc.integer({ min: 1, max: DATA_BYTES }), isAwaited: fc.boolean() });
  const trailers = fc.constantFrom(null, ["x-sum", "1"]);
  await fc.assert(
    fc.asyncProperty(fc.array(pieceOf, { maxLength: 12 }), trailers, async (pieces, trailers) => {
      const reactor = new Reactor(null, {}, true);
      const body = reactor.exchange.body as NonNullable<ChannelExchange["body"]>;
      const sent: Uint8Array[] = [];
      const read: Uint8Array[] = [];
      const readNext = async () => {
        const chunk = await body.read();
        if (chunk !== null) read.push(chunk);
        reactor.take();
      };
      for (const { length, isAwaited } of pieces) {
        while (bytesOf(sent) + length > reactor.credit + WINDOW_BYTES) await readNext();
        const reading = isAwaited ? readNext() : null;
        sent.push(NOISE.subarray(sent.length, sent.length + length));
        body.receive(sent.at(-1) as Uint8Array, false);
        await reading;
      }
      if (trailers === null) body.receive(new Uint8Array(0), true);
      else body.receiveTrailers(trailers);
      while (bytesOf(read) < bytesOf(sent)) await readNext();
      expect(await body.read()).toBeNull();
      expect(Buffer.concat(read).equals(Buffer.concat(sent))).toBe(true);
      expect(body.trailers).toEqual(trailers ?? []);
    }),
    { numRuns: 50 },
  );
});

test("a read that waits is told of the end of the body, and what comes for nobody is left", async () => {
  const { body } = new Reactor(null, {}, true).exchange;
  const reading = body?.read();
  body?.receive(new Uint8Array(0), true);
  expect(await inTime("the end", 1_000, reading as Promise<Uint8Array | null>)).toBeNull();
  const left = new Reactor(null, {}, true).exchange;
  left.body?.cancel();
  left.body?.receive(NOISE.subarray(0, 10), true);
  expect(await failureOf("the read", 1_000, left.body?.read() as Promise<unknown>)).toBeInstanceOf(
    BodyLostError,
  );
});

test("of a body that nobody wants all is let go by: its client may send it before it takes anything", () => {
  const ends: Record<string, (exchange: ChannelExchange) => void> = {
    "that was cancelled": ({ body }) => body?.cancel(),
    "whose response has ended": (exchange) => exchange.respond({ status: 200, fields: TEXT }, NOISE),
  };
  for (const [what, end] of Object.entries(ends))
    for (const coding of [null, "gzip"]) {
      const reactor = new Reactor(coding, {}, true);
      const { exchange } = reactor;
      let sent = 0;
      const send = () => {
        for (
          ;
          sent + DATA_BYTES <= WINDOW_BYTES + reactor.credit && sent < 4 * WINDOW_BYTES;
          sent += DATA_BYTES
        ) {
          exchange.body?.receive(NOISE.subarray(0, DATA_BYTES), false);
          reactor.take();
        }
      };
      send();
      end(exchange);
      reactor.take();
      send();
      expect([what, coding, sent]).toEqual([what, coding, 4 * WINDOW_BYTES]);
    }
});

test("a whole body comes whole, and compressed where that is of use", async () => {
  await fc.assert(
    fc.asyncProperty(coding, chunk, fc.boolean(), async (coding, chunk, isText) => {
      const reactor = new Reactor(coding);
      const body = isText ? chunk.toString("latin1") : chunk;
      const bytes = Buffer.from(body);
      const fields = [...TEXT, "content-length", String(bytes.length)];
      reactor.exchange.respond({ status: 200, fields }, body);
      await inTime("the end", 30_000, reactor.toEnd());
      expect(reactor.body.equals(bytes)).toBe(true);
      const sent = (reactor.head as ResponseHead).fields;
      const length = fieldValue(sent, "content-length");
      if (length !== undefined) expect(length).toBe(String(reactor.sent.length));
      const isCoded = fieldValue(sent, "content-encoding") !== undefined;
      // What streams is compressed before it is known whether that is of use.
      if (isCoded && length !== undefined) expect(reactor.sent.length).toBeLessThan(bytes.length);
      const mayBe = coding !== null && bytes.length >= options.minBytes;
      if (chunk.buffer === REPEATS.buffer) expect(isCoded).toBe(mayBe);
      expect(fieldValue(sent, "vary")).toBe(mayBe ? "accept-encoding" : undefined);
    }),
    { numRuns: 50, examples: [["gzip", REPEATS.subarray(0, options.minBytes), false]] },
  );
});
