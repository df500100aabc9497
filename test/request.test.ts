/** The request as a handler reads it: query, forms, JSON, text; limits, and what becomes of uploaded files. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { connectAsync } from "@currentspace/http3";
import type { Client } from "./support/client.ts";
import { ALL_CLIENTS, type ClientKind, HTTP1, HTTP2, QUICHE } from "./support/clients.ts";
import {
  BOUNDARY,
  field,
  file,
  formRequest,
  MULTIPART,
  multipart,
  openMultipart,
} from "./support/multipart.ts";
import { until } from "./support/poll.ts";
import { RawConnection } from "./support/raw-connection.ts";
import { MODE, runFixture, Scratch, startCli, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { SmallDisk } from "./support/small-disk.ts";
import { readStats, untilIdle } from "./support/stats.ts";

setDefaultTimeout(60_000);

const scratch = await Scratch.make();
const uploads = scratch.file("uploads");
mkdirSync(uploads);

const upload = { directory: uploads, maxFiles: 3, maxFileBytes: 50_000, maxFields: 4, maxFieldBytes: 1000 };
const shared = sharedServer(() =>
  startFixture("requests.ts", { scratch, options: { upload, maxBodyBytes: 200_000 } }),
);

const H3_REQUEST_CANCELLED = 0x10c;
const URLENCODED = "application/x-www-form-urlencoded";
const JSON_TYPE = "application/json";

/** Every file in the folders of the workers. */
const stored = () => readdirSync(uploads, { recursive: true }).filter((name) => String(name).includes("/"));
const untilNoneStored = () => until("no uploaded file left", 5_000, () => stored().length === 0);
/** What was logged of failed handlers. */
const failures = () => shared.server.stderr.match(/error in .*/g) ?? [];
/** Waits for what a handler that failed has said: the answer may be here before it. */
const untilFailures = (count: number) =>
  until(`${count} lines in the log`, 5_000, () => failures().length === count);

interface Facts {
  readonly get: Record<string, string>;
  readonly query: [string, string][];
  readonly host: string;
}

async function answerOf(client: Client, path: string, body: string | Uint8Array, type: string) {
  const response = await client.request(formRequest(path, body, type));
  return { status: response.status, text: await response.body.text() };
}

for (const kind of ALL_CLIENTS) {
  describe(`the request, ${kind.name}`, () => {
    const ask = async (path: string, headers: Record<string, string> = {}) => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path, headers });
      const facts = await response.body.json<Facts>();
      return { ...facts, status: response.status };
    };
    const send = async (path: string, body: string | Uint8Array, type: string) => {
      await using client = await kind.open(shared.server);
      return await answerOf(client, path, body, type);
    };

    test("tells the query: the last value of a name, and all of them in order", async () => {
      const { get, query } = await ask("/facts?a=1&b=x+y%20z&a=2&c&d[]=3&%C3%BC=%E2%82%AC&__proto__=p");
      expect(JSON.stringify(get)).toBe('{"a":"2","b":"x y z","c":"","d[]":"3","ü":"€","__proto__":"p"}');
      expect(query).toContainEqual(["a", "1"]);
    });

    test("takes a query that is not percent-encoded UTF-8 as it is", async () => {
      const { status, get } = await ask("/facts?%zz=%&a=%ff%fe&b=%e2%82");
      expect({ status, get }).toEqual({ status: 200, get: { "%zz": "%", a: "\ufffd\ufffd", b: "\ufffd" } });
      expect((await ask("/facts")).get).toEqual({});
    });

    test("a path that is not percent-encoded UTF-8 reaches the handler", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/%zz%ff" });
      expect(response.status).toBe(404);
    });

    test("tells protocol, address, scheme and host, and believes no proxy", async () => {
      const facts = await ask("/facts", {
        "x-forwarded-for": "192.0.2.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "example.org",
        forwarded: "for=192.0.2.1;host=example.org",
      });
      expect(facts).toMatchObject({
        protocol: kind.protocol,
        remoteAddress: "127.0.0.1",
        scheme: "https",
        server: { remote_addr: "127.0.0.1" },
        prototype: null,
      });
      expect(facts.host).toMatch(new RegExp(`:${shared.server.port}$`));
    });

    test("reads an urlencoded form", async () => {
      const { status, text } = await send("/form", "a=1&b=x+y%26&&a=2&c", `${URLENCODED}; charset=UTF-8`);
      expect(status).toBe(200);
      expect(JSON.parse(text)).toEqual({
        post: { a: "2", b: "x y&", c: "" },
        fields: [
          ["a", "1"],
          ["b", "x y&"],
          ["a", "2"],
          ["c", ""],
        ],
        files: [],
        same: true,
      });
      expect(await send("/form", "", URLENCODED)).toMatchObject({ status: 200 });
    });

    test("post and files say to read the form first", async () => {
      const { text } = await send("/before-form", "a=1", URLENCODED);
      expect(JSON.parse(text)).toEqual([
        'TypeError: request.post is there after "await request.form()", which reads the body',
        'TypeError: request.files is there after "await request.form()", which reads the body',
      ]);
    });

    test("a form is read once; its content is there beside an urlencoded one alone", async () => {
      expect(JSON.parse((await send("/twice", "a=1", URLENCODED)).text)).toEqual({
        same: true,
        content: "a=1",
      });
      const { text } = await send("/twice", multipart([field("a", "1")]), MULTIPART);
      expect(JSON.parse(text)).toEqual({ same: true, content: "TypeError: the body was read by form()" });
    });

    test("reads JSON of any type that is JSON", async () => {
      for (const type of [JSON_TYPE, "application/problem+json; charset=utf-8", "Application/JSON"]) {
        const { status, text } = await send("/json", '\ufeff{"a":["€"],"__proto__":1}', type);
        expect(`${status} ${text}`).toBe('200 {"value":{"a":["€"],"__proto__":1}}');
      }
    });

    test("reads text in its charset", async () => {
      const texts: [string, Uint8Array, string][] = [
        ["text/plain", Buffer.from("€"), "€"],
        ["text/plain; charset=ISO-8859-1", Buffer.from([0xe9]), "é"],
        ["text/plain; charset=shift_jis", Buffer.from([0x93, 0xfa]), "日"],
        ["text/plain", Buffer.from([0x61, 0xff]), "a\ufffd"],
        ["no media type", Buffer.from("x"), "x"],
      ];
      for (const [type, bytes, expected] of texts) {
        expect(JSON.parse((await send("/text", bytes, type)).text)).toEqual({ text: expected });
      }
    });

    const refusals: [number, string, string, string, string | Uint8Array][] = [
      [400, "the body is not JSON", "/json", JSON_TYPE, '{"secret": tru}'],
      [400, "there is no JSON", "/json", JSON_TYPE, " "],
      [400, "the body is not UTF-8", "/json", JSON_TYPE, Buffer.from([0x22, 0xff, 0x22])],
      [415, "the charset must be UTF-8", "/json", `${JSON_TYPE}; charset=utf-16`, "{}"],
      [415, "the content-type must be application/json", "/json", URLENCODED, "{}"],
      [415, "the content-type must be application/json", "/json", "text/json+x", "{}"],
      [415, "a charset that is not known", "/text", "text/plain; charset=klingon", "x"],
      [415, "the content-type must be application/x-www-form", "/form", JSON_TYPE, "{}"],
      [415, "the content-type must be application/x-www-form", "/form", "multipart/mixed; boundary=x", "x"],
      [415, "the charset must be UTF-8", "/form", `${URLENCODED}; charset=latin1`, "a=1"],
      [400, "not percent-encoded UTF-8", "/form", URLENCODED, "a=%zz"],
      [400, "not percent-encoded UTF-8", "/form", URLENCODED, "%ff=1"],
      [400, "the body is not UTF-8", "/form", URLENCODED, Buffer.from([0x61, 0x3d, 0xff])],
      [413, "more than 4 fields", "/form", URLENCODED, "a&b&c&d&e"],
      [413, "a field of the form has more than 1000 bytes", "/form", URLENCODED, `a=${"x".repeat(1000)}`],
      [
        413,
        "more than 4 fields",
        "/form",
        MULTIPART,
        multipart(["a", "b", "c", "d", "e"].map((name) => field(name, "1"))),
      ],
      [
        413,
        "a field of the form has more than 1000 bytes",
        "/form",
        MULTIPART,
        multipart([field("a", "x".repeat(1000))]),
      ],
      [
        413,
        "more than 3 files",
        "/form",
        MULTIPART,
        multipart(["a", "b", "c", "d"].map((name) => file(name, name, "1"))),
      ],
      [
        413,
        "a file of the form has more than 50000 bytes",
        "/form",
        MULTIPART,
        multipart([file("kept", "a", "1"), file("a", "a", "x".repeat(50_001))]),
      ],
    ];
    test("what cannot be read is refused with a line of reason, and leaves no file", async () => {
      await using client = await kind.open(shared.server);
      const failed = failures().length;
      for (const [status, reason, path, type, body] of refusals) {
        const answer = await answerOf(client, path, body, type);
        expect(`${answer.status} ${answer.text}`).toMatch(
          new RegExp(`^${status} ${status} [^\n]*${reason}[^\n]*\n$`),
        );
        expect(answer.text).not.toContain("secret");
      }
      await untilNoneStored();
      // What a client does wrong is no failure of the handler.
      expect(failures().length).toBe(failed);
    });

    test("what is just as large as its limit is taken", async () => {
      const parts = [field("abcd", "x".repeat(996)), field("b", ""), field("c", ""), field("d", "")];
      const files = [file("e", "e", "x".repeat(50_000)), file("f", "f", ""), file("g", "g", "1")];
      const { status } = await send("/form", multipart([...parts, ...files]), MULTIPART);
      expect(status).toBe(200);
      expect((await send("/form", `a=${"x".repeat(999)}&b&c&d`, URLENCODED)).status).toBe(200);
    });

    test("an HttpError is the answer; a 5xx is logged, too", async () => {
      await using client = await kind.open(shared.server);
      // Without a body: quiche drops an answer that comes before it has sent the end of one.
      const answerWith = async (status: number) => {
        const response = await client.request({ path: `/http-error?status=${status}` });
        return { status: response.status, text: await response.body.text() };
      };
      const failed = failures().length;
      expect(await answerWith(409)).toEqual({ status: 409, text: "409 Conflict: said on purpose\n" });
      expect(failures().length).toBe(failed);
      expect((await answerWith(503)).status).toBe(503);
      await untilFailures(failed + 1);
      expect((await answerWith(200)).status).toBe(500);
      await untilFailures(failed + 2);
    });

    test("files are private, and are gone when the response is over and the handler is done", async () => {
      await using client = await kind.open(shared.server);
      const form = multipart([file("f", "f", "first"), file("g", "g", "second")]);
      const failed = failures().length;
      for (const path of ["/form", "/no-promise", "/fail-after-form", "/short-after-form"]) {
        const { status } = await answerOf(client, path, form, MULTIPART);
        expect(status).toBe(path.endsWith("-after-form") ? 500 : 200);
        const paths = await (await client.request({ path: "/paths" })).body.json<string[]>();
        expect(paths.length).toBe(2);
        await until("the files gone", 5_000, () => !paths.some((one) => existsSync(one)));
        expect(statSync(dirname(paths[0] as string)).mode & 0o777).toBe(0o700);
      }
      await untilFailures(failed + 2);
      expect((await answerOf(client, "/after-response", form, MULTIPART)).status).toBe(200);
      const [first = ""] = await (await client.request({ path: "/paths" })).body.json<string[]>();
      expect(readFileSync(first, "utf8")).toBe("first");
      expect(statSync(first).mode & 0o777).toBe(0o600);
      await client.request({ path: "/release" });
      await shared.server.prints("after the response: first");
      await untilNoneStored();
    });

    test("a file that is moved stays, and takes the place of what was there", async () => {
      const target = scratch.file(`moved ${kind.name.replaceAll("/", " ")}`);
      writeFileSync(target, "what was there before");
      const { text } = await send(
        `/move?to=${encodeURIComponent(target)}`,
        multipart([file("f", "f", "kept"), file("g", "g", "not kept")]),
        MULTIPART,
      );
      expect(JSON.parse(text)).toEqual({ path: target });
      await untilNoneStored();
      expect(readFileSync(target, "utf8")).toBe("kept");
    });

    test("a file that cannot be moved is an error of the system's, and goes", async () => {
      const failed = failures().length;
      const { status } = await send(
        `/move?to=${encodeURIComponent(scratch.file("no/such/folder"))}`,
        multipart([file("f", "f", "lost")]),
        MULTIPART,
      );
      expect(status).toBe(500);
      await untilFailures(failed + 1);
      expect(failures().at(-1)).toContain("ENOENT");
      await untilNoneStored();
    });
  });
}

/** A form of a whole file, and one that never ends. */
const BEGUN = Buffer.concat([
  openMultipart([file("whole", "whole", "a whole file")]),
  Buffer.from(`--${BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n`),
  Buffer.alloc(20_000),
]);

async function* endless(): AsyncGenerator<Uint8Array> {
  yield BEGUN;
  await new Promise(() => {});
}

/** Begins to send a form. @returns what resets its stream; the connection on HTTP/1.1 */
async function beginForm(kind: ClientKind): Promise<() => Promise<void>> {
  if (kind !== QUICHE) {
    const client = await kind.open(shared.server);
    const outcome = client.request({ ...formRequest("/form", ""), body: endless() }).catch(() => null);
    return async () => {
      await client.close();
      await outcome;
    };
  }
  // The client of the other tests resets no upload.
  const session = await connectAsync(`https://127.0.0.1:${shared.server.port}`, {
    rejectUnauthorized: false,
    servername: "localhost",
    runtimeMode: "portable",
  });
  const head = { ":method": "POST", ":scheme": "https", ":authority": "localhost", ":path": "/form" };
  const stream = await session.requestAsync({ ...head, "content-type": MULTIPART }, { endStream: false });
  stream.on("error", () => {});
  stream.write(BEGUN);
  return async () => {
    stream.close(H3_REQUEST_CANCELLED);
    await session.close();
  };
}

for (const kind of [HTTP1, HTTP2, QUICHE]) {
  test(`a client that leaves during an upload leaves no file and no line in the log, ${kind.name}`, async () => {
    await using observer = await HTTP1.open(shared.server);
    const before = shared.server.stderr;
    const leave = await beginForm(kind);
    await until("the files", 5_000, () => stored().length === 2);
    await leave();
    await untilNoneStored();
    await untilIdle(observer);
    expect(shared.server.stderr).toBe(before);
  });
}

test("a body over maxBodyBytes that was not declared is a 413, and leaves no file", async () => {
  await using client = await HTTP1.open(shared.server);
  const before = shared.server.stderr;
  const body = (async function* () {
    yield multipart([file("f", "f", "whole")]);
    // What follows the last boundary is not the form's, and counts all the same.
    for (let i = 0; i < 5; i++) yield Buffer.alloc(50_000);
  })();
  const { status } = await client.request({ ...formRequest("/form", ""), body });
  expect(status).toBe(413);
  await untilNoneStored();
  expect(shared.server.stderr).toBe(before);
});

test("a file can be moved to another file system", async () => {
  await using client = await HTTP1.open(shared.server);
  const target = `/dev/shm/tercet-test-${crypto.randomUUID()}`;
  expect(statSync("/dev/shm").dev).not.toBe(statSync(uploads).dev);
  try {
    const form = multipart([file("f", "f", "far away")]);
    const { status } = await answerOf(client, `/move?to=${target}`, form, MULTIPART);
    expect(status).toBe(200);
    expect(readFileSync(target, "utf8")).toBe("far away");
    expect(statSync(target).mode & 0o777).toBe(0o600);
    await untilNoneStored();
  } finally {
    rmSync(target, { force: true });
  }
});

if (MODE === "process") {
  test("a worker that is killed during an upload leaves no file", async () => {
    await using client = await HTTP1.open(shared.server);
    const controller = new AbortController();
    const outcome = client
      .request({ ...formRequest("/form", ""), body: endless(), signal: controller.signal })
      .then(({ status }) => status, String);
    await until("the files", 5_000, () => stored().length === 2);
    await using other = await HTTP1.open(shared.server);
    const pid = (await readStats(other)).workers[0]?.pid as number;
    process.kill(pid, "SIGKILL");
    expect(await outcome).toBe(502);
    controller.abort();
    await until("the worker's folder gone", 5_000, () => readdirSync(uploads).length === 0);
    const { status } = await answerOf(other, "/form", multipart([file("f", "f", "again")]), MULTIPART);
    expect(status).toBe(200);
  });
}

test("trailers are there when the body was read", async () => {
  using raw = await RawConnection.open(shared.server.port);
  raw.send(
    `POST /trailers HTTP/1.1\r\nhost: localhost\r\ncontent-type: ${URLENCODED}\r\ntransfer-encoding: chunked\r\n\r\n` +
      "3\r\na=1\r\n0\r\nX-Sum: abc\r\n\r\n",
  );
  expect(await raw.untilReceived(/after":.*\}\n?/)).toContain('{"before":{},"after":{"x-sum":"abc"}}');
});

describe("a disk that fails", () => {
  test("is a 500, with its reason in the log alone; the worker goes on, and no file is left", async () => {
    const own = await Scratch.make();
    const full = own.file("full");
    mkdirSync(full);
    await using server = await startFixture("requests.ts", {
      scratch: own,
      options: { upload: { directory: full } },
    });
    await using client = await HTTP1.open(server);
    const pid = (await readStats(client)).workers[0]?.pid;
    const small = multipart([file("a", "a", "small")]);
    const large = multipart([file("a", "a", "small"), file("b", "b", "x".repeat(300_000))]);
    // A disk of some pages; who may not mount one puts a file where the folder was.
    using disk = SmallDisk.mount(full, "64k");
    if (disk === null) {
      rmSync(full, { recursive: true });
      writeFileSync(full, "");
    }
    const answer = await answerOf(client, "/form", large, MULTIPART);
    expect(answer).toEqual({ status: 500, text: "500 Internal Server Error\n" });
    await server.logs(disk === null ? "ENOTDIR" : "ENOSPC");
    if (disk !== null) {
      const files = () => readdirSync(full, { recursive: true }).filter((name) => String(name).includes("/"));
      await until("no file left", 5_000, () => files().length === 0);
      expect((await answerOf(client, "/form", small, MULTIPART)).status).toBe(200);
    }
    expect((await readStats(client)).workers[0]?.pid).toBe(pid);
  });

  test("a folder for uploads that is not there is an error at the start", async () => {
    await using program = await runFixture("requests.ts", { options: { upload: { directory: "/no/such" } } });
    expect(await program.ended()).not.toBe(0);
    expect(program.stderr).toContain('option "upload.directory" is "/no/such", which is not there');
  });
});

describe("trustProxy", () => {
  const behind = sharedServer(() =>
    startFixture("requests.ts", { options: { trustProxy: ["127.0.0.1", "10.0.0.0/8", "fd00::/8"] } }),
  );
  const cli = sharedServer(() =>
    startCli("test/fixtures/app.ts", { flags: { "trust-proxy": "10.0.0.0/8,127.0.0.1" } }),
  );

  for (const kind of ALL_CLIENTS) {
    test(`a trusted proxy tells address, scheme and host, ${kind.name}`, async () => {
      await using client = await kind.open(behind.server);
      const facts = async (headers: Record<string, string>) =>
        (await client.request({ path: "/facts", headers })).body.json<Record<string, unknown>>();
      expect(
        await facts({
          "x-forwarded-for": "203.0.113.9, 192.0.2.1, 10.1.2.3",
          "x-forwarded-proto": "http",
          "x-forwarded-host": "example.org",
        }),
      ).toMatchObject({
        remoteAddress: "192.0.2.1",
        scheme: "http",
        host: "example.org",
        server: { remote_addr: "192.0.2.1", remote_port: 0 },
        protocol: kind.protocol,
      });
      expect(
        await facts({
          forwarded: 'for=203.0.113.9, for="[2001:db8::1]:47011";proto=http;host="example.org:8080"',
        }),
      ).toMatchObject({
        remoteAddress: "2001:db8::1",
        scheme: "http",
        host: "example.org:8080",
        server: { remote_port: 47011 },
      });
      expect(await facts({})).toMatchObject({ remoteAddress: "127.0.0.1", scheme: "https" });
    });

    test(`the fetch form sees the URL that the client asked for, ${kind.name}`, async () => {
      await using client = await kind.open(cli.server);
      const headers = {
        "x-forwarded-for": "192.0.2.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "example.org",
      };
      const response = await client.request({ path: "/json?a=1", headers });
      expect(await response.body.json()).toMatchObject({ url: "http://example.org/json?a=1" });
    });
  }

  test("a wrong entry is named, on the command line too", async () => {
    await using program = await runFixture("requests.ts", {
      options: { trustProxy: ["10.0.0.0/8", "10.0.0.0/40"] },
    });
    expect(await program.ended()).not.toBe(0);
    expect(program.stderr).toContain('option "trustProxy.1" is "10.0.0.0/40"; it must be an address');
  });
});
