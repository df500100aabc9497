/** The codec alone: whatever goes in comes out, however the bytes are cut, and garbage is a clean protocol error. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import fc from "fast-check";
import type { ExchangeId, RequestHead, ResponseHead } from "../../src/exchange.ts";
import { Channel } from "../../src/wire/channel.ts";
import {
  FRAME_HEADER_BYTES,
  type Frame,
  FrameError,
  FrameReader,
  FrameType,
  FrameWriter,
  MAX_PAYLOAD_BYTES,
} from "../../src/wire/frames.ts";
import {
  ResponseHeads,
  readRequestHead,
  readTrailers,
  writeRequest,
  writeResponse,
  writeTrailers,
} from "../../src/wire/heads.ts";
import { ReceiveWindow, SendWindow, WINDOW_BYTES } from "../../src/wire/window.ts";
import { inTime } from "../support/poll.ts";
import { requestHead as plainHead } from "../support/request-head.ts";

// Milliseconds: on a machine under full load a property takes some ten seconds.
setDefaultTimeout(60_000);

const latin1 = (maxLength: number) =>
  fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)), maxLength });
const fieldName = fc.oneof(
  fc.constantFrom("accept", "content-type", "user-agent", "x-xss-protection"),
  latin1(40),
);
const fields = fc.array(fc.tuple(fieldName, latin1(300)), { maxLength: 40 }).map((lines) => lines.flat());
const bytes = (maxLength: number) => fc.uint8Array({ maxLength });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const id = u32.map((value) => value as ExchangeId);

const requestHead: fc.Arbitrary<RequestHead> = fc.record({
  protocol: fc.constantFrom("HTTP/1.1", "HTTP/2", "HTTP/3"),
  method: fc.oneof(fc.constantFrom("GET", "POST", "QUERY"), latin1(20)),
  scheme: fc.constantFrom("http", "https"),
  authority: latin1(60),
  path: latin1(600),
  fields,
  receivedAt: fc.double({ noNaN: true }),
  remoteAddress: latin1(45),
  remotePort: u16,
  localPort: u16,
  session: latin1(20),
  // Of QUIC it has 62 bits (RFC 9000 §2.1), of which a number has 53.
  stream: fc.maxSafeNat(),
  sendsInterim: fc.boolean(),
  sendsTrailers: fc.boolean(),
});
const responseHead: fc.Arbitrary<ResponseHead> = fc.record({
  status: fc.integer({ min: 100, max: 599 }),
  fields,
});

type Made =
  | { kind: "request"; id: ExchangeId; head: RequestHead; body: Uint8Array; end: boolean }
  | { kind: "response" | "inform"; id: ExchangeId; head: ResponseHead; body: Uint8Array; end: boolean }
  | { kind: "data"; id: ExchangeId; body: Uint8Array; end: boolean }
  | { kind: "credit"; id: ExchangeId; bytes: number }
  | { kind: "trailers"; id: ExchangeId; trailers: string[] }
  | { kind: "abort"; id: ExchangeId; reason: string }
  | { kind: "hello"; version: number; workerId: number; pid: number };

const made: fc.Arbitrary<Made> = fc.oneof(
  fc.record({ kind: fc.constant("request"), id, head: requestHead, body: bytes(2000), end: fc.boolean() }),
  fc.record({
    kind: fc.constantFrom("response", "inform"),
    id,
    head: responseHead,
    body: bytes(2000),
    end: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("data"), id, body: bytes(5000), end: fc.boolean() }),
  fc.record({ kind: fc.constant("credit"), id, bytes: u32 }),
  fc.record({ kind: fc.constant("trailers"), id, trailers: fields }),
  fc.record({ kind: fc.constant("abort"), id, reason: latin1(100) }),
  fc.record({
    kind: fc.constant("hello"),
    version: fc.integer({ min: 0, max: 255 }),
    workerId: u32,
    pid: u32,
  }),
) as fc.Arbitrary<Made>;

function write(writer: FrameWriter, frame: Made): void {
  switch (frame.kind) {
    case "request":
      writeRequest(writer, frame.id, frame.head, frame.body, frame.end);
      return;
    case "response":
    case "inform":
      writeResponse(writer, frame.id, FrameType[frame.kind], frame.head, frame.body, frame.end);
      return;
    case "data":
      writer.data(frame.id, frame.body, frame.end);
      return;
    case "credit":
      writer.credit(frame.id, frame.bytes);
      return;
    case "trailers":
      writeTrailers(writer, frame.id, frame.trailers);
      return;
    case "abort":
      writer.abort(frame.id, frame.reason);
      return;
    case "hello":
      writer.hello(frame);
  }
}

/** Cuts the stream at the given places, reads it, and gives back what `write` was given. */
function read(stream: Buffer, cuts: readonly number[]): Made[] {
  const reader = new FrameReader();
  const heads = new ResponseHeads();
  const found: Made[] = [];
  const places = [0, ...cuts.map((cut) => cut % (stream.length + 1)).sort((a, b) => a - b), stream.length];
  for (let i = 1; i < places.length; i++) {
    reader.push(stream.subarray(places[i - 1], places[i]), ({ type, id, end, payload }) => {
      const kind = Object.entries(FrameType).find(([, code]) => code === type)?.[0];
      switch (kind) {
        case "request": {
          const received = readRequestHead(payload);
          const { protocol, method, scheme, authority, path, fields, receivedAt, session, stream } = received;
          const { remoteAddress, remotePort, localPort } = received;
          const { sendsInterim, sendsTrailers } = received;
          const able = { sendsInterim, sendsTrailers };
          const connection = { remoteAddress, remotePort, localPort, session, stream, ...able };
          const head = { protocol, method, scheme, authority, path, fields, receivedAt, ...connection };
          found.push({ kind, id, head, body: plain(payload.rest()), end });
          return;
        }
        case "response":
        case "inform":
          found.push({ kind, id, head: heads.read(payload), body: plain(payload.rest()), end });
          return;
        case "data":
          found.push({ kind, id, body: plain(payload.rest()), end });
          return;
        case "credit":
          found.push({ kind, id, bytes: payload.u32() });
          return;
        case "trailers":
          found.push({ kind, id, trailers: [...readTrailers(payload)] });
          return;
        case "abort":
          found.push({ kind, id, reason: payload.latin1() });
          return;
        default:
          found.push({ kind: "hello", ...payload.hello() });
      }
    });
  }
  expect(reader.between).toBe(true);
  return found;
}

function plain(buffer: Buffer): Uint8Array {
  return new Uint8Array(buffer);
}

describe("frames", () => {
  test("round trip, however the stream of bytes is cut", () => {
    fc.assert(
      fc.property(
        fc.array(made, { maxLength: 20 }),
        fc.array(fc.nat(), { maxLength: 60 }),
        (frames, cuts) => {
          const writer = new FrameWriter(Buffer.alloc(64));
          for (const frame of frames) write(writer, frame);
          expect(read(Buffer.from(writer.take()), cuts)).toEqual(frames);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("come one by one, where the stream of bytes does", () => {
    fc.assert(
      fc.property(fc.array(made, { minLength: 1, maxLength: 4 }), (frames) => {
        const writer = new FrameWriter();
        for (const frame of frames) write(writer, frame);
        const stream = Buffer.from(writer.take());
        expect(
          read(
            stream,
            Array.from(stream, (_, index) => index),
          ),
        ).toEqual(frames);
      }),
      { numRuns: 50 },
    );
  });

  test("random bytes never do anything but a clean protocol error", () => {
    fc.assert(
      fc.property(fc.array(bytes(400), { maxLength: 10 }), (chunks) => {
        onlyFrameErrors(() => readAnything(chunks));
      }),
      { numRuns: 2000 },
    );
  });

  test("a frame with random bytes in it never does anything but a clean protocol error", () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(fc.array(made, { minLength: 1, maxLength: 5 }), damage, (frames, changes) => {
        const writer = new FrameWriter();
        for (const frame of frames) write(writer, frame);
        const stream = Buffer.from(writer.take());
        for (const [at, value] of changes) stream[at % stream.length] = value;
        onlyFrameErrors(() => readAnything([stream]));
      }),
      { numRuns: 2000 },
    );
  });

  test("a length over the bound is refused before it is waited for", () => {
    const frame = Buffer.alloc(FRAME_HEADER_BYTES);
    frame.writeUInt32LE(MAX_PAYLOAD_BYTES + 1, 0);
    frame[4] = FrameType.data;
    expect(() => new FrameReader().push(frame, () => {})).toThrow(FrameError);
  });

  test("a frame over the bound is not made, and leaves nothing behind", () => {
    const writer = new FrameWriter();
    const fields = ["x-large", "v".repeat(MAX_PAYLOAD_BYTES)];
    writer.credit(1 as ExchangeId, 2);
    expect(() => writeTrailers(writer, 1 as ExchangeId, fields)).toThrow(RangeError);
    writer.credit(3 as ExchangeId, 4);
    const read: [id: number, bytes: number][] = [];
    new FrameReader().push(writer.take(), ({ id, payload }) => read.push([id, payload.u32()]));
    expect(read).toEqual([
      [1, 2],
      [3, 4],
    ]);
  });

  test("the longest frame that is made is read", () => {
    const writer = new FrameWriter();
    writer.data(1 as ExchangeId, new Uint8Array(MAX_PAYLOAD_BYTES), true);
    let length = 0;
    new FrameReader().push(writer.take(), ({ payload }) => {
      length = payload.left;
    });
    expect(length).toBe(MAX_PAYLOAD_BYTES);
  });

  test("texts of every length that is written in another way, and of every character, come whole", () => {
    for (const length of [0, 1, 253, 254, 255, 256, 257, 70_000]) {
      const [latin, body] = ["ÿ".repeat(length), "€".repeat(length)];
      const frames: Made[] = [
        { kind: "trailers", id: 1 as ExchangeId, trailers: [latin, latin] },
        { kind: "abort", id: 2 as ExchangeId, reason: latin },
      ];
      const writer = new FrameWriter(Buffer.alloc(16));
      const head = { status: 200, fields: [] };
      writeResponse(writer, 3 as ExchangeId, FrameType.response, head, body, true);
      for (const frame of frames) write(writer, frame);
      const bytes = new Uint8Array(Buffer.from(body));
      expect(read(writer.take(), [])).toEqual([
        { kind: "response", id: 3 as ExchangeId, head, body: bytes, end: true },
        ...frames,
      ]);
    }
  });

  test("a payload that ends a byte early is a protocol error", () => {
    const writer = new FrameWriter();
    writer.begin(FrameType.credit, 0, 1 as ExchangeId);
    for (const byte of [1, 2, 3]) writer.u8(byte);
    writer.finish();
    writer.credit(1 as ExchangeId, 1);
    expect(() => new FrameReader().push(writer.take(), ({ payload }) => void payload.u32())).toThrow(
      "a payload ends 1 bytes early",
    );
  });

  test("a type that does not exist is refused", () => {
    for (const type of [0, Math.max(...Object.values(FrameType)) + 1, 255]) {
      const frame = Buffer.alloc(FRAME_HEADER_BYTES);
      frame[4] = type;
      expect(() => new FrameReader().push(frame, () => {})).toThrow(`there is no frame type ${type}`);
    }
  });
});

/** Reads whatever comes as every kind of payload that its type may have. */
function readAnything(chunks: readonly Uint8Array[]): void {
  const reader = new FrameReader();
  const heads = new ResponseHeads();
  for (const chunk of chunks) {
    reader.push(Buffer.from(chunk), ({ type, payload }) => {
      if (type === FrameType.request) void readRequestHead(payload).fields;
      else if (type === FrameType.response || type === FrameType.inform) heads.read(payload);
      else if (type === FrameType.credit) payload.u32();
      else if (type === FrameType.hello) payload.hello();
      else payload.rest();
    });
  }
}

function onlyFrameErrors(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof FrameError)) throw error;
  }
}

test("a request's head tells its fields first, where they are asked for first; one of no protocol is an error", () => {
  const writer = new FrameWriter();
  const head = plainHead(["x-own", "value"]);
  writeRequest(writer, 1 as ExchangeId, head, null, true);
  const bytes = writer.take();
  new FrameReader().push(bytes, ({ payload }) => {
    const { fields, authority, remoteAddress } = readRequestHead(payload);
    const { fields: sent, ...rest } = head;
    expect([fields, authority, remoteAddress]).toEqual([sent, rest.authority, rest.remoteAddress]);
  });
  // Behind the head's length.
  bytes[FRAME_HEADER_BYTES + 4] = 3;
  expect(() => new FrameReader().push(bytes, ({ payload }) => void readRequestHead(payload))).toThrow(
    FrameError,
  );
});

describe("response heads", () => {
  test("the same bytes give the same object, other bytes another", () => {
    const heads = new ResponseHeads();
    const read = (head: ResponseHead): ResponseHead => {
      const writer = new FrameWriter();
      writeResponse(writer, 1 as ExchangeId, FrameType.response, head, null, true);
      let found: ResponseHead | null = null;
      new FrameReader().push(Buffer.from(writer.take()), ({ payload }) => {
        found = heads.read(payload);
      });
      return found as unknown as ResponseHead;
    };
    const first = read({ status: 200, fields: ["content-type", "text/plain"] });
    expect(read({ status: 200, fields: ["content-type", "text/plain"] })).toBe(first);
    expect(read({ status: 201, fields: ["content-type", "text/plain"] })).not.toBe(first);
  });

  test("one that says what there is not, or more than its fields, is a protocol error", () => {
    const wrong: ((writer: FrameWriter) => void)[] = [
      (writer) => {
        writer.u16(600);
        writer.u32(0);
      },
      (writer) => {
        writer.u16(200);
        writer.u32(1);
        writer.u8(255);
        writer.text("");
      },
      (writer) => {
        writer.u16(200);
        writer.u32(0);
        writer.u8(0);
      },
    ];
    for (const write of wrong) {
      const writer = new FrameWriter();
      writer.begin(FrameType.response, 0, 1 as ExchangeId);
      const mark = writer.mark();
      write(writer);
      writer.patch(mark);
      writer.finish();
      const read = ({ payload }: Frame) => void new ResponseHeads().read(payload);
      expect(() => new FrameReader().push(writer.take(), read)).toThrow(FrameError);
    }
  });

  test("the cache of heads stays small where every head is another, or long", () => {
    const heads = new ResponseHeads();
    for (let i = 0; i < 5000; i++) {
      const writer = new FrameWriter();
      const head = { status: 200, fields: ["x-request-id", String(i)] };
      writeResponse(writer, 1 as ExchangeId, FrameType.response, head, null, true);
      new FrameReader().push(Buffer.from(writer.take()), ({ payload }) => {
        expect(heads.read(payload)).toEqual(head);
      });
      expect(heads.size).toBeLessThanOrEqual(256);
    }
    const before = heads.size;
    const writer = new FrameWriter();
    const long = { status: 200, fields: ["x-long", "v".repeat(1000)] };
    writeResponse(writer, 1 as ExchangeId, FrameType.response, long, null, true);
    new FrameReader().push(writer.take(), ({ payload }) => void heads.read(payload));
    expect(heads.size).toBe(before);
  });
});

describe("windows", () => {
  test("a sender that keeps to its credit never overruns the receiver, and is never stuck", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 100_000 }), { maxLength: 100 }), (wanted) => {
        const send = new SendWindow();
        const receive = new ReceiveWindow();
        let held = 0;
        for (const bytes of wanted) {
          const sent = Math.min(bytes, send.credit);
          send.spend(sent);
          receive.receive(sent);
          held += sent;
          expect(held).toBeLessThanOrEqual(WINDOW_BYTES);
          if (send.credit === 0 || bytes % 3 === 0) {
            const due = receive.consume(held);
            held = 0;
            if (due > 0) send.refill(due);
            // Half a window at a time, and all that was consumed.
            expect(due === 0 || due >= WINDOW_BYTES / 2).toBe(true);
            expect(send.credit).toBeGreaterThan(WINDOW_BYTES / 2);
          }
        }
      }),
    );
  });

  test("more than the credit is a protocol error", () => {
    const receive = new ReceiveWindow();
    receive.receive(WINDOW_BYTES);
    expect(() => receive.receive(1)).toThrow(FrameError);
  });

  test("credit that was never spent is a protocol error", () => {
    const send = new SendWindow();
    send.spend(10);
    expect(() => send.refill(11)).toThrow(FrameError);
  });
});

describe("a channel", () => {
  /** One end, what it writes, and what its owner is told. @param told of each frame */
  function open(told: (frame: Frame, channel: Channel) => void = () => {}) {
    const written: Buffer[] = [];
    const ends: (Error | null)[] = [];
    const scheduled: (() => void)[] = [];
    const socket = new Duplex({
      read: () => {},
      write: (chunk: Buffer, _encoding, done) => {
        written.push(Buffer.from(chunk));
        done();
      },
    });
    const owner = {
      frame: (frame: Frame) => told(frame, channel),
      closed: (error: Error | null) => ends.push(error),
    };
    const channel: Channel = new Channel(socket as Socket, owner, (flush) => scheduled.push(flush));
    const turn = () => {
      for (const flush of scheduled.splice(0)) flush();
    };
    return { socket, channel, written, ends, scheduled, turn };
  }
  const ID = 1 as ExchangeId;
  const frames = (...credits: number[]) => {
    const writer = new FrameWriter();
    for (const bytes of credits) writer.credit(ID, bytes);
    return Buffer.from(writer.take());
  };

  test("writes once what was made in one turn, and at once where that is much", () => {
    const { channel, written, scheduled, turn } = open();
    for (let round = 1; round <= 2; round++) {
      for (const bytes of [1, 2]) channel.writer.credit(ID, bytes);
      expect([scheduled.length, written.length]).toEqual([1, round - 1]);
      turn();
      expect(written.at(-1)).toEqual(frames(1, 2));
    }
    for (let i = 0; i < 6; i++) channel.writer.data(ID, new Uint8Array(65_536), false);
    expect(written.length).toBe(3);
    turn();
    expect(Buffer.concat(written.slice(2)).length).toBe(6 * (65_536 + FRAME_HEADER_BYTES));
  });

  test("writes what is complete before the rest of a turn that takes long", () => {
    const sent: number[] = [];
    const { socket, written } = open(({ payload }, channel) => {
      const milliseconds = payload.u32();
      for (const end = performance.now() + milliseconds; performance.now() < end; );
      channel.writer.credit(ID, milliseconds);
      channel.hasten();
      if (milliseconds > 0) sent.push(Buffer.concat(written).length);
    });
    socket.emit("data", frames(0, 2, 0, 2, 0));
    expect(sent).toEqual([frames(0, 2).length, frames(0, 2, 0, 2).length]);
  });

  test("keeps nothing of what is made when it has closed", () => {
    const { channel, written, ends, turn } = open();
    channel.writer.credit(ID, 1);
    channel.destroy();
    channel.destroy(new Error("later"));
    turn();
    for (let i = 0; i < 3; i++) channel.writer.credit(ID, 1);
    expect(channel.writer.length).toBe(0);
    expect([written, ends]).toEqual([[], [null]]);
  });

  test("ends behind what was made", async () => {
    const { socket, channel, written, ends } = open();
    channel.writer.credit(ID, 1);
    // The peer has read it, and closes as well.
    socket.once("finish", () => socket.push(null));
    await inTime("its end", 1000, channel.end());
    expect([written, ends]).toEqual([[frames(1)], [null]]);
    await inTime("another end", 1000, channel.end());
  });

  test("hands nothing on that comes behind what closes it", () => {
    const seen: number[] = [];
    const { socket } = open(({ payload }, channel) => {
      seen.push(payload.u32());
      channel.destroy();
    });
    socket.emit("data", frames(1, 2));
    expect(seen).toEqual([1]);
  });

  test("tells its owner whether it was closed in the middle of a frame", async () => {
    for (const [bytes, error] of [
      [frames(1), null],
      [frames(1).subarray(0, -1), new FrameError("the channel ended inside a frame")],
    ] as const) {
      const { socket, ends } = open();
      socket.emit("data", bytes);
      socket.destroy();
      await once(socket, "close");
      expect(ends).toEqual([error]);
    }
  });

  test("does not take for the peer's fault what its owner throws", () => {
    const { socket, ends } = open(() => {
      throw new TypeError("a fault of the owner's");
    });
    expect(() => socket.emit("data", frames(1))).toThrow("a fault of the owner's");
    expect(ends).toEqual([]);
  });
});
