/** Forms, however they are cut into chunks, and whatever is in them. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import type { Exchange, RequestBody } from "../../src/exchange.ts";
import { background } from "../../src/handler/background.ts";
import { receiveMultipart } from "../../src/handler/multipart.ts";
import { HttpRequest } from "../../src/handler/request.ts";
import { UploadedFile, uploadDirectory } from "../../src/handler/uploads.ts";
import { mediaTypeOf, parseUrlencoded } from "../../src/http/content.ts";
import { HttpError } from "../../src/http/http-error.ts";
import { field, file, multipart } from "../support/multipart.ts";

setDefaultTimeout(30_000);

const directory = mkdtempSync(join(tmpdir(), "tercet-forms-"));
uploadDirectory.use(join(directory, "uploads"), () => {});
afterAll(() => rmSync(directory, { recursive: true }));

const LIMITS = { maxFiles: 10, maxFileBytes: 10_000_000, maxFields: 10, maxFieldBytes: 1000 };
const TYPE = "multipart/form-data; boundary=bb";

/** The bytes in pieces of the given lengths, over and over. */
function bodyOf(bytes: Uint8Array, lengths: readonly number[], onRead = () => {}): RequestBody {
  let at = 0;
  let turn = 0;
  return {
    length: undefined,
    trailers: [],
    async read() {
      onRead();
      if (at >= bytes.length) return null;
      const length = lengths[turn++ % lengths.length] as number;
      const chunk = bytes.slice(at, at + length);
      at += length;
      return chunk;
    },
    readAll: () => Promise.reject(new Error("nobody reads it so")),
    cancel() {},
  };
}

const remove = (files: readonly UploadedFile[]) => Promise.all(files.map(UploadedFile.remove));

describe("multipart", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 });
  // Content that looks as much like a boundary as it can.
  const content = fc
    .array(fc.constantFrom("\r", "\n", "-", "b", "\r\n", "\r\n--", "\r\n--b", "x", "\0"), { maxLength: 30 })
    .map((pieces) => pieces.join("").replaceAll("--bb", "--b."))
    // The first boundary is not preceded by a line break of the content.
    .map((text) => (text.startsWith("--bb") ? `x${text}` : text));

  test("is the same however it is cut", async () => {
    await fc.assert(
      fc.asyncProperty(content, content, lengths, async (first, second, cut) => {
        const form = multipart(
          [file("f", "日.txt", first), field("t", second), file("g", "g", second)],
          "bb",
        );
        const { fields, files } = await receiveMultipart(bodyOf(form, cut), TYPE, LIMITS);
        expect([...fields]).toEqual([["t", second]]);
        expect(files.map(({ name, filename, size }) => [name, filename, size])).toEqual([
          ["f", "日.txt", Buffer.byteLength(first)],
          ["g", "g", Buffer.byteLength(second)],
        ]);
        expect(files.map(({ path }) => readFileSync(path, "utf8"))).toEqual([first, second]);
        await remove(files);
      }),
      { numRuns: 200 },
    );
  });

  test("of a response that is over before it has been taken in leaves no file", async () => {
    const form = multipart([file("f", "f", "first")], "bb");
    const exchange = { fields: ["content-type", TYPE], body: bodyOf(form, [7]), onOver: null };
    const over = exchange as unknown as Exchange;
    const parsed = new HttpRequest(over, LIMITS).form();
    over.onOver?.();
    expect((await parsed).files).toHaveLength(1);
    await background.settled();
    expect(readdirSync(join(directory, "uploads"))).toEqual([]);
  });

  test("that breaks off anywhere is a 400, and leaves no file", async () => {
    const form = multipart([file("f", "f", "first"), field("t", "text"), file("g", "g", "second")], "bb");
    // The last line's end is not the form's.
    for (let length = 0; length < form.length - "\r\n".length; length++) {
      const outcome = receiveMultipart(bodyOf(form.subarray(0, length), [7]), TYPE, LIMITS);
      const error = await outcome.then(
        () => null,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(HttpError);
      expect((error as HttpError).status).toBe(400);
      expect(readdirSync(join(directory, "uploads"))).toEqual([]);
    }
  });

  test("is no more than that, whatever bytes come", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), lengths, async (noise, cut) => {
        const bytes = Buffer.concat([Buffer.from("--bb\r\n"), noise, Buffer.from("\r\n--bb--")]);
        await receiveMultipart(bodyOf(bytes, cut), TYPE, LIMITS).then(
          ({ files }) => remove(files),
          (error: unknown) => expect((error as HttpError).status).toBe(400),
        );
        expect(readdirSync(join(directory, "uploads"))).toEqual([]);
      }),
      { numRuns: 200 },
    );
  });

  test("asks for no more than the disk has taken", async () => {
    const size = 4_000_000;
    const form = multipart([file("f", "f", new Uint8Array(size))], "bb");
    let ahead = 0;
    let reads = 0;
    const onRead = () => {
      reads++;
      const name = readdirSync(join(directory, "uploads"))[0];
      const written = name === undefined ? 0 : Bun.file(join(directory, "uploads", name)).size;
      ahead = Math.max(ahead, (reads - 1) * 65_536 - written);
    };
    const { files } = await receiveMultipart(bodyOf(form, [65_536], onRead), TYPE, LIMITS);
    expect(files[0]?.size).toBe(size);
    // The chunk that is asked for, one in the stream's buffer, and one being written.
    expect(ahead).toBeLessThan(5 * 65_536);
    await remove(files);
  });
});

describe("urlencoded", () => {
  const type = mediaTypeOf("application/x-www-form-urlencoded");

  test("is what URLSearchParams writes", () => {
    const text = fc.string({ unit: "grapheme", maxLength: 20 });
    fc.assert(
      fc.property(fc.array(fc.tuple(text, text), { maxLength: 10 }), (pairs) => {
        const fields = parseUrlencoded(Buffer.from(String(new URLSearchParams(pairs))), type, LIMITS);
        expect([...fields]).toEqual(pairs);
      }),
    );
  });

  test("is an HttpError or fields, whatever bytes come", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          parseUrlencoded(bytes, type, LIMITS);
        } catch (error) {
          expect(error).toBeInstanceOf(HttpError);
        }
      }),
    );
  });
});
