/**
 * What the engine `quic` makes of requests on their way in, keeps of bodies that nobody reads, and of responses that leave
 * together, without a connection.
 */
import { afterAll, afterEach, beforeAll, describe, expect, jest, mock, spyOn, test } from "bun:test";
import { mkdtempSync, readdirSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { QuicStream } from "node:quic";
import { BodyLostError, type ResponseHead } from "../../src/exchange.ts";
import type { ListenerHost } from "../../src/listeners/listener.ts";
import { Arrivals } from "../../src/listeners/quic/arrival.ts";
import { type BodyOwner, QuicBody, type Reading } from "../../src/listeners/quic/body.ts";
import type { QuicExchange } from "../../src/listeners/quic/exchange.ts";
import { Outbox, type Sender } from "../../src/listeners/quic/outbox.ts";
import { StreamingResponse } from "../../src/listeners/quic/response.ts";
import { Spool, SpoolSpace } from "../../src/listeners/quic/spool.ts";
import { Turns } from "../../src/listeners/quic/turns.ts";

describe("a spool", () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "tercet-spool-"));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  /** Bytes of each file that is open. */
  const sizes = () =>
    readdirSync("/proc/self/fd").flatMap((fd) => {
      try {
        const path = `/proc/self/fd/${fd}`;
        return readlinkSync(path).startsWith(directory) ? [statSync(path).size] : [];
      } catch {
        // It was of the listing itself.
        return [];
      }
    });

  async function drain(spool: Spool): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    for (let chunk = await spool.read(); chunk !== null; chunk = await spool.read()) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  test("gives back what it was given, and gives back the disk when all was read", async () => {
    const spool = new Spool(directory, new SpoolSpace(2_000_000));
    const bytes = Buffer.from(Array.from({ length: 700_000 }, (_, i) => i % 251));
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < bytes.length; at += 30_000)
        expect(spool.push(bytes.subarray(at, at + 30_000))).toBe(true);
      expect(sizes()[0]).toBeGreaterThan(500_000);
      expect(bytes.equals(await drain(spool))).toBe(true);
      expect(sizes()).toEqual([0]);
    }
    spool.close();
    expect(sizes()).toEqual([]);
  });

  test("shares its space: what is over it is refused, until another was read, or is closed", async () => {
    const space = new SpoolSpace(1_000_000);
    const [one, other] = [new Spool(directory, space), new Spool(directory, space)];
    const bytes = Buffer.alloc(600_000);
    expect([one.push(bytes), other.push(bytes)]).toEqual([true, false]);
    await drain(one);
    expect([other.push(bytes), one.push(bytes)]).toEqual([true, false]);
    other.close();
    expect([one.push(bytes), one.push(bytes)]).toEqual([true, false]);
    one.close();
  });

  test("that is closed while it is being read lets go of its file behind the read", async () => {
    const spool = new Spool(directory, new SpoolSpace(1_000_000));
    spool.push(Buffer.alloc(300_000));
    const reading = spool.read();
    spool.close();
    expect((await reading)?.length).toBeGreaterThan(0);
    expect(sizes()).toEqual([]);
  });
});

/** What a client sends on a stream, as the engine gives it. */
class Sending {
  readonly #asked: PromiseWithResolvers<IteratorResult<Uint8Array[], undefined>>[] = [];
  readonly reading: Reading;

  constructor() {
    const next = () => {
      const asked = Promise.withResolvers<IteratorResult<Uint8Array[], undefined>>();
      this.#asked.push(asked);
      return asked.promise;
    };
    this.reading = { pieces: { next }, first: next() };
  }

  /** Some more bytes have come. */
  async send(...pieces: Uint8Array[]): Promise<void> {
    this.#asked.shift()?.resolve({ value: pieces, done: false });
    await turn();
  }

  async end(): Promise<void> {
    this.#asked.shift()?.resolve({ value: undefined, done: true });
    await turn();
  }

  async breakOff(): Promise<void> {
    this.#asked.shift()?.reject(new Error("reset"));
    await turn();
  }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("an arrival", () => {
  /** How a request is handed over: `at once`, or `later`, with the end or the beginning of a body, and whether it has one. */
  function arriving(method: string) {
    const sending = new Sending();
    const told: string[] = [];
    const exchange = {
      method,
      aborted: false,
      receive: () => told.push("with a body"),
      brokenOff: () => told.push("broken off"),
    };
    const host = { accept: () => told.push("accepted") };
    const arrivals = new Arrivals(host as unknown as ListenerHost);
    arrivals.add(exchange as unknown as QuicExchange, sending.reading);
    return { sending, told, exchange };
  }

  test("without a body is one whose end comes with its head, or before any of it", async () => {
    for (const method of ["GET", "POST"]) {
      const { sending, told } = arriving(method);
      await sending.end();
      expect(told).toEqual(["accepted"]);
    }
    for (const method of ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"]) {
      const { sending, told } = arriving(method);
      await turn();
      expect(told).toEqual([]);
      await sending.end();
      expect(told).toEqual(["accepted"]);
    }
  });

  test("with a body is one that begins it, or may begin it only when it was answered", async () => {
    const { sending, told } = arriving("GET");
    await sending.send(Buffer.from("a"));
    expect(told).toEqual(["with a body", "accepted"]);
    for (const method of ["POST", "CONNECT", "PROPFIND"]) {
      const { sending, told } = arriving(method);
      await turn();
      expect(told).toEqual(["with a body", "accepted"]);
      await sending.send(Buffer.from("a"));
      expect(told).toEqual(["with a body", "accepted"]);
    }
  });

  test("that is broken off, or whose client has gone, is handed over to nobody; behind that it is its body's", async () => {
    const broken = arriving("GET");
    await broken.sending.breakOff();
    const gone = arriving("GET");
    gone.exchange.aborted = true;
    await gone.sending.end();
    const later = arriving("POST");
    await turn();
    await later.sending.breakOff();
    expect([broken.told, gone.told, later.told]).toEqual([["broken off"], [], ["with a body", "accepted"]]);
  });
});

describe("a body", () => {
  const KIB = 1024;
  const directory = mkdtempSync(join(tmpdir(), "tercet-body-"));
  afterAll(() => rmSync(directory, { recursive: true }));
  afterEach(() => {
    mock.restore();
    jest.useRealTimers();
  });

  function arriving(bounds: { length?: number; maxBodyBytes?: number; space?: number } = {}) {
    const { length, maxBodyBytes = 1e9, space = 1e9 } = bounds;
    const sending = new Sending();
    const told: string[] = [];
    const owner: BodyOwner = {
      stopSending: () => told.push("stop"),
      cannotKeep: ({ message }) => told.push(message),
      brokenOff: () => told.push("broken off"),
      wanted: () => told.push("wanted"),
      trailers: [],
    };
    const store = { directory, space: new SpoolSpace(space), maxBodyBytes };
    const body = new QuicBody(length, sending.reading, owner, store);
    return { body, sending, told, space: store.space };
  }

  test("that is read as it comes needs no disk, however long it is", async () => {
    const { body, sending, told } = arriving({ space: 0 });
    const all = body.readAll();
    const piece = Buffer.alloc(64 * KIB);
    for (let i = 0; i < 33; i++) await sending.send(piece);
    await sending.end();
    expect([(await all).length, told]).toEqual([33 * piece.length, ["wanted"]]);
  });

  test("keeps its order where it waits in memory, on the disk and in memory again", async () => {
    const { body, sending, space } = arriving({ space: 128 * KIB });
    const sent = [256, 64, 32].map((size, i) => Buffer.alloc(size * KIB, i + 1));
    await sending.send(sent[0] as Buffer, sent[1] as Buffer);
    const read = [await body.read()];
    // There is room in memory, but not for what is behind that on the disk.
    await sending.send(sent[2] as Buffer);
    expect(space.take(33 * KIB)).toBe(false);
    read.push(await body.read(), await body.read());
    expect(read.map((chunk) => chunk?.[0])).toEqual([1, 2, 3]);
    await sending.send(Buffer.alloc(32 * KIB, 4));
    // All of the disk is free again.
    expect(space.take(128 * KIB)).toBe(true);
    expect((await body.read())?.[0]).toBe(4);
  });

  test("that does not fit in memory, or on the disk, or cannot be read from there, is lost", async () => {
    const full = arriving({ space: 64 * KIB });
    await full.sending.send(Buffer.alloc(256 * KIB), Buffer.alloc(65 * KIB));
    expect(full.told).toEqual(["bodies that were not read in time have filled their space"]);
    await full.sending.end();
    await turn();
    await expect(full.body.read()).rejects.toThrow(BodyLostError);
    const unread = arriving();
    await unread.sending.send(Buffer.alloc(257 * KIB));
    spyOn(Spool.prototype, "read").mockRejectedValue(new Error("EIO"));
    await expect(unread.body.read()).rejects.toThrow("the body could not be kept");
    expect(unread.told).toEqual(["wanted", "EIO"]);
    expect(unread.space.take(1e9)).toBe(true);
  });

  test("over maxBodyBytes is stopped, and no more of it is kept than shows that", async () => {
    const { body, sending, told } = arriving({ maxBodyBytes: 10 });
    await sending.send(Buffer.alloc(10));
    expect(told).toEqual([]);
    await sending.send(Buffer.alloc(5));
    await sending.send(Buffer.alloc(5));
    expect(told).toEqual(["stop"]);
    await sending.end();
    expect((await body.readAll()).length).toBe(15);
  });

  test("that nobody wants is let go by while it is short; a long one is stopped", async () => {
    const short = arriving();
    short.body.cancel();
    await short.sending.send(Buffer.alloc(64 * KIB));
    expect(short.told).toEqual([]);
    for (let i = 0; i < 2; i++) await short.sending.send(Buffer.alloc(1));
    expect(short.told).toEqual(["stop"]);
    const [declared, begun] = [arriving({ length: 64 * KIB + 1 }), arriving()];
    await begun.sending.send(Buffer.alloc(64 * KIB + 1));
    for (const { body, told } of [declared, begun]) {
      body.cancel();
      expect(told).toEqual(["stop"]);
      expect(await body.read()).toBeNull();
    }
  });

  test("that nobody wants, and that has no end within a second, is stopped", async () => {
    const [endless, ended, broken] = [arriving(), arriving(), arriving()];
    jest.useFakeTimers();
    for (const { body } of [endless, ended, broken]) body.cancel();
    await ended.sending.end();
    await broken.sending.breakOff();
    jest.advanceTimersByTime(999);
    expect(endless.told).toEqual([]);
    jest.advanceTimersByTime(1);
    expect([endless.told, ended.told, broken.told]).toEqual([["stop"], [], []]);
  });

  test("that has come whole outlives its stream in memory, and not on the disk", async () => {
    const [short, long] = [arriving(), arriving()];
    await short.sending.send(Buffer.from("abc"));
    await long.sending.send(Buffer.alloc(256 * KIB), Buffer.alloc(256 * KIB));
    for (const { sending, body } of [short, long]) {
      await sending.end();
      body.lost();
    }
    await turn();
    expect((await short.body.readAll()).length).toBe(3);
    expect(long.space.take(1e9)).toBe(true);
    await expect(long.body.readAll()).rejects.toThrow("the client went away");
  });
});

describe("trailers", () => {
  afterEach(() => jest.useRealTimers());

  /** What follows, each in a later turn. */
  const turns = async () => {
    for (let i = 0; i < 5; i++) await turn();
  };

  /** Responses of one connection, which end with trailers. */
  function ending(count: number, untaken = 0) {
    const trailerTurns = new Turns();
    const told: string[] = [];
    const state = { looks: 0, untaken };
    const streams = Array.from({ length: count }, (_, i) => ({
      highWaterMark: 0,
      destroyed: false,
      closed: Promise.withResolvers<void>().promise,
      onwanttrailers: () => {},
      setPriority() {},
      sendTrailers: () => told.push(`trailers of ${i}`),
      writer: {
        get desiredSize() {
          state.looks++;
          return streams[i]?.destroyed ? null : (streams[i]?.highWaterMark ?? 0) - state.untaken;
        },
        endSync: () => told.push(`the end of ${i}`),
      },
    }));
    for (const stream of streams) {
      const owner = { trailerTurns, drained() {}, finished() {} };
      new StreamingResponse(stream as unknown as QuicStream, owner).end({ "x-sum": "abc" });
    }
    return { told, streams, state };
  }

  test("wait until the engine has taken the body, and are looked after the more seldom the longer that is", () => {
    jest.useFakeTimers();
    const { told, state, streams } = ending(2, 1);
    jest.advanceTimersByTime(10_000);
    expect(told).toEqual([]);
    expect(state.looks).toBeLessThan(200);
    (streams[0] as { destroyed: boolean }).destroyed = true;
    state.untaken = 0;
    jest.advanceTimersByTime(200);
    expect(told).toEqual(["the end of 1"]);
  });

  test("are sent one response's after another's, and wait for none that the engine does not ask for", async () => {
    jest.useFakeTimers();
    const { told, streams } = ending(4);
    expect(told).toEqual(["the end of 0"]);
    streams[0]?.onwanttrailers();
    await turns();
    expect(told.slice(1)).toEqual(["trailers of 0", "the end of 1"]);
    // What has gone meanwhile has no turn.
    (streams[2] as { destroyed: boolean }).destroyed = true;
    jest.advanceTimersByTime(999);
    await turns();
    expect(told).toHaveLength(3);
    jest.advanceTimersByTime(1);
    await turns();
    streams[1]?.onwanttrailers();
    expect(told.slice(3)).toEqual(["the end of 3", "trailers of 1"]);
  });
});

describe("the outbox", () => {
  const head: ResponseHead = { status: 200, fields: [] };
  afterEach(() => jest.useRealTimers());

  /** Notes what is sent of it; the engine takes its body first where it does at all. */
  class Stream implements Sender {
    readonly #sent: string[];
    readonly #name: string;
    readonly #takesBodyFirst: boolean;
    blocked: () => void = () => {};
    isStuck = false;

    constructor(sent: string[], name: string, takesBodyFirst = true) {
      this.#sent = sent;
      this.#name = name;
      this.#takesBodyFirst = takesBodyFirst;
    }

    send(): void {
      this.#sent.push(this.#name);
    }

    sendBodyFirst(_body: Uint8Array, blocked: () => void): boolean {
      this.blocked = blocked;
      return this.#takesBodyFirst;
    }

    sendHeadLast(): void {
      this.#sent.push(`${this.#name}, carrying`);
    }

    notCalled(): void {
      this.isStuck = true;
    }
  }

  function filled(names: string, takesBodyFirst: (name: string) => boolean = () => true) {
    const sent: string[] = [];
    const outbox = new Outbox<Stream>();
    const streams = [...names].map((name) => new Stream(sent, name, takesBodyFirst(name)));
    const add = (exchange: Stream) => outbox.add({ exchange, head, body: Buffer.from("body") });
    for (const stream of streams) add(stream);
    return { sent, outbox, streams, add };
  }

  test("sends a few at once, and many in the engine's callback, those that come meanwhile with them", () => {
    const few = filled("abc");
    few.outbox.flush();
    expect(few.sent).toEqual(["a", "b", "c"]);
    const many = filled("abcd");
    many.outbox.flush();
    many.add(new Stream(many.sent, "e"));
    expect(many.sent).toEqual([]);
    many.streams[0]?.blocked();
    expect(many.sent).toEqual(["a, carrying", "b", "c", "d", "e"]);
  });

  test("waits for none whose stream takes no body, or has gone", () => {
    const late = filled("abcd", (name) => name !== "a");
    late.outbox.flush();
    late.streams[1]?.blocked();
    expect(late.sent).toEqual(["b, carrying", "a", "c", "d"]);
    const gone = filled("abcd");
    gone.outbox.flush();
    gone.outbox.gone(gone.streams[1] as Stream);
    expect(gone.sent).toEqual([]);
    gone.outbox.gone(gone.streams[0] as Stream);
    expect(gone.sent).toEqual(["a, carrying", "b", "c", "d"]);
  });

  test("gives no empty body first: the engine does not call for it", () => {
    const sent: string[] = [];
    const outbox = new Outbox<Stream>();
    const streams = [..."abcd"].map((name) => new Stream(sent, name));
    for (const exchange of streams)
      outbox.add({ exchange, head, body: Buffer.from(exchange === streams[2] ? "body" : "") });
    outbox.flush();
    streams[2]?.blocked();
    expect(sent).toEqual(["c, carrying", "a", "b", "d"]);
  });

  test("waits for the engine's callback for a moment, each time anew", () => {
    jest.useFakeTimers();
    const { sent, outbox, streams, add } = filled("abcd");
    outbox.flush();
    jest.advanceTimersByTime(15);
    streams[0]?.blocked();
    streams.push(...[..."efgh"].map((name) => new Stream(sent, name)));
    streams.slice(4).forEach(add);
    outbox.flush();
    jest.advanceTimersByTime(19);
    expect(sent).toEqual(["a, carrying", "b", "c", "d"]);
    jest.advanceTimersByTime(1);
    expect(sent.slice(4)).toEqual(["e, carrying", "f", "g", "h"]);
    expect(streams.findIndex(({ isStuck }) => isStuck)).toBe(4);
  });
});
