/** Bytes that no well-behaved client sends: they end no process, and malformed requests never reach a handler. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createSocket } from "node:dgram";
import net from "node:net";
import { text } from "node:stream/consumers";
import { ALL_CLIENTS, HTTP1, HTTP2 } from "./support/clients.ts";
import { inTime, until } from "./support/poll.ts";
import { Random } from "./support/random.ts";
import { RawConnection } from "./support/raw-connection.ts";
import { startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { readStats, untilIdle } from "./support/stats.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

describe("garbage from clients", () => {
  const shared = sharedServer(() => startFixture("server.ts", { options: { workers: 2 } }));

  async function sendTcp(port: number, bytes: Uint8Array): Promise<void> {
    const done = Promise.withResolvers<void>();
    const socket = net.connect(port, "127.0.0.1", () => socket.end(bytes));
    // Whatever the server does with the connection is right, as long as it stays.
    socket.on("close", () => done.resolve()).on("error", () => done.resolve());
    socket.resume();
    try {
      await inTime("the server to close the connection", 10_000, done.promise);
    } finally {
      socket.destroy();
    }
  }

  test("random bytes on TCP, UDP and inside TLS end no process", async () => {
    const { server } = shared;
    await using client = await HTTP2.open(server);
    const before = await readStats(client);
    const random = new Random(4_242);
    const udp = createSocket("udp4");
    try {
      for (let round = 0; round < 50; round++) {
        const bytes = random.bytes(1 + random.below(3_000));
        await sendTcp(server.port, bytes);
        // As of the long form of QUIC version 1, half of them.
        const datagram = random.bytes(1_200 + random.below(200));
        if (round % 2 === 0) datagram.set([0xc0 | random.below(64), 0, 0, 0, 1]);
        await new Promise((sent) => udp.send(datagram, server.port, "127.0.0.1", sent));
      }
      for (const alpn of ["http/1.1", "h2"]) {
        for (let round = 0; round < 20; round++) {
          using connection = await RawConnection.open(server.port, alpn);
          const preface = alpn === "h2" && round % 2 === 0 ? "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" : "";
          connection.send(preface);
          connection.send(random.bytes(500 + random.below(2_000)));
          connection.send("\r\n\r\n");
          await connection.untilReceived(/./s);
        }
      }
    } finally {
      udp.close();
    }
    for (const kind of ALL_CLIENTS) {
      await using each = await kind.open(server);
      const response = await each.request({ path: "/hello" });
      await response.body.bytes();
      expect(response.status).toBe(200);
    }
    const after = await untilIdle(client);
    expect(after.reactors.map(({ pid }) => pid)).toEqual(before.reactors.map(({ pid }) => pid));
    expect(after.workers.map(({ pid }) => pid)).toEqual(before.workers.map(({ pid }) => pid));
  }, 60_000);
});

describe("malformed HTTP/1.1 never reaches a handler", () => {
  const shared = sharedServer(() => startFixture("server.ts"));
  const MALFORMED: [name: string, bytes: string][] = [
    ["a backslash in host", "GET /hello HTTP/1.1\r\nHost: localhost\\secret\r\n\r\n"],
    ["a version that is another protocol's (RFC 9112 §2.3)", "GET /hello HTTP/2.0\r\nHost: a\r\n\r\n"],
    ["no Host (RFC 9112 §3.2)", "GET /hello HTTP/1.1\r\n\r\n"],
    ["two Hosts (RFC 9112 §3.2)", "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"],
    [
      "two content-lengths that differ (RFC 9112 §6.3)",
      "POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    ],
    [
      "content-length and transfer-encoding (RFC 9112 §6.1)",
      "POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    [
      "a content-length that is no number (RFC 9110 §8.6)",
      "POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n",
    ],
    [
      "a negative content-length (RFC 9110 §8.6)",
      "POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ],
    [
      "an unknown transfer-encoding that is last (RFC 9112 §6.1)",
      "POST /raw HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, cow\r\n\r\n",
    ],
    ["a space before the colon (RFC 9112 §5.1)", "GET /hello HTTP/1.1\r\nHost: a\r\nX-Field : b\r\n\r\n"],
    [
      "a field name with a space in it (RFC 9110 §5.1)",
      "GET /hello HTTP/1.1\r\nHost: a\r\nX Field: b\r\n\r\n",
    ],
    ["a NUL in a field value (RFC 9110 §5.5)", "GET /hello HTTP/1.1\r\nHost: a\r\nX-Field: b\0c\r\n\r\n"],
    ["a request line of one word (RFC 9112 §3)", "GET\r\nHost: a\r\n\r\n"],
    ["no HTTP at all", "\x01\x02\x03\x04 what is this\r\n\r\n"],
    ["an unknown version (RFC 9110 §2.5)", "GET /hello HTTP/9.9\r\nHost: a\r\n\r\n"],
  ];

  async function callsSeen(): Promise<number> {
    await using client = await HTTP1.open(shared.server);
    const response = await client.request({ path: "/calls" });
    return (await response.body.json<{ calls: number }>()).calls;
  }

  for (const [name, bytes] of MALFORMED) {
    test(name, async () => {
      const before = await callsSeen();
      using connection = await RawConnection.open(shared.server.port);
      connection.send(bytes);
      const answer = await connection.untilReceived(/\r\n\r\n/);
      expect(answer).toMatch(/^HTTP\/1\.1 (400|501|505) /);
      if (!name.includes("version") && !name.includes("transfer-encoding")) {
        expect(answer).toStartWith("HTTP/1.1 400 ");
      }
      expect(await callsSeen()).toBe(before + 1);
    });
  }

  const UNSERVED: [name: string, bytes: string][] = [
    ["CONNECT (RFC 9110 §9.3.6)", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"],
    [
      "a transfer coding but chunked (RFC 9112 §6.1)",
      "POST /raw HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
  ];
  for (const [name, bytes] of UNSERVED) {
    test(`${name} is not served: 501`, async () => {
      using connection = await RawConnection.open(shared.server.port);
      connection.send(bytes);
      expect(await connection.untilReceived(/\r\n\r\n/)).toStartWith("HTTP/1.1 501 ");
    });
  }

  test("the host of a target in the absolute form counts, and not the field's (RFC 9112 §3.2.2)", async () => {
    using connection = await RawConnection.open(shared.server.port);
    connection.send("GET http://b:81/server HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    expect(await connection.untilClosed()).toContain('"host":"b:81"');
    // Its path may be empty, and its scheme in upper case (RFC 3986 §6.2.2.1, §6.2.3).
    using bare = await RawConnection.open(shared.server.port);
    bare.send("GET HTTPS://b?query HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    expect(await bare.untilClosed()).toContain("no / here");
  });

  test("a coding and an expectation may be in any case (RFC 9112 §7, RFC 9110 §10.1.1)", async () => {
    using connection = await RawConnection.open(shared.server.port);
    const fields = "Host: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n";
    connection.send(`POST /raw HTTP/1.1\r\n${fields}\r\n3\r\nabc\r\n0\r\n\r\n`);
    await connection.untilReceived(/^HTTP\/1\.1 100 [^{]*HTTP\/1\.1 200 .*"length":3/s);
    connection.send("GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    expect(await connection.untilClosed()).toContain("Hello");
  });

  test("content-lengths that agree are one (RFC 9112 §6.3)", async () => {
    await using server = await startFixture("server.ts", { options: { tls: false } });
    const socket = net.connect(server.port, "127.0.0.1");
    const lengths = "Content-Length: 3\r\nContent-Length: 3\r\n";
    socket.write(`POST /server HTTP/1.1\r\nHost: a\r\n${lengths}Connection: close\r\n\r\nabc`);
    expect(await inTime("the answer", 5_000, text(socket))).toContain('"content-length":"3"');
  });

  test("a broken chunk (RFC 9112 §7.1): the handler does not get a whole body", async () => {
    using connection = await RawConnection.open(shared.server.port);
    connection.send(
      "POST /raw HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnot-a-size\r\nabc\r\n0\r\n\r\n",
    );
    const answer = await connection.untilClosed();
    expect(answer).not.toMatch(/^HTTP\/1\.1 2/);
    await using client = await HTTP1.open(shared.server);
    await untilIdle(client);
  });

  test("what stands behind a request of doubtful length is not taken for a request (RFC 9112 §11.2)", async () => {
    const before = await callsSeen();
    for (const lengths of [
      "Content-Length: 3\r\nContent-Length: 4\r\n",
      "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
      "Content-Length: ten\r\n",
    ]) {
      using connection = await RawConnection.open(shared.server.port);
      const smuggled = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
      connection.send(`POST /raw HTTP/1.1\r\nHost: a\r\n${lengths}\r\n0\r\n\r\n${smuggled}`);
      const answer = await connection.untilClosed();
      expect(answer).toStartWith("HTTP/1.1 400 ");
      expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    }
    expect(await callsSeen()).toBe(before + 1);
  });

  test("pipelined requests are answered in order (RFC 9112 §9.3.2)", async () => {
    using connection = await RawConnection.open(shared.server.port);
    const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
    connection.send(get("/wait?ms=100") + get("/hello") + get("/status?code=404"));
    const text = await connection.untilReceived(/404 Not Found[\s\S]*\r\n\r\n/);
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 200", "HTTP/1.1 404"]);
    expect(text.indexOf("waited as GET")).toBeLessThan(text.indexOf("Hello from HTTP/1.1!"));
  });
});

for (const mode of ["process", "base"] as const) {
  for (const isPlain of [false, true]) {
    describe(`behind a request of HTTP/1.1, ${isPlain ? "plain" : "over TLS"}, in the mode ${mode}`, () => {
      const options = { mode, workers: 1, ...(isPlain && { tls: false }) } as const;
      const shared = sharedServer(() => startFixture("server.ts", { options }));
      const open = () => RawConnection[isPlain ? "openPlain" : "open"](shared.server.port);
      const get = (path: string, field = "") => `GET ${path} HTTP/1.1\r\nHost: a\r\n${field}\r\n`;
      const upload = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";

      for (const [name, bytes, status] of [
        ["garbage", "garbage\r\n\r\n", 400],
        ["CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501],
      ] as const) {
        test(`${name} gets its ${status} when the request has got its answer`, async () => {
          using connection = await open();
          connection.send(get("/wait?ms=100") + bytes);
          const answers = await connection.untilClosed();
          expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", `HTTP/1.1 ${status}`]);
          expect(answers.match(/^date: \w{3}, .* GMT\r$/gim)).toHaveLength(2);
          expect(answers.indexOf("waited as GET")).toBeLessThan(answers.indexOf(`HTTP/1.1 ${status}`));
        });
      }

      test("CONNECT, and what comes behind that, keeps nobody from seeing the client leave", async () => {
        const aborted = async () => {
          using observer = await open();
          observer.send(get("/aborted", "Connection: close\r\n"));
          return /"aborted":\d+/.exec(await observer.untilClosed())?.[0];
        };
        const before = await aborted();
        const connection = await open();
        const connect = "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
        connection.send(get("/begin") + connect + "x".repeat(200_000));
        await connection.untilReceived(/HTTP/);
        connection[Symbol.dispose]();
        await until("the handler to be told", 5_000, async () => (await aborted()) !== before);
      });

      test("with connection: close nothing is answered (RFC 9112 §9.6)", async () => {
        using connection = await open();
        connection.send(get("/wait?ms=100", "Connection: close\r\n") + get("/hello"));
        const answers = await connection.untilClosed();
        expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200"]);
        expect(answers).toContain("waited as GET");
      });

      test("a broken chunk cuts a response off that has begun, and is no error of the handler's", async () => {
        using connection = await open();
        connection.send(upload);
        await connection.untilReceived(/abc/);
        connection.send("not-a-size\r\n");
        expect((await connection.untilClosed()).match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200"]);
        expect(shared.server.stderr).not.toContain("error in POST");
      });

      test("of which nobody knows where it ends nothing is answered (RFC 9112 §6.3)", async () => {
        using connection = await open();
        connection.send(`POST /raw HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n${get("/hello")}`);
        expect((await connection.untilClosed()).match(/HTTP\/1\.1 (?!400|501)|Hello/g)).toBeNull();
      });

      test("that asks for an upgrade what comes with it is read as behind any other (RFC 9110 §7.8)", async () => {
        using connection = await open();
        const asking = "Connection: upgrade\r\nUpgrade: websocket\r\n";
        connection.send(
          `${get("/hello", asking)}POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n`,
        );
        await connection.untilReceived(/Hello/);
        // All of it is the body.
        connection.send(get("/status?code=404").padEnd(40));
        connection.send(`${get("/hello", asking)}garbage\r\n\r\n`);
        const answers = await connection.untilClosed();
        const statuses = [...answers.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status);
        expect(statuses).toEqual(["200", "200", "200", "400"]);
        expect(answers).toContain('"length":40');
        using uploading = await open();
        uploading.send(upload.replace("Host: a\r\n", `Host: a\r\n${asking}`));
        await uploading.untilReceived(/abc/);
        uploading.send("not-a-size\r\n");
        await uploading.untilClosed();
      });

      test("whose body nobody reads the next is answered, however long that body is", async () => {
        using connection = await open();
        const bytes = 4_000_000;
        connection.send(`POST /wait?ms=100 HTTP/1.1\r\nHost: a\r\nContent-Length: ${bytes}\r\n\r\n`);
        connection.send("x".repeat(bytes));
        connection.send(get("/status?code=404"));
        const answers = await connection.untilReceived(/404 Not Found/);
        expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 404"]);
      });

      test("the client's leaving within the second is not taken for the answer to the first", async () => {
        using connection = await open();
        connection.send(`${get("/wait?ms=200")}${get("/hello").slice(0, 20)}`);
        connection.end();
        expect(await connection.untilClosed()).not.toContain("HTTP/1.1 400");
      });

      test("a broken chunk of the second is not taken for the answer to the first", async () => {
        using connection = await open();
        connection.send(`${get("/wait?ms=200")}${upload}not-a-size\r\n`);
        expect(await connection.untilClosed()).not.toContain("HTTP/1.1 400");
      });
    });
  }
}
