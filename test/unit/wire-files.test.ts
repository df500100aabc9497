/** The frame FILE: whatever goes in comes out, and garbage is a clean protocol error. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { ExchangeId, FileBody, ResponseHead } from "../../src/exchange.ts";
import { readFile, writeFile } from "../../src/wire/files.ts";
import { FrameError, FrameReader, FrameType, FrameWriter, Payload } from "../../src/wire/frames.ts";
import { ResponseHeads } from "../../src/wire/heads.ts";

const ID = 7 as ExchangeId;
const HEAD: ResponseHead = { status: 206, fields: ["content-type", "text/plain", "x-own", "value"] };
const size = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const piece = fc.oneof(
  fc.record({ offset: size, length: size }),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
);
const body: fc.Arbitrary<FileBody> = fc.record({
  path: fc.string({ unit: "grapheme", maxLength: 300 }).map((path) => path.toWellFormed()),
  identity: fc.string({ unit: "grapheme-ascii", maxLength: 60 }),
  pieces: fc.array(piece, { maxLength: 20 }),
});

function written(file: FileBody): Buffer {
  const writer = new FrameWriter();
  writeFile(writer, ID, HEAD, file);
  return Buffer.from(writer.take());
}

test("what is written is read, however it is cut", () => {
  fc.assert(
    fc.property(body, fc.nat(), (file, cut) => {
      const bytes = written(file);
      const at = cut % bytes.length;
      const reader = new FrameReader();
      let frames = 0;
      for (const chunk of [bytes.subarray(0, at), bytes.subarray(at)]) {
        reader.push(chunk, ({ type, id, end, payload }) => {
          frames++;
          expect([type, id, end]).toEqual([FrameType.file, ID, true]);
          expect(new ResponseHeads().read(payload)).toEqual(HEAD);
          expect(readFile(payload)).toEqual(file);
        });
      }
      expect(frames).toBe(1);
    }),
  );
});

test("the pieces outlive the read that brought them", () => {
  const bytes = written({ path: "/a", identity: "1:2", pieces: [Buffer.from("kept")] });
  let file: FileBody | null = null;
  new FrameReader().push(bytes, ({ payload }) => {
    new ResponseHeads().read(payload);
    file = readFile(payload);
  });
  bytes.fill(0);
  expect(file as FileBody | null).toEqual({ path: "/a", identity: "1:2", pieces: [Buffer.from("kept")] });
});

test("a payload that was changed anywhere is read, or is a FrameError", () => {
  fc.assert(
    fc.property(body, fc.nat(), fc.nat(255), (file, at, value) => {
      const bytes = written(file);
      const place = 10 + (at % (bytes.length - 10));
      bytes[place] = value;
      try {
        new FrameReader().push(bytes, ({ payload }) => {
          new ResponseHeads().read(payload);
          readFile(payload);
        });
      } catch (error) {
        expect(error).toBeInstanceOf(FrameError);
      }
    }),
  );
});

test("a piece of a kind or at a place that there is not, and bytes behind the last, are FrameErrors", () => {
  const whole = (write: (writer: FrameWriter) => void) => () => {
    const writer = new FrameWriter();
    writer.text("/a");
    writer.text("1:2");
    write(writer);
    const bytes = writer.take();
    return readFile(new Payload(bytes, 0, bytes.length));
  };
  const piece = (kind: number, ...numbers: number[]) =>
    whole((writer) => {
      writer.u32(1);
      writer.u8(kind);
      for (const number of numbers) writer.f64(number);
    });
  expect(piece(0, 1, 2)().pieces).toEqual([{ offset: 1, length: 2 }]);
  const wrong = [piece(2), piece(0, -1, 2), piece(0, 1, 0.5), piece(0, 1, 2 ** 53), piece(0, 1, 2, 3)];
  for (const read of wrong) expect(read).toThrow(FrameError);
});
