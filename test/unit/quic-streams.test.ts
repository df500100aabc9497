/**
 * What the engine `quic` makes of requests on their way in, of bodies that nobody reads, of responses and of what it is told of a
 * connection, without one.
 */
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  jest,
  mock,
  spyOn,
  test,
} from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { QuicError, QuicSession, QuicStream, SessionHandshakeInfo } from "node:quic";
import type { ConnectionEvent } from "../../src/connection.ts";
import { BodyLostError, type ExchangeId, type Fields, type ResponseHead } from "../../src/exchange.ts";
import type { RequestSection } from "../../src/http/fields.ts";
import type { ListenerHost } from "../../src/listeners/listener.ts";
import { Arrivals } from "../../src/listeners/quic/arrival.ts";
import { type BodyOwner, QuicBody, type Reading } from "../../src/listeners/quic/body.ts";
import { type ConnectionOwner, QuicConnection } from "../../src/listeners/quic/connection.ts";
import { Diagnostics } from "../../src/listeners/quic/diagnostics.ts";
import { QuicExchange } from "../../src/listeners/quic/exchange.ts";
import { linesOf, QuicHeads } from "../../src/listeners/quic/heads.ts";
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
    for (let i = 0; i < 2; i++) one.close();
    expect([space.take(1_000_001), space.take(1_000_000)]).toEqual([false, true]);
  });

  test("that is closed while it is being read lets go of its file behind the read, be it the last", async () => {
    for (const before of [0, 4]) {
      const spool = new Spool(directory, new SpoolSpace(1_000_000));
      spool.push(Buffer.alloc(300_000));
      for (let i = 0; i < before; i++) await spool.read();
      const reading = spool.read();
      spool.close();
      expect((await reading)?.length).toBeGreaterThan(0);
      expect(sizes()).toEqual([]);
    }
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

/** All that follows in this turn. */
const microtasks = async () => {
  for (let i = 0; i < 20; i++) await Promise.resolve();
};

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

  test("has begun with its first bytes, or with its end", async () => {
    const [longer, empty] = [arriving(), arriving()];
    expect([longer.body.hasBegun, empty.body.hasBegun]).toEqual([false, false]);
    await longer.sending.send(Buffer.from("a"));
    await empty.sending.end();
    expect([longer.body.hasBegun, empty.body.hasBegun]).toEqual([true, true]);
  });

  test("has not ended before its trailers may have come", async () => {
    const { body, sending } = arriving();
    const ended = sending.end();
    await microtasks();
    let isRead = false;
    void body.read().then(() => {
      isRead = true;
    });
    await microtasks();
    expect(isRead).toBe(false);
    await ended;
    await turn();
    expect(isRead).toBe(true);
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

describe("a connection", () => {
  const OWNER: ConnectionOwner = {
    localPort: 443,
    idleTimeout: 10_000,
    maxFieldSectionSize: undefined,
    bodies: { directory: "/", space: new SpoolSpace(0), maxBodyBytes: 0 },
    tell: null,
  };
  const HANDSHAKE = {
    protocol: "h3",
    cipher: "TLS_AES_128_GCM_SHA256",
    servername: "",
    remote: { address: "::ffff:192.0.2.1", port: 5 },
    earlyDataAttempted: true,
    earlyDataAccepted: false,
  };
  let clock = 0;
  beforeEach(() => {
    clock = 0;
    spyOn(performance, "now").mockImplementation(() => clock);
  });
  afterEach(() => {
    mock.restore();
  });

  function connected() {
    const told: ConnectionEvent[] = [];
    const session = { stats: { pktRecv: 0n }, path: undefined, streams: 0, createUnidirectionalStream };
    async function createUnidirectionalStream() {
      session.streams++;
      return { closed: Promise.resolve() };
    }
    const owner = { ...OWNER, tell: (event: ConnectionEvent) => told.push(event) };
    const connection = new QuicConnection("q1", session as unknown as QuicSession, owner);
    return { connection, session, told };
  }

  test("on which nothing has moved for 30 s is stirred, and again where its client has said something since", () => {
    const { connection, session } = connected();
    const streamsAt = (now: number, packets: bigint) => {
      session.stats.pktRecv = packets;
      connection.listen(now);
      void connection.stir(now);
      return session.streams;
    };
    expect([29_999, 30_000, 59_999].map((now) => streamsAt(now, BigInt(now)))).toEqual([0, 1, 1]);
    expect([60_000, 90_000].map((now) => streamsAt(now, BigInt(now)))).toEqual([2, 3]);
    expect([120_000, 150_000].map((now) => streamsAt(now, 90_000n))).toEqual([4, 4]);
    // And not where a response has ended meanwhile.
    clock = 170_000;
    connection.streamClosed();
    expect(streamsAt(180_000, 180_000n)).toBe(4);
  });

  test("for which the engine has not called is left out for ten seconds", () => {
    const { connection } = connected();
    const isStuckAt = (now: number) => {
      clock = now;
      return connection.isStuck;
    };
    expect(isStuckAt(5)).toBe(false);
    connection.stuck();
    expect([9_999, 10_005].map(isStuckAt)).toEqual([true, false]);
  });

  test("is told with its client's own address, and what became of its early data", () => {
    const { connection, told } = connected();
    connection.locate(HANDSHAKE as unknown as SessionHandshakeInfo);
    for (const accepted of [false, true])
      connection.opened({ ...HANDSHAKE, earlyDataAccepted: accepted } as unknown as SessionHandshakeInfo);
    const shaken = told.filter(({ name }) => name === "handshake");
    expect(shaken.map((event) => event.name === "handshake" && event.handshake.earlyData)).toEqual([
      "rejected",
      "accepted",
    ]);
    expect(told[0]?.connection).toMatchObject({ remoteAddress: "192.0.2.1", remotePort: 5 });
  });

  test("is told to have been closed by its timer where nothing had come for most of that, and by the engine where that says why", () => {
    const closeOf = (error: object | null, after = 0) => {
      clock = 0;
      const { connection, told } = connected();
      connection.state = "open";
      clock = after;
      connection.closed(error as QuicError | null);
      return told[0]?.name === "close" ? told[0].close.by : null;
    };
    expect([6_999, 7_000].map((after) => closeOf(null, after))).toEqual(["client", "idle"]);
    const engine = { type: "transport", errorCode: 1n, reason: "a rule" };
    expect(closeOf(engine)).toBe("server");
    for (const change of [{ type: "application" }, { errorCode: 2n }, { reason: "" }])
      expect(closeOf({ ...engine, ...change })).toBe("client");
  });
});

describe("diagnostics", () => {
  test("that cannot be written are said once each time, and are whole when they are closed", async () => {
    const folder = join(mkdtempSync(join(tmpdir(), "tercet-keys-")), "keys");
    const keylog = join(folder, "keys.log");
    const log: string[] = [];
    const diagnostics = new Diagnostics({ keylog, qlog: folder }, (line) => log.push(line));
    const tell = async () => {
      for (const line of ["a", "b\n"]) diagnostics.secret(line);
      await diagnostics.close();
    };
    try {
      await tell();
      mkdirSync(folder);
      await tell();
      expect(readFileSync(keylog, "latin1")).toBe("a\nb\n");
      diagnostics.record("q1", "before");
      diagnostics.begin("q1");
      diagnostics.record("q1", ", behind");
      diagnostics.end("q1");
      diagnostics.record("q1", ", too late");
      await diagnostics.close();
      expect(readFileSync(join(folder, "q1.sqlog"), "latin1")).toBe("before, behind");
      rmSync(folder, { recursive: true });
      await tell();
      await tell();
      expect(log).toEqual(Array(2).fill(expect.stringMatching(/^http3\.keylog: .*ENOENT/)));
    } finally {
      rmSync(dirname(folder), { recursive: true });
    }
  });
});

describe("an exchange", () => {
  /** Of a stream that notes what the engine is told of it. */
  function exchangeOn(
    change: { method?: string; fields?: Fields; isStuck?: boolean; open?: number; priority?: object } = {},
  ) {
    const { method = "POST", fields = [], isStuck = false, open = 1, priority = null } = change;
    const told: string[] = [];
    const gone = Promise.withResolvers<void>();
    const note =
      (name: string) =>
      (...given: unknown[]) => {
        told.push(
          [name, ...given.map((each) => (each instanceof Uint8Array ? "body" : JSON.stringify(each)))].join(
            " ",
          ),
        );
      };
    const stream = {
      id: 4n,
      closed: gone.promise,
      destroyed: false,
      priority,
      onblocked: null,
      highWaterMark: 0,
      sendHeaders: (section: Record<string, string>, options?: { terminal: boolean }) =>
        note(options?.terminal ? "head alone" : "head")(section[":status"]),
      sendInformationalHeaders: (section: Record<string, string>) => note("inform")(section[":status"]),
      setBody: note("body"),
      setPriority: note("priority"),
      stopSending: (code: bigint) => note("stop")(Number(code)),
      destroy: (_: unknown, { code }: { code: number }) => {
        note("reset")(code);
        stream.destroyed = true;
        gone.resolve();
      },
      writer: { desiredSize: 1, writeSync: () => true, endSync: note("end"), fail() {} },
    };
    const connection = { isStuck, open, streamClosed: note("closed"), remoteAddress: "", id: "q1" };
    const log: string[] = [];
    const outbox = new Outbox<QuicExchange>();
    const services = {
      outbox,
      heads: new QuicHeads(),
      trailers: new WeakMap<QuicStream, Fields>(),
      log: (line: string) => log.push(line),
    };
    const section = { method, path: "/", authority: "a", fields, malformed: null };
    const exchange = new QuicExchange(
      1 as ExchangeId,
      stream as unknown as QuicStream,
      section as unknown as RequestSection,
      connection as unknown as QuicConnection,
      services,
    );
    return { exchange, stream, told, log, outbox, gone };
  }
  const OK: ResponseHead = { status: 200, fields: [] };

  test("carries no others where its connection is stuck", () => {
    const [stuck, other] = [exchangeOn({ isStuck: true }), exchangeOn()];
    const body = Buffer.from("a");
    expect([stuck, other].map(({ exchange }) => exchange.sendBodyFirst(body, () => {}))).toEqual([
      false,
      true,
    ]);
    expect([stuck.told, other.told]).toEqual([[], ["body body"]]);
  });

  test("has its client stop behind the response, whatever form that has", () => {
    const answers: Readonly<Record<string, (exchange: QuicExchange) => void>> = {
      whole: (exchange) => exchange.send(OK, Buffer.from("a")),
      "the body first": (exchange) => exchange.sendHeadLast(OK),
      streamed: (exchange) => {
        exchange.head(OK);
        exchange.end(null);
      },
      "without a body": (exchange) => {
        exchange.head({ status: 204, fields: [] });
        exchange.end(null);
      },
    };
    for (const [name, answer] of Object.entries(answers)) {
      const [before, behind] = [exchangeOn(), exchangeOn()];
      before.exchange.stopSending();
      expect([name, before.told]).toEqual([name, []]);
      answer(before.exchange);
      answer(behind.exchange);
      expect(behind.told.join()).not.toContain("stop");
      expect(behind.told.includes("end")).toBe(name === "streamed");
      behind.exchange.stopSending();
      for (const { told } of [before, behind]) expect([name, told.at(-1)]).toEqual([name, "stop 256"]);
    }
  });

  test("asks for a body once, where its client waits for that, and nothing is known of either", async () => {
    const WAITS = ["expect", "100-Continue"];
    const waiting = exchangeOn({ fields: WAITS, open: 2 });
    const [hasty, answered, sent, other] = [
      exchangeOn({ fields: WAITS }),
      exchangeOn({ fields: WAITS }),
      exchangeOn({ fields: WAITS }),
      exchangeOn(),
    ];
    sent.exchange.head(OK);
    const sending = new Sending();
    hasty.exchange.body = new QuicBody(undefined, sending.reading, hasty.exchange, {
      directory: "/",
      space: new SpoolSpace(0),
      maxBodyBytes: 9,
    });
    for (const { exchange } of [waiting, hasty, answered, sent, other]) exchange.wanted();
    answered.exchange.headSent = true;
    await sending.send(Buffer.from("a"));
    await turn();
    expect(waiting.told).toEqual(['inform "100"']);
    expect([hasty.told, answered.told, other.told]).toEqual([[], [], []]);
    expect(sent.told).toEqual(['head "200"']);
  });

  test("has the priority that its response says, and for what that leaves out its client's", () => {
    const priorityOf = (value: string, asked?: object) => {
      const { exchange, told } = exchangeOn(asked === undefined ? {} : { priority: asked });
      exchange.send({ status: 200, fields: ["priority", value] }, null);
      return told[0];
    };
    const asked = { level: "low", incremental: true };
    expect(priorityOf("u=0", asked)).toBe('priority {"level":"high","incremental":true}');
    expect(priorityOf("i=?0", asked)).toBe('priority {"level":"low","incremental":false}');
    expect(priorityOf("u=3, i", asked)).toBe('priority {"level":"default","incremental":true}');
    expect(priorityOf("u=4")).toBe('priority {"level":"low","incremental":false}');
    expect(priorityOf("i")).toBe('priority {"level":"default","incremental":true}');
  });

  test("tells its owner, and who waits to send more, once that its client has gone; not behind its response", async () => {
    const [waiting, over, streamed, refused] = [exchangeOn(), exchangeOn(), exchangeOn(), exchangeOn()];
    for (const { exchange, told } of [waiting, over, streamed, refused]) {
      exchange.onAborted = () => told.push("aborted");
      exchange.onDrain = () => told.push("drained");
    }
    over.exchange.send(OK, null);
    streamed.exchange.head(OK);
    streamed.exchange.end(null);
    refused.exchange.refuse();
    for (const { gone, stream } of [waiting, over, streamed]) {
      stream.destroyed = true;
      gone.resolve();
    }
    await turn();
    expect(waiting.told).toEqual(["closed", "aborted", "drained"]);
    expect(over.told).toEqual(['head alone "200"', "closed"]);
    expect(streamed.told).toEqual(['head "200"', "end", "closed"]);
    expect(refused.told).toEqual(["reset 270", "closed"]);
    // Nothing more is sent.
    waiting.exchange.respond(OK, null);
    waiting.outbox.flush();
    expect([
      waiting.exchange.inform(OK),
      waiting.exchange.data(Buffer.from("a")),
      waiting.told.length,
    ]).toEqual([false, true, 3]);
  });

  test("ends short with the code of its reason (RFC 9114 §8.1)", () => {
    const [failed, unkept] = [exchangeOn(), exchangeOn()];
    failed.exchange.abort();
    unkept.exchange.cannotKeep(new Error("ENOSPC"));
    expect([failed.told, failed.log]).toEqual([["reset 258"], []]);
    expect([unkept.told, unkept.log]).toEqual([["reset 263"], ["POST / q1:4: ENOSPC"]]);
  });

  test("that carries others has them sent when its stream has gone", async () => {
    const all = Array.from({ length: 4 }, () => exchangeOn());
    const [first] = all as [(typeof all)[0]];
    for (const { exchange } of all) first.outbox.add({ exchange, head: OK, body: Buffer.from("a") });
    first.outbox.flush();
    first.stream.destroyed = true;
    first.gone.resolve();
    await turn();
    expect(all.map(({ told }) => told)).toEqual([
      ["body body", "closed"],
      ...Array(3).fill(['head "200"', "body body"]),
    ]);
  });

  test("that the engine refuses is reset, and the log says why; not where the stream has gone meanwhile", async () => {
    const [refused, late] = [exchangeOn(), exchangeOn()];
    for (const { stream } of [refused, late]) {
      stream.sendHeaders = () => {
        throw new Error("two lines");
      };
    }
    refused.exchange.head(OK);
    const { sendHeaders } = late.stream;
    late.stream.sendHeaders = (section) => {
      late.stream.destroyed = true;
      sendHeaders(section);
    };
    late.exchange.head(OK);
    refused.exchange.onAborted = () => refused.told.push("aborted");
    await turn();
    expect(refused.told).toEqual(["reset 258", "closed"]);
    expect(refused.log).toEqual(["POST / q1:4: the response cannot be sent: two lines"]);
    expect([late.told, late.log]).toEqual([[], []]);
  });

  test("whose body is broken off is reset before its response, and not behind it; the rest of the body is lost", async () => {
    const [before, behind, closed] = [exchangeOn(), exchangeOn(), exchangeOn()];
    const store = { directory: "/", space: new SpoolSpace(0), maxBodyBytes: 9 };
    const bodies = [before, behind, closed].map(({ exchange }) => {
      exchange.body = new QuicBody(undefined, new Sending().reading, exchange, store);
      return exchange.body;
    });
    behind.exchange.send(OK, null);
    for (const { exchange } of [before, behind]) exchange.brokenOff();
    closed.gone.resolve();
    await turn();
    for (const body of bodies) await expect(body.read()).rejects.toThrow("the client went away");
    expect([before.told, behind.told]).toEqual([["reset 269", "closed"], ['head alone "200"']]);
  });
});

describe("a response that streams", () => {
  /** The engine takes so many pieces until it is drained. */
  function streaming() {
    const told: string[] = [];
    const engine = { room: 2, isGone: false, waits: true, drained: Promise.withResolvers<void>() };
    const writer = {
      get desiredSize() {
        return engine.isGone ? null : engine.room;
      },
      writeSync(chunk: Uint8Array) {
        told.push(String(chunk));
        engine.room--;
        return !engine.isGone;
      },
      endSync: () => told.push("end"),
      [Symbol.for("Stream.drainableProtocol")]: () => (engine.waits ? engine.drained.promise : null),
    };
    const stream = { highWaterMark: 0, writer, closed: Promise.withResolvers<void>().promise };
    const response = new StreamingResponse(stream as unknown as QuicStream, {
      trailerTurns: new Turns(),
      drained: () => told.push("drained"),
      finished: () => told.push("finished"),
    });
    return {
      told,
      engine,
      push: (text: string) => response.push(Buffer.from(text)),
      end: () => response.end(null),
      drain: async (room: number) => {
        engine.room = room;
        engine.drained.resolve();
        engine.drained = Promise.withResolvers();
        await turn();
      },
    };
  }

  test("waits in its order where the engine has no room, and goes on when it has", async () => {
    const { told, push, end, drain } = streaming();
    expect([..."abcd"].map(push)).toEqual([true, false, false, false]);
    expect(told).toEqual(["a", "b"]);
    await drain(1);
    expect(told.slice(2)).toEqual(["c"]);
    await drain(2);
    expect(told.slice(3)).toEqual(["d", "drained"]);
    expect([..."ef"].map(push)).toEqual([false, false]);
    end();
    expect(told.slice(5)).toEqual(["e"]);
    await drain(1);
    expect(told.slice(6)).toEqual(["f", "end", "finished", "drained"]);
  });

  test("waits for nothing of a stream that has gone, or where there is nothing to wait for", () => {
    const [gone, ready] = [streaming(), streaming()];
    gone.engine.isGone = true;
    ready.engine.room = 0;
    ready.engine.waits = false;
    expect([gone.push("a"), ready.push("a")]).toEqual([true, true]);
  });
});

describe("heads", () => {
  test("tell the date of their moment, unless they have one", () => {
    const now = spyOn(Date, "now").mockReturnValue(1000);
    try {
      const heads = new QuicHeads();
      const own: ResponseHead = { status: 200, fields: ["date", "mine"] };
      const plain: ResponseHead = { status: 200, fields: [] };
      const dates = () => [heads.of(plain), heads.of(own)].map(({ headers }) => headers.date);
      expect(dates()).toEqual(["Thu, 01 Jan 1970 00:00:01 GMT", "mine"]);
      now.mockReturnValue(61_500);
      expect(dates()).toEqual(["Thu, 01 Jan 1970 00:01:01 GMT", "mine"]);
    } finally {
      now.mockRestore();
    }
  });

  test("of the engine's become lines; names that are numbers, which come first in it, do not come before pseudo fields", () => {
    expect(linesOf({ "1": "a", ":path": "/", b: ["c", "d"] })).toEqual([
      ":path",
      "/",
      "b",
      "c",
      "b",
      "d",
      "1",
      "a",
    ]);
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
    const gone = Array.from({ length: count }, () => Promise.withResolvers<void>());
    const streams = Array.from({ length: count }, (_, i) => ({
      highWaterMark: 0,
      destroyed: false,
      closed: gone[i]?.promise,
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
    return { told, streams, state, gone };
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
    const { looks } = state;
    jest.advanceTimersByTime(10_000);
    expect(state.looks).toBe(looks);
  });

  test("are sent one response's after another's, and wait for none that the engine does not ask for", async () => {
    jest.useFakeTimers();
    const { told, streams, gone } = ending(5);
    expect(told).toEqual(["the end of 0"]);
    streams[0]?.onwanttrailers();
    await microtasks();
    expect(told.slice(1)).toEqual(["trailers of 0"]);
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
    gone[3]?.resolve();
    await turns();
    expect(told.slice(5)).toEqual(["the end of 4"]);
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
