/** The wire of tasks: what was written is read, however it is cut, and what breaks its rules is an error. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type Message,
  MessageError,
  MessageReader,
  MessageType,
  MessageWriter,
} from "../../src/tasks/messages.ts";

interface Said {
  readonly type: number;
  readonly call: number;
  readonly head: string;
  readonly parts: readonly Uint8Array[];
}

const parts = fc.array(
  fc.oneof(fc.uint8Array({ maxLength: 100 }), fc.constant(new Uint8Array(40_000).fill(7))),
  {
    maxLength: 4,
  },
);
const said = fc.record({
  type: fc.integer({ min: 1, max: MessageType.look }),
  call: fc.nat(Number.MAX_SAFE_INTEGER),
  head: fc.string({ unit: "binary-ascii", maxLength: 300 }),
  parts,
});

function bytesOf(messages: readonly Said[]): Buffer {
  const writer = new MessageWriter();
  for (const { type, call, head, parts } of messages) {
    writer.message(type as MessageType, call, (fields) => fields.latin1(head), parts);
  }
  return Buffer.concat(writer.take());
}

/** Reads the bytes in pieces of these sizes, again and again. */
function read(bytes: Buffer, sizes: readonly number[]): { messages: Said[]; reader: MessageReader } {
  const reader = new MessageReader();
  const messages: Said[] = [];
  const take = ({ type, call, head, parts }: Message) =>
    messages.push({ type, call, head: head.latin1(), parts: parts.map((part) => new Uint8Array(part)) });
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length] as number;
    reader.push(Buffer.from(bytes.subarray(at, at + size)), take);
    at += size;
  }
  return { messages, reader };
}

const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 70_000 })), {
  minLength: 1,
  maxLength: 5,
});

describe("messages", () => {
  test("are read as they were written, however they are cut", () => {
    fc.assert(
      fc.property(fc.array(said, { maxLength: 5 }), sizes, (messages, cuts) => {
        const { messages: arrived, reader } = read(bytesOf(messages), cuts);
        expect(arrived).toEqual(
          messages.map((one) => ({ ...one, parts: one.parts.map((part) => part.slice()) })),
        );
        expect(reader.between).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  test("a large part is not copied where it leaves, and arrives in memory of its own", () => {
    const part = new Uint8Array(100_000).fill(1);
    const writer = new MessageWriter();
    writer.message(MessageType.result, 1, null, [part]);
    expect(writer.take()).toContain(part);
    const bytes = bytesOf([{ type: MessageType.result, call: 1, head: "", parts: [part] }]);
    for (const size of [bytes.length, 1000]) {
      const reader = new MessageReader();
      const got: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += size) {
        reader.push(bytes.subarray(at, at + size), (message) => got.push(...message.parts));
      }
      expect(got[0]?.buffer.byteLength).toBe(100_000);
    }
  });

  test("cut short leave the reader inside of one", () => {
    const bytes = bytesOf([{ type: MessageType.task, call: 1, head: "head", parts: [new Uint8Array(50)] }]);
    for (let end = 1; end < bytes.length; end++) {
      expect(read(bytes.subarray(0, end), [7]).reader.between).toBe(false);
    }
  });

  test("random and damaged bytes are an error or messages, and nothing else", () => {
    const good = bytesOf([
      { type: MessageType.task, call: 1, head: "head", parts: [new Uint8Array(50)] },
      { type: MessageType.load, call: 0, head: "load", parts: [] },
    ]);
    const damaged = fc.tuple(fc.nat(good.length - 1), fc.nat(255)).map(([at, byte]) => {
      const copy = Buffer.from(good);
      copy[at] = byte;
      return copy;
    });
    fc.assert(
      fc.property(
        fc.oneof(fc.uint8Array({ maxLength: 200 }).map(Buffer.from), damaged),
        sizes,
        (bytes, cuts) => {
          try {
            read(bytes, cuts);
          } catch (error) {
            expect(error).toBeInstanceOf(MessageError);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  test("of an unknown type, or larger than any may be, break the wire at once", () => {
    const bytes = bytesOf([{ type: MessageType.load, call: 0, head: "", parts: [] }]);
    const unknown = Buffer.from(bytes);
    unknown[4] = 99;
    expect(() => read(unknown, [100])).toThrow(new MessageError("there is no message of type 99"));
    const large = Buffer.from(bytes);
    large.writeUInt32LE(0xffff_ffff, 0);
    expect(() => read(large, [3])).toThrow(MessageError);
    const parts = bytesOf([{ type: MessageType.load, call: 0, head: "", parts: [new Uint8Array(1)] }]);
    parts.writeUInt32LE(0xffff_ffff, parts.length - 5);
    expect(() => read(parts, [100])).toThrow(new MessageError("4294967295 bytes of parts"));
  });
});
