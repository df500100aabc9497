/** The listener of TCP in this very process, with timeouts that no option allows, for what would take a server seconds. */
import { dlopen } from "bun:ffi";
import { expect, test } from "bun:test";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import net from "node:net";
import type { Exchange, ExchangeId } from "../../src/exchange.ts";
import { ConnectionLimits } from "../../src/listeners/connection-limits.ts";
import { listenTcp } from "../../src/listeners/tcp.ts";
import { CERTIFICATE } from "../support/certificate.ts";
import { request } from "../support/http3-frames.ts";
import { failureOf, inTime, until } from "../support/poll.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { Frame2, RawHttp2 } from "../support/raw-http2.ts";

const NO_LIMITS = { maxConnections: 0, maxConnectionsPerAddress: 0 };

/** @param keepAliveTimeout milliseconds */
async function listen(
  accept: (exchange: Exchange) => void,
  limits = new ConnectionLimits(NO_LIMITS),
  keepAliveTimeout = 60_000,
  { spareDescriptors = 0, log = (_: string) => {} } = {},
) {
  let asked = 0;
  const options = {
    host: "127.0.0.1",
    port: 0,
    reusePort: false,
    tls: { ...(await CERTIFICATE), sni: {} },
    maxHeaderBytes: 16_384,
    keepAliveTimeout,
    connectionLimits: limits,
    spareDescriptors,
    maxRequestsPerConnection: 0,
    altSvc: null,
  };
  const host = { turnAway: () => {}, log, tellConnection: null };
  return listenTcp(options, { ...host, nextId: () => ++asked as ExchangeId, accept });
}

test("a connection of HTTP/2 whose client takes nothing of its last response is not kept for that", async () => {
  const BYTES = 12_000_000;
  let closed = 0;
  const limits = new ConnectionLimits(NO_LIMITS);
  limits.release = () => closed++;
  const respond = ({ sink }: Exchange) => sink.respond({ status: 200, fields: [] }, Buffer.alloc(BYTES));
  const listener = await listen(respond, limits, 200);
  try {
    using connection = await RawHttp2.open(listener.port);
    connection.widen();
    const stream = connection.begin(request({}));
    connection.pause();
    await until("its end", 5_000, () => closed === 1);
    connection.resume();
    await connection.untilClosed();
    expect(connection.lengthOf(stream)).toBeLessThan(BYTES);
  } finally {
    await listener.close();
  }
});

test("a response arrives whole whose client says meanwhile that it will ask for no more (RFC 9113 §6.8)", async () => {
  const BYTES = 12_000_000;
  const listener = await listen(({ path, sink }) =>
    sink.respond({ status: 200, fields: [] }, Buffer.alloc(path === "/large" ? BYTES : 1)),
  );
  try {
    using connection = await RawHttp2.open(listener.port);
    using other = await RawHttp2.open(listener.port);
    connection.widen();
    connection.pause();
    const stream = connection.begin(request({ path: "/large" }));
    connection.frame(Frame2.goaway, 0, 0, Buffer.alloc(8));
    // A few turns of the event loop for all that a client's GOAWAY has the engine do.
    for (let i = 0; i < 20; i++) expect(await other.outcome(other.begin(request({})))).toBe("answered 200");
    connection.resume();
    await connection.untilClosed();
    expect(connection.lengthOf(stream)).toBe(BYTES);
  } finally {
    await listener.close();
  }
});

test("a request on a stream that is over, or was passed over, ends its connection (RFC 9113 §5.1.1)", async () => {
  const streams: number[] = [];
  const listener = await listen(({ stream, sink }) => {
    streams.push(stream);
    sink.respond({ status: 200, fields: [] }, "whole");
  });
  try {
    using over = await RawHttp2.open(listener.port);
    const stream = over.begin(request({}));
    expect(await over.outcome(stream)).toBe("answered 200");
    // Of a request that was reset, its trailers may still be on their way.
    over.headers(stream, [["x-digest", "1"]], true);
    expect(await over.outcome(over.begin(request({})))).toBe("answered 200");
    over.headers(stream, request({}), true);
    expect(await over.outcome(over.begin(request({})))).toBe("closed with PROTOCOL_ERROR");
    using passedOver = await RawHttp2.open(listener.port);
    passedOver.headers(99, request({}), true);
    expect(await passedOver.outcome(passedOver.begin(request({})))).toBe("closed with PROTOCOL_ERROR");
    expect(streams.filter((each) => each === stream)).toHaveLength(1);
  } finally {
    await listener.close();
  }
});

test("a body that does not end keeps no connection of HTTP/2 whose requests are answered", async () => {
  const endsBy = async (keepAliveTimeout: number, isDrained: boolean) => {
    const accepted: Exchange[] = [];
    const listener = await listen(
      (exchange) => {
        accepted.push(exchange);
        exchange.sink.respond({ status: 200, fields: [] }, "whole");
      },
      undefined,
      keepAliveTimeout,
    );
    try {
      using connection = await RawHttp2.open(listener.port);
      const stream = connection.begin(request({ method: "POST" }), false);
      expect(await connection.outcome(stream)).toBe("answered 200");
      if (isDrained) {
        // A client that still sends is not cut off at once: it may not have read the answer.
        connection.data(stream, "more", false);
        const drained = listener.drain(false);
        expect(await accepted[0]?.body?.read()).toEqual(Buffer.from("more"));
        await inTime("the end", 5_000, drained);
      }
      await connection.untilClosed();
      expect(connection.lastStreams).not.toBeEmpty();
    } finally {
      await listener.close();
    }
  };
  await Promise.all([endsBy(200, false), endsBy(60_000, true)]);
});

test("the end of a connection of HTTP/2 tells which streams are answered still, and refuses the others (RFC 9113 §6.8)", async () => {
  const held: Exchange[] = [];
  const listener = await listen((exchange) => held.push(exchange));
  try {
    using connection = await RawHttp2.open(listener.port);
    const streams = [connection.begin(request({})), connection.begin(request({}))];
    await until("both", 5_000, () => held.length === 2);
    const drained = listener.drain(false);
    await until("GOAWAY", 5_000, () => connection.lastStreams.length > 0);
    expect(connection.lastStreams).toEqual(streams.slice(1));
    expect(await connection.outcome(connection.begin(request({})))).toBe("reset with REFUSED_STREAM");
    for (const { sink } of held) sink.respond({ status: 200, fields: [] }, "whole");
    await inTime("the end", 5_000, drained);
    await connection.untilClosed();
    expect(streams.map((stream) => connection.lengthOf(stream))).toEqual([5, 5]);
    expect(held).toHaveLength(2);
  } finally {
    await listener.close();
  }
});

test("a connection that comes to HTTP/2 only while its listener drains is told that it ends, too", async () => {
  const limits = new ConnectionLimits(NO_LIMITS);
  const listener = await listen(() => {}, limits);
  const socket = net.connect(listener.port, "127.0.0.1");
  try {
    let isThere = false;
    limits.admit = () => {
      isThere = true;
      return true;
    };
    await until("the connection", 5_000, () => isThere);
    void listener.drain(true);
    using connection = await RawHttp2.open(listener.port, { socket });
    await until("GOAWAY", 5_000, () => connection.lastStreams.length > 0);
    // None is refused yet.
    expect(connection.lastStreams).toEqual([2 ** 31 - 1]);
  } finally {
    socket.destroy();
    await listener.close();
  }
});

test("what would take the descriptors that workers need is closed at once, and the log says so once until half have gone", async () => {
  const libc = dlopen("libc.so.6", {
    getrlimit: { args: ["i32", "ptr"], returns: "i32" },
    setrlimit: { args: ["i32", "ptr"], returns: "i32" },
  });
  const NOFILE = 7;
  const before = new BigUint64Array(2);
  expect(libc.symbols.getrlimit(NOFILE, before)).toBe(0);
  const highest = Math.max(...readdirSync("/proc/self/fd").map(Number));
  const limit = highest + 50;
  const most = Math.ceil(limit / 2);
  const lines: string[] = [];
  const limits = new ConnectionLimits(NO_LIMITS);
  let open = 0;
  limits.admit = () => {
    open++;
    return true;
  };
  limits.release = () => open--;
  const fewer = new BigUint64Array([BigInt(limit), before[1] as bigint]);
  await CERTIFICATE;
  let opened: ReturnType<typeof listen>;
  try {
    expect(libc.symbols.setrlimit(NOFILE, fewer)).toBe(0);
    opened = listen(() => {}, limits, 60_000, { spareDescriptors: 1e6, log: (line) => lines.push(line) });
    await opened;
  } finally {
    libc.symbols.setrlimit(NOFILE, before);
  }
  const listener = await opened;
  const sockets: net.Socket[] = [];
  const connect = async () => {
    const socket = net
      .connect(listener.port, "127.0.0.1")
      .on("error", () => {})
      .resume();
    await once(socket, "connect");
    return socket;
  };
  const fill = async () => {
    while (sockets.length < most) sockets.push(await connect());
    await until("all of them", 5_000, () => open === most);
  };
  const leave = async (left: number) => {
    for (const socket of sockets.splice(left)) socket.destroy();
    await until("some to leave", 5_000, () => open === left);
  };
  const refused = async () => {
    const socket = await connect();
    if (!socket.closed) await inTime("its end", 5_000, once(socket, "close"));
    expect(open).toBe(most);
  };
  try {
    await fill();
    expect(lines).toEqual([]);
    await refused();
    await refused();
    const line = `${most} connections, and more are closed at once: a process may open no more files; raise the limit (ulimit -n, LimitNOFILE)`;
    expect(lines).toEqual([line]);
    await leave(most - 1);
    await fill();
    await refused();
    expect(lines).toEqual([line]);
    await leave(Math.ceil(most / 2) - 1);
    await fill();
    await refused();
    expect(lines).toEqual([line, line]);
  } finally {
    for (const socket of sockets) socket.destroy();
    await listener.close();
    libc.close();
  }
});

const ANSWERED = /HTTP\/1\.1 200|connection: close|whole/gi;
const GET = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

test("at the end of a listener idle connections of HTTP/1.1 close at once, others with their answer, and none is taken", async () => {
  const held: Exchange[] = [];
  const listener = await listen((exchange) => held.push(exchange));
  try {
    using idle = await RawConnection.open(listener.port);
    using busy = await RawConnection.open(listener.port);
    busy.send(GET.repeat(2));
    await until("both requests", 5_000, () => held.length === 2);
    let isDrained = false;
    const drained = listener.drain(false).then(() => {
      isDrained = true;
    });
    await idle.untilClosed();
    // It was taken before, so it is answered; what comes now is not taken.
    busy.send(GET);
    for (const { sink } of held) sink.respond({ status: 200, fields: [] }, "whole");
    const answers = await busy.untilClosed();
    expect([...(answers.match(ANSWERED) ?? [])]).toEqual([
      ...["HTTP/1.1 200", "whole"],
      ...["HTTP/1.1 200", "connection: close", "whole"],
    ]);
    await inTime("the end", 5_000, drained);
    expect([isDrained, held.length]).toEqual([true, 2]);
    const late = net.connect(listener.port, "127.0.0.1");
    expect(await failureOf("a connection", 5_000, once(late, "connect"))).toMatchObject({
      code: "ECONNREFUSED",
    });
  } finally {
    await listener.close();
  }
});

test("gently, connections of HTTP/1.1 answer what still comes, once, and those of HTTP/2 for a second more", async () => {
  let asked = 0;
  const listener = await listen(({ protocol, sink }) => {
    if (protocol === "HTTP/1.1") asked++;
    sink.respond({ status: 200, fields: [] }, "whole");
  });
  try {
    using idle = await RawConnection.open(listener.port);
    using multiplexed = await RawHttp2.open(listener.port);
    expect(await multiplexed.outcome(multiplexed.begin(request({})))).toBe("answered 200");
    const drained = listener.drain(true);
    await until("GOAWAY", 5_000, () => multiplexed.lastStreams.length > 0);
    const last = multiplexed.begin(request({}));
    expect(await multiplexed.outcome(last)).toBe("answered 200");
    expect(idle.isClosed).toBe(false);
    idle.send(GET.repeat(2));
    const answer = await idle.untilClosed();
    expect([...(answer.match(ANSWERED) ?? [])]).toEqual(["HTTP/1.1 200", "connection: close", "whole"]);
    await multiplexed.untilClosed();
    await inTime("the end", 5_000, drained);
    // None is refused at first.
    expect([multiplexed.lastStreams[0], asked]).toEqual([2 ** 31 - 1, 1]);
  } finally {
    await listener.close();
  }
});

test("a listener without connections has drained at once, and one that closes cuts off those it has", async () => {
  const [none, one] = [await listen(() => {}), await listen(() => {})];
  try {
    await inTime("the end", 5_000, none.drain(false));
    using connection = await RawConnection.open(one.port);
    connection.send(GET);
    await one.close();
    expect(await connection.untilClosed()).toBe("");
  } finally {
    await none.close();
    await one.close();
  }
});
