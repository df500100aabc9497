/** RFC 7578, multipart/form-data, by section; each test over every protocol. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { ALL_CLIENTS } from "../support/clients.ts";
import { BOUNDARY, field, file, formRequest, multipart, openMultipart } from "../support/multipart.ts";
import { startFixture } from "../support/server.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

const shared = sharedServer(() => startFixture("requests.ts"));

interface Answer {
  readonly fields: [string, string][];
  readonly files: { name: string; filename: string; type: string; size: number; sha256: string }[];
}

const sha256 = (content: string | Uint8Array) => new Bun.CryptoHasher("sha256").update(content).digest("hex");

for (const kind of ALL_CLIENTS) {
  const send = async (body: string | Uint8Array, type?: string) => {
    await using client = await kind.open(shared.server);
    const response = await client.request(formRequest("/form", body, type));
    return { status: response.status, headers: response.headers, text: await response.body.text() };
  };
  const accepted = async (body: string | Uint8Array, type?: string): Promise<Answer> => {
    const { status, text } = await send(body, type);
    expect(`${status} ${text}`).toStartWith("200 ");
    return JSON.parse(text);
  };
  const refused = async (status: number, reason: string, body: string | Uint8Array, type?: string) => {
    const answer = await send(body, type);
    expect(answer.text).toContain(reason);
    expect(answer.status).toBe(status);
    expect(answer.headers["content-type"]).toStartWith("text/plain");
    expect(answer.text.trim()).not.toContain("\n");
  };

  describe(`RFC 7578, ${kind.name}`, () => {
    test("a part's boundary is not in its content, whatever else is (§4.1)", async () => {
      const content = Buffer.from(`\r\n--${BOUNDARY.slice(0, -1)}\r\n--\r\n\r\r\n-${"\r\n--".repeat(50)}`);
      const { files } = await accepted(multipart([file("f", "f", content)]));
      expect(files).toEqual([
        { name: "f", filename: "f", type: "text/plain", size: content.length, sha256: sha256(content) },
      ]);
    });

    test("a quoted boundary, with what only a quoted one may have (§4.1, RFC 2046 §5.1.1)", async () => {
      const boundary = "a b;c=d'()+_,-./:?";
      const type = `Multipart/Form-Data; charset=utf-8; BOUNDARY="${boundary}"`;
      expect((await accepted(multipart([field("a", "1")], boundary), type)).fields).toEqual([["a", "1"]]);
    });

    test("preamble and epilogue are ignored (§4.1, RFC 2046 §5.1.1)", async () => {
      const form = multipart([field("a", "1")]);
      const body = Buffer.concat([
        Buffer.from("a preamble\r\n"),
        form,
        Buffer.from(`an epilogue\r\n--${BOUNDARY}\r\n`),
      ]);
      expect((await accepted(body)).fields).toEqual([["a", "1"]]);
    });

    test("a name may have quotes and line breaks, as browsers write them (§4.2)", async () => {
      const { fields } = await accepted(multipart([field("a%22b%0D%0Ac %41", "1")]));
      expect(fields).toEqual([['a"b\r\nc %41', "1"]]);
    });

    test("a filename is used without its folders, of whatever system (§4.2)", async () => {
      const names = [
        "../../etc/passwd",
        "/abs/x.txt",
        "C:\\dir\\x.txt",
        "..",
        "a/..",
        "nul\tin%0Ait",
        "plain.tar.gz",
      ];
      const { files } = await accepted(multipart(names.map((name) => file("f", name, "x"))));
      expect(files.map(({ filename }) => filename)).toEqual([
        "passwd",
        "x.txt",
        "x.txt",
        "",
        "",
        "nulinit",
        "plain.tar.gz",
      ]);
    });

    test("filename* is not to be sent, and is understood where it is (§4.2, RFC 8187)", async () => {
      const disposition = `form-data; name="f"; filename="plain.txt"; filename*=UTF-8''..%2F%e2%82%ac.txt`;
      const { files } = await accepted(multipart([{ disposition, content: "x" }]));
      expect(files[0]?.filename).toBe("€.txt");
    });

    test("several files of one field are parts of one name, in their order (§4.3)", async () => {
      const parts = [file("f", "a", "1"), field("t", "x"), file("f", "b", "2"), file("g", "c", "")];
      const { files } = await accepted(multipart(parts));
      expect(files.map(({ name, filename, size }) => [name, filename, size])).toEqual([
        ["f", "a", 1],
        ["f", "b", 1],
        ["g", "c", 0],
      ]);
    });

    test("an input in which no file was chosen gives none (§4.3)", async () => {
      const { files } = await accepted(multipart([file("f", "", "", "application/octet-stream")]));
      expect(files).toEqual([]);
    });

    test("a file's type is what its part says, text/plain where it says nothing (§4.4)", async () => {
      const untyped = { disposition: 'form-data; name="f"; filename="x"', content: "x" };
      const { files } = await accepted(multipart([file("f", "a", "x", "Image/PNG; q=1"), untyped]));
      expect(files.map(({ type }) => type)).toEqual(["image/png", "text/plain"]);
    });

    test("a field's charset is UTF-8, or what its part says (§4.5)", async () => {
      const latin1 = {
        ...field("b", ""),
        type: "text/plain; charset=iso-8859-1",
        content: Buffer.from([0xe9]),
      };
      const { fields } = await accepted(multipart([field("ä", "€"), latin1]));
      expect(fields).toEqual([
        ["ä", "€"],
        ["b", "é"],
      ]);
    });

    test("a charset that nobody knows: 415 (§4.5)", async () => {
      const part = { ...field("b", "x"), type: "text/plain; charset=klingon" };
      await refused(415, "unknown charset", multipart([part]));
    });

    test("names and filenames are UTF-8 (§5.1)", async () => {
      const { files } = await accepted(multipart([file("日本", "日本語.txt", "x")]));
      expect(files[0]).toMatchObject({ name: "日本", filename: "日本語.txt" });
    });

    test("fields of one name keep their order (§5.2)", async () => {
      const { fields } = await accepted(multipart([field("a", "1"), field("b", "2"), field("a", "3")]));
      expect(fields).toEqual([
        ["a", "1"],
        ["b", "2"],
        ["a", "3"],
      ]);
    });

    test("a form without parts has no fields", async () => {
      expect(await accepted(multipart([]))).toMatchObject({ fields: [], files: [] });
    });

    test("what is broken is 400, with a line of reason", async () => {
      const form = multipart([field("a", "1"), file("f", "f", "content")]);
      await refused(400, "no boundary", form, "multipart/form-data");
      await refused(400, "form", "");
      await refused(400, "breaks off before its last boundary", "no form at all");
      await refused(400, "breaks off before its last boundary", openMultipart([file("f", "f", "x")]));
      await refused(400, "breaks off before its last boundary", form.subarray(0, -20));
      await refused(400, "broken", form.subarray(0, 60));
      await refused(400, "has no name", multipart([{ disposition: "form-data", content: "x" }]));
      await refused(
        400,
        "has no name",
        multipart([{ disposition: 'form-data; filename="x"', content: "x" }]),
      );
      const headers = ["no colon", "a b: c", "x:\0", `long: ${"x".repeat(20_000)}`];
      for (const line of headers) {
        const body = `--${BOUNDARY}\r\n${line}\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--${BOUNDARY}--\r\n`;
        await refused(400, "the header of a part is malformed", body);
      }
    });
  });
}
