/** What a handler can do with a response, over every protocol. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import { type Client, header } from "./support/client.ts";
import { ALL_CLIENTS, HTTP1, RESETTING_CLIENTS } from "./support/clients.ts";
import { inTime, until } from "./support/poll.ts";
import { RawConnection } from "./support/raw-connection.ts";
import { ENGINE, startFixture, type TestServer } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { expectCutShort } from "./support/short.ts";
import { untilIdle } from "./support/stats.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const shared = sharedServer(() => startFixture("responses.ts"));

async function json<T>(client: Client, path: string): Promise<T> {
  const response = await client.request({ path });
  expect(response.status).toBe(200);
  return response.body.json<T>();
}

/** What comes of a request over HTTP/1.1 that the common client does not tell: trailers and interim responses. */
async function ask1(server: TestServer, path: string, scheme = server.scheme) {
  const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
  const hints: unknown[] = [];
  const { request } = scheme === "http" ? http : https;
  const target = {
    host: "127.0.0.1",
    port: server.port,
    path,
    servername: "localhost",
    agent: false as const,
  };
  const outgoing = request({ ...target, rejectUnauthorized: false } as https.RequestOptions, resolve);
  outgoing.on("information", ({ statusCode, headers }) => hints.push([statusCode, headers.link]));
  outgoing.on("error", reject);
  outgoing.end();
  const response = await inTime("a response", 5_000, promise);
  let body = "";
  for await (const chunk of response.setEncoding("utf8")) body += chunk;
  return { status: response.statusCode, headers: response.headers, trailers: response.trailers, body, hints };
}

/** The same over HTTP/2. */
async function ask2(server: TestServer, path: string, fields = {}, content?: string, trailers?: object) {
  const session = http2.connect(`https://127.0.0.1:${server.port}`, {
    servername: "localhost",
    rejectUnauthorized: false,
  });
  try {
    const stream = session.request({ ":path": path, ...fields }, {
      waitForTrailers: trailers !== undefined,
    } as object);
    const hints: unknown[] = [];
    let headers: http2.IncomingHttpHeaders = {};
    let received: http2.IncomingHttpHeaders = {};
    stream.on("headers", (interim) => hints.push([interim[":status"], interim.link]));
    stream.on("response", (head) => {
      headers = head;
    });
    stream.on("trailers", (section) => {
      received = section;
    });
    stream.on("wantTrailers", () => stream.sendTrailers(trailers as http2.OutgoingHttpHeaders));
    stream.end(content);
    let body = "";
    const read = async () => {
      for await (const chunk of stream.setEncoding("utf8")) body += chunk;
    };
    await inTime("a response", 5_000, read());
    return { status: headers[":status"], headers, trailers: { ...received }, body, hints };
  } finally {
    session.destroy();
  }
}

for (const kind of ALL_CLIENTS) {
  describe(kind.name, () => {
    test("headers are set, appended, removed, and come as several lines", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/headers" });
      expect(header(response, "x-one")).toBe("second");
      expect(header(response, "x-many")).toBe("a, b, 3");
      expect(header(response, "x-more")).toBe("a, b, c");
      expect(header(response, "x-less")).toBe("c");
      expect(header(response, "x-gone")).toBeUndefined();
      expect(header(response, "alt-svc")).toBe("clear");
      expect(header(response, "content-type")).toBe("application/json");
      expect(await response.body.json<unknown>()).toEqual({ many: ["a", "b", "3"], gone: [] });
    });

    test("no content-type is made up, for a browser to save what it would show", async () => {
      await using client = await kind.open(shared.server);
      for (const [path, length] of [
        ["/untyped", 10],
        ["/emptily-typed", 10],
        ["/untyped-bytes", 100_000],
      ] as const) {
        const response = await client.request({ path });
        expect((await response.body.bytes()).length).toBe(length);
        expect([path, header(response, "content-type") ?? ""]).toEqual([path, ""]);
      }
    });

    test("a wrong field, status or length is an error that names it, and changes nothing", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/bad-headers" });
      expect([response.status, header(response, "set-cookie")]).toEqual([200, undefined]);
      const { errors, x } = await response.body.json<{ errors: string[]; x: string[] }>();
      expect(x).toEqual([]);
      expect(errors).toEqual([
        expect.stringMatching(/^TypeError: header: "x a" is no token/),
        expect.stringMatching(/^TypeError: header: .*"x" has forbidden characters/),
        expect.stringMatching(/^TypeError: header: .*"x" has forbidden characters/),
        expect.stringMatching(/^TypeError: header: .*"x" has forbidden characters/),
        expect.stringMatching(/^TypeError: header: .*"x" has forbidden characters/),
        expect.stringMatching(/^TypeError: header: .*"x" is not latin1/),
        expect.stringMatching(/^TypeError: header: .*"x" has forbidden characters/),
        expect.stringMatching(/^TypeError: header: "x" has 70001 bytes/),
        'TypeError: header: "connection" is for the server to send',
        'TypeError: header: "transfer-encoding" is for the server to send',
        'TypeError: appendHeader: "upgrade" is for the server to send',
        'TypeError: header: "etag" has one value (RFC 9110 §5.3)',
        'TypeError: appendHeader: "content-length" has one value (RFC 9110 §5.3)',
        'TypeError: header: the value of "x" is undefined',
        'TypeError: header: the value of "x" is null',
        'TypeError: header: the value of "x" is of type object, which no field can have',
        'TypeError: header: the value of "x" is of type object, which no field can have',
        'TypeError: appendHeader: the value of "x" is of type object, which no field can have',
        "RangeError: status: 99 is not a final status from 200 to 599",
        "RangeError: status: 103 is not a final status from 200 to 599",
        "RangeError: status: 600 is not a final status from 200 to 599",
        "RangeError: status: '200' is not a final status from 200 to 599",
        "RangeError: redirect: 304 is none of 301, 302, 303, 307, 308",
        "TypeError: redirect: the location is undefined, not a string",
        expect.stringMatching(
          /^TypeError: cookie: "a" has no option "httponly"; there are maxAge, .*httpOnly/,
        ),
        expect.stringMatching(/^TypeError: header: "location" has 70009 bytes/),
        'TypeError: cookie: "a" has the value undefined (RFC 6265bis)',
        "TypeError: json: there is no JSON for undefined",
        'TypeError: header: content-length is "many", not a number of bytes',
        "ResponseStateError: end: the body has 1 bytes, and content-length says 5",
      ]);
    });

    test("what comes after the head, or after the end, is an error that says so", async () => {
      await using client = await kind.open(shared.server);
      const before = shared.server.stdout.length;
      const response = await client.request({ path: "/late" });
      const text = await response.body.text();
      expect(text[0]).toBe("a");
      const errors: string[] = JSON.parse(text.slice(1));
      expect(errors).toHaveLength(9);
      for (const error of errors)
        expect(error).toMatch(/^ResponseStateError: \w+: the head of the response was sent$/);
      const said = await until("the rest", 5_000, () =>
        /after the end: (.*)$/m.exec(shared.server.stdout.slice(before))?.at(1),
      );
      expect(JSON.parse(said)).toEqual([
        "ResponseStateError: end: the response has ended",
        "ResponseStateError: trailer: the response has ended",
        "write: the response has ended",
        false,
      ]);
    });

    test("redirects", async () => {
      await using client = await kind.open(shared.server);
      const found = await client.request({ path: "/redirect" });
      expect(found.status).toBe(302);
      expect(header(found, "location")).toBe("/%C3%A4%20b?x=%20&y=[1]#%C3%BC");
      await found.body.bytes();
      const moved = await client.request({ path: "/redirect?308" });
      expect(moved.status).toBe(308);
      await moved.body.bytes();
    });

    test("a field's value is sent in latin1 (RFC 9110 §5.5), a body's text in UTF-8", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/latin1" });
      // This client reads fields as UTF-8, in which the byte has no meaning.
      const value = kind.name.includes("quiche") ? "n\ufffdme" : "näme";
      expect([response.status, header(response, "x-name")]).toEqual([200, value]);
      expect(await response.body.text()).toBe("bödy");
    });

    test("a field that may come several times does, where its engine joins the lines too", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/languages" });
      expect([response.status, header(response, "content-language")]).toEqual([200, "en, de"]);
      expect(await response.body.text()).toBe("body");
    });

    test("HEAD, 204, 205 and 304 carry no body (RFC 9110 §6.4.1, §8.6)", async () => {
      await using client = await kind.open(shared.server);
      const head = await client.request({ method: "HEAD", path: "/status?200" });
      expect([head.status, header(head, "content-length")]).toEqual([200, "4"]);
      expect(await head.body.text()).toBe("");
      const none = await client.request({ path: "/status?204" });
      expect([none.status, header(none, "content-length")]).toEqual([204, undefined]);
      expect(await none.body.text()).toBe("");
      const reset = await client.request({ path: "/status?205" });
      expect(reset.status).toBe(205);
      expect(await reset.body.text()).toBe("");
      const same = await client.request({ path: "/status?304" });
      expect(same.status).toBe(304);
      expect(await same.body.text()).toBe("");
      const whole = await client.request({ path: "/status?200" });
      expect(await whole.body.text()).toBe("body");
    });

    test("content-length is held to", async () => {
      await using client = await kind.open(shared.server);
      const kept = await client.request({ path: "/length/kept" });
      expect(await kept.body.text()).toBe("body");
      const before = shared.server.stdout.length;
      const long = await client.request({ path: "/length/long" });
      expect(await long.body.text()).toBe("bod");
      const error = "too long: write: the body is 1 bytes longer than its content-length";
      await until("the error", 5_000, () => shared.server.stdout.slice(before).includes(error));
    });

    test("event streams have the format of HTML, and end when they are closed", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/sse", headers: { "last-event-id": "6" } });
      expect(header(response, "content-type")).toBe("text/event-stream");
      expect(header(response, "cache-control")).toBe("no-cache");
      expect(await inTime("its end", 5_000, response.body.text())).toBe(
        ": \n\ndata: hello\n\n" +
          'event: tick\nid: 7\nretry: 500\ndata: {"n":1}\n\n' +
          "data: two\ndata: lines\ndata: and a third\n\n" +
          ": here\n\n" +
          "data: TypeError,TypeError,TypeError,TypeError\n\n" +
          "data: after 6\n\n",
      );
    });

    test("what an async handler leaves open is ended, unless it was detached", async () => {
      await using client = await kind.open(shared.server);
      const open = await client.request({ path: "/left-open" });
      expect([open.status, await open.body.text()]).toEqual([202, ""]);
      const streaming = await client.request({ path: "/left-streaming" });
      expect(await inTime("the end", 5_000, streaming.body.text())).toBe("all there is");
      const detached = await client.request({ path: "/detached" });
      expect(await inTime("the end", 5_000, detached.body.text())).toBe("still true");
    });

    test("an expectation other than 100-continue is 417 (RFC 9110 §10.1.1)", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/headers", headers: { expect: "200-ok" } });
      expect(response.status).toBe(417);
      await response.body.bytes();
    });

    // What the engine quic does instead is in test/http3-quic.test.ts.
    if (kind.protocol !== "HTTP/3" || ENGINE === "quic") return;

    test("early hints are not sent, and say so", async () => {
      await using client = await kind.open(shared.server);
      expect(await json<unknown>(client, "/hints")).toMatchObject({ sent: false });
    });

    test("trailers are an error, before anything is sent", async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/trailers/or-not" });
      expect(header(response, "x-sent")).toBe("false");
      expect(await response.body.json<unknown>()).toEqual([
        "ResponseStateError: trailer: the engine of this HTTP/3 connection sends no trailers",
      ]);
    });
  });
}

for (const kind of RESETTING_CLIENTS) {
  test(`${kind.name}: a body shorter than its content-length is cut off, and not taken for whole`, async () => {
    await using client = await kind.open(shared.server);
    const response = await client.request({ path: "/length/short" }).catch((error: unknown) => {
      // The engine quic takes back what it has not sent: the reset may come without the head.
      if (ENGINE === "quic" && kind.protocol === "HTTP/3") return null;
      throw error;
    });
    if (response !== null) await expectCutShort(kind.protocol, response.body, () => {});
  });

  test(`${kind.name}: an event stream sends its heartbeat, and is closed when its client leaves`, async () => {
    const before = await (async () => {
      await using client = await kind.open(shared.server);
      const count = await json<number>(client, "/sse/closed");
      const leave = new AbortController();
      const response = await client.request({ path: "/sse/endless", signal: leave.signal });
      let text = "";
      while (!text.includes(": \n\n: \n\n"))
        text += Buffer.from((await response.body.read()) ?? []).toString();
      expect(text).toStartWith(": \n\ndata: begun\n\n");
      leave.abort();
      response.body.cancel();
      return count;
    })();
    await using client = await kind.open(shared.server);
    await until("the stream's end", 5_000, async () => (await json<number>(client, "/sse/closed")) > before);
  });
}

for (const path of ["/sse/fails", "/sse/ended"]) {
  test(`an event stream is closed when its response ends without it, ${path}`, async () => {
    await using client = await HTTP1.open(shared.server);
    const before = await json<number>(client, "/sse/closed");
    const response = await client.request({ path });
    await response.body.bytes().catch(() => {});
    await until("the stream's end", 5_000, async () => (await json<number>(client, "/sse/closed")) > before);
  });
}

describe("trailers (RFC 9110 §6.5)", () => {
  const errors = [
    'TypeError: trailer: "content-length" is for the head (RFC 9110 §6.5.1)',
    expect.stringMatching(/^TypeError: trailer: .*token/),
  ];

  for (const [name, ask] of [
    ["HTTP/1.1", ask1],
    ["HTTP/2", ask2],
  ] as const) {
    test(`${name}: follow the body, announced or late`, async () => {
      const { headers, trailers, body } = await ask(shared.server, "/trailers");
      expect(headers.trailer).toBe("x-sum");
      expect(JSON.parse(body.slice(0, -1))).toEqual(errors);
      expect(trailers).toMatchObject({ "x-sum": "abc", "x-late": "7" });
    });

    test(`${name}: follow a body that was sent whole`, async () => {
      const { trailers, body } = await ask(shared.server, "/trailers/whole");
      expect([body, trailers["x-sum"]]).toEqual(["whole", "abc"]);
    });
  }

  test("HTTP/1.1: follow a body that had to wait for the answers to earlier requests", async () => {
    using raw = await RawConnection.open(shared.server.port);
    const get = (path: string, field = "") => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${field}\r\n`;
    const last = get("/detached", "Connection: close\r\n");
    raw.send(get("/detached") + get("/trailers") + get("/trailers/whole") + last);
    expect(await raw.untilClosed()).toMatch(
      /still true.*!\r\n0\r\nx-sum: abc\r\nx-late: 7\r\n\r\n.*whole\r\n0\r\nx-sum: abc\r\n\r\n.*still true$/s,
    );
  });

  test("HTTP/1.1 has none behind a content-length", async () => {
    const { body } = await ask1(shared.server, "/trailers/with-length");
    expect(body).toContain("HTTP/1.1 has none behind a content-length");
  });

  test("follow the body over plain HTTP/1.1 too", async () => {
    await using server = await startFixture("responses.ts", { options: { tls: false } });
    const { trailers } = await ask1(server, "/trailers", "http");
    expect(trailers).toMatchObject({ "x-sum": "abc", "x-late": "7" });
  });

  test("HTTP/1.1: HEAD is answered where they are announced", async () => {
    using raw = await RawConnection.open(shared.server.port);
    raw.send("HEAD /trailers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    expect(await raw.untilClosed()).toMatch(/^HTTP\/1\.1 200 .*\r\n\r\n$/s);
  });

  test("HTTP/1.0 has neither them nor interim responses (RFC 9110 §15.2)", async () => {
    for (const [path, content] of [
      ["/trailers/or-not", "sends no trailers"],
      ["/hints", '"sent":false'],
    ] as const) {
      using raw = await RawConnection.open(shared.server.port);
      raw.send(`GET ${path} HTTP/1.0\r\n\r\n`);
      const answer = await raw.untilClosed();
      expect(answer).toStartWith("HTTP/1.1 200 ");
      expect(answer).toContain(content);
    }
  });

  test("of a request reach the handler, without those that no trailer section may have", async () => {
    using raw = await RawConnection.open(shared.server.port);
    raw.send(
      "POST /request-trailers HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n" +
        "2\r\nhi\r\n0\r\nX-Sum: abc\r\nX-Sum: def\r\ncontent-type: a/b\r\nhost: other\r\n\r\n",
    );
    await until("the answer", 5_000, () => raw.isClosed);
    expect(raw.received).toContain('{"body":"hi","trailers":{"x-sum":"abc, def"}}');
    const { body } = await ask2(shared.server, "/request-trailers", { ":method": "POST" }, "hi", {
      "x-sum": "abc",
    });
    expect(JSON.parse(body)).toEqual({ body: "hi", trailers: { "x-sum": "abc" } });
    // A short body of a known length goes to the worker with its head.
    const length = { ":method": "POST", "content-length": 2 };
    const short = await ask2(shared.server, "/request-trailers", length, "hi", { "x-sum": "abc" });
    expect(JSON.parse(short.body)).toEqual({ body: "hi", trailers: { "x-sum": "abc" } });
  });
});

describe("early hints (RFC 8297)", () => {
  const links = "</a.css>; rel=preload; as=style, </b.js>; rel=preload; as=script";

  for (const [name, ask] of [
    ["HTTP/1.1", ask1],
    ["HTTP/2", ask2],
  ] as const) {
    test(`${name}: come before the response`, async () => {
      const { hints, body } = await ask(shared.server, "/hints");
      expect(hints).toEqual([[103, links]]);
      expect(JSON.parse(body)).toEqual({
        sent: true,
        errors: [
          'TypeError: earlyHints: there is no "link" among the fields (RFC 8297 §2)',
          expect.stringMatching(/^TypeError: earlyHints: .*"link" has forbidden characters/),
          'TypeError: earlyHints: "connection" is for the server to send',
          'TypeError: earlyHints: "content-length" is for the response that will come (RFC 9110 §8.6)',
        ],
      });
    });
  }

  test("are not held back until the response", async () => {
    using raw = await RawConnection.open(shared.server.port);
    raw.send("GET /hints?wait HTTP/1.1\r\nhost: localhost\r\n\r\n");
    await until("the hints", 5_000, () => raw.received.startsWith("HTTP/1.1 103"));
    expect(raw.received).not.toContain("HTTP/1.1 200");
    await ask1(shared.server, "/hinted");
    await until("the response", 5_000, () => raw.received.includes("HTTP/1.1 200"));
  });
});

describe("expect: 100-continue (RFC 9110 §10.1.1)", () => {
  test("HTTP/1.1: the client is told to go on", async () => {
    using raw = await RawConnection.open(shared.server.port);
    raw.send(
      "POST /request-trailers HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n",
    );
    await until("100", 5_000, () => raw.received.startsWith("HTTP/1.1 100"));
    raw.send("hi");
    await until("the answer", 5_000, () => raw.received.includes('"body":"hi"'));
  });

  test("HTTP/2: the client is told to go on", async () => {
    const fields = { ":method": "POST", expect: "100-continue" };
    const session = http2.connect(`https://127.0.0.1:${shared.server.port}`, {
      servername: "localhost",
      rejectUnauthorized: false,
    });
    try {
      const stream = session.request({ ":path": "/request-trailers", ...fields });
      const { promise, resolve } = Promise.withResolvers<void>();
      stream.on("continue", resolve).on("headers", (head) => head[":status"] === 100 && resolve());
      await inTime("100", 5_000, promise);
      stream.end("hi");
      let body = "";
      for await (const chunk of stream.setEncoding("utf8")) body += chunk;
      expect(body).toContain('"body":"hi"');
    } finally {
      session.destroy();
    }
  });
});

test("nothing is left in flight", async () => {
  await using client = await HTTP1.open(shared.server);
  await untilIdle(client);
});

for (const kind of ALL_CLIENTS) {
  test(`${kind.name}: an event stream is open before its first event`, async () => {
    await using client = await kind.open(shared.server);
    const response = await inTime("the head", 5_000, client.request({ path: "/sse/quiet" }));
    expect(response.status).toBe(200);
    response.body.cancel();
  });
}
