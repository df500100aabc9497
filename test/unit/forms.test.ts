/** Forms, however they are cut into chunks, and whatever is in them. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
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
import { failureOf } from "../support/poll.ts";

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

  describe("has parts", () => {
    const text = (headers: string, content: string | Uint8Array = "content") =>
      Buffer.concat([
        Buffer.from(`--bb\r\n${headers}\r\n\r\n`),
        Buffer.from(content as string),
        Buffer.from("\r\n"),
      ]);
    const received = async (parts: readonly Buffer[], limits = LIMITS) => {
      const form = Buffer.concat([...parts, Buffer.from("--bb--\r\n")]);
      const { fields, files } = await receiveMultipart(bodyOf(form, [form.length]), TYPE, limits);
      const shown = files.map(({ name, filename, type, size }) => [name, filename, type, size]);
      await remove(files);
      return [[...fields], shown];
    };
    const DISPOSITION = "Content-Disposition: form-data;";
    const NO_FILE = text(
      `${DISPOSITION} name="f"; filename=""\r\nContent-Type: application/octet-stream`,
      "",
    );

    const cases: [string, Buffer, unknown][] = [
      [
        "a name as browsers escape it",
        text(`${DISPOSITION} name="a%22%0d%0A%zz"`),
        [[['a"\r\n%zz', "content"]], []],
      ],
      [
        "a file's names so, too, and without control characters",
        text(`${DISPOSITION} name="a%22"; filename="b%22%0d%0A\x9b.txt"`),
        [[], [['a"', 'b".txt', "text/plain", 7]]],
      ],
      [
        "names in UTF-8, without folders",
        text(`${DISPOSITION} name="日"; filename="C:\\\\日\\\\本.txt"`),
        [[], [["日", "本.txt", "text/plain", 7]]],
      ],
      [
        "an encoded name (RFC 5987), without folders",
        text(`${DISPOSITION} name="f"; filename="x"; filename*=UTF-8''..%2f%e2%82%ac%1b%7f.txt`),
        [[], [["f", "€.txt", "text/plain", 7]]],
      ],
      [
        "a type in any case, with parameters",
        text(`${DISPOSITION} name="f"; filename="x"\r\nContent-Type: Text/HTML; charset=x`),
        [[], [["f", "x", "text/html", 7]]],
      ],
      ["no file that was not chosen", NO_FILE, [[], []]],
      [
        "a file without a name",
        text(`${DISPOSITION} name="f"; filename=""\r\nContent-Type: application/octet-stream`),
        [[], [["f", "", "application/octet-stream", 7]]],
      ],
      [
        "an empty file",
        text(`${DISPOSITION} name="f"; filename="x"`, ""),
        [[], [["f", "x", "text/plain", 0]]],
      ],
      [
        "a field in its charset",
        text(`${DISPOSITION} name="a"\r\nContent-Type: text/plain; charset=iso-8859-1`, Buffer.from([0xe9])),
        [[["a", "é"]], []],
      ],
      [
        "no part that is no form-data",
        text('Content-Disposition: attachment; name="a"; filename="x"'),
        [[], []],
      ],
    ];
    for (const [what, part, expected] of cases) {
      test(what, async () => expect(await received([part])).toEqual(expected as never));
    }

    const refused: [string, number, Buffer][] = [
      ["a part of the form has no name", 400, text("Content-Disposition: form-data")],
      ["a part of the form has no name", 400, text(`${DISPOSITION} filename="x"`)],
      ["the header of a part is malformed, or has more", 400, text("Content-Disposition")],
      [
        "a field of the form has an unknown charset",
        415,
        text(`${DISPOSITION} name="a"\r\nContent-Type: text/plain; charset=klingon`),
      ],
      [
        "a field of the form has more than 1000 bytes",
        413,
        text(
          `${DISPOSITION} name="a"\r\nContent-Type: text/plain; charset=utf-16le`,
          Buffer.alloc(1002, "a\0"),
        ),
      ],
    ];
    for (const [reason, status, part] of refused) {
      test(`or is refused: ${reason} (${part.length})`, async () => {
        const error = await failureOf("a refusal", 5000, received([part]));
        expect([(error as HttpError).status, error.message]).toEqual([
          status,
          expect.stringContaining(reason),
        ]);
        expect(readdirSync(join(directory, "uploads"))).toEqual([]);
      });
    }

    test("of which those in which no file was chosen count as none, and are bounded all the same", async () => {
      const limits = { ...LIMITS, maxFiles: 1, maxFields: 2 };
      const chosen = text(`${DISPOSITION} name="f"; filename="x"`);
      const files = [[], [["f", "x", "text/plain", 7]]];
      expect(await received([NO_FILE, chosen, NO_FILE], limits)).toEqual(files);
      for (const [parts, reason] of [
        [[chosen, chosen], "the form has more than 1 files"],
        [[NO_FILE, NO_FILE, NO_FILE, NO_FILE], "the form has more than 2 fields"],
      ] as const) {
        const error = await failureOf("a refusal", 5000, received(parts, limits));
        expect([(error as HttpError).status, error.message]).toEqual([413, reason]);
      }
    });
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

describe("an uploaded file", () => {
  const receive = async () => {
    const form = multipart([file("f", "f", "content")], "bb");
    const { files } = await receiveMultipart(bodyOf(form, [form.length]), TYPE, LIMITS);
    return files[0] as UploadedFile;
  };

  test("that cannot be moved stays where it is, and leaves nothing of a copy on another file system", async () => {
    const elsewhere = mkdtempSync("/dev/shm/tercet-forms-");
    try {
      const one = await receive();
      const { path } = one;
      expect(statSync(elsewhere).dev).not.toBe(statSync(path).dev);
      mkdirSync(join(elsewhere, "folder"));
      const error = await failureOf("a refusal", 5000, one.moveTo(join(elsewhere, "folder")));
      expect((error as NodeJS.ErrnoException).code).toBe("EISDIR");
      expect(readdirSync(elsewhere)).toEqual(["folder"]);
      expect(one.path).toBe(path);
      await remove([one]);
      expect(existsSync(path)).toBe(false);
      expect((await failureOf("a refusal", 5000, one.moveTo(join(elsewhere, "x")))).message).toBe(
        'moveTo: the file "f" was removed',
      );
    } finally {
      rmSync(elsewhere, { recursive: true });
    }
  });

  test("that was moved stays there, and can be moved on", async () => {
    const one = await receive();
    await one.moveTo(join(directory, "moved"));
    await failureOf("a refusal", 5000, one.moveTo(join(directory, "no", "such")));
    await remove([one]);
    await one.moveTo(join(directory, "moved on"));
    expect(one.path).toBe(join(directory, "moved on"));
    expect(readFileSync(one.path, "utf8")).toBe("content");
    expect(existsSync(join(directory, "moved"))).toBe(false);
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

  test("has values with = in them, and its limit is one of bytes", () => {
    const read = (text: string) => [...parseUrlencoded(Buffer.from(text), type, LIMITS)];
    expect(read("a=b=c&d==")).toEqual([
      ["a", "b=c"],
      ["d", "="],
    ]);
    expect(read(`ä=${"ü".repeat(499)}`)).toHaveLength(1);
    expect(() => read(`ä=${"ü".repeat(500)}`)).toThrow(HttpError);
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
