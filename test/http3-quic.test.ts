/** The HTTP/3 engine quic: what it can do beyond the other, and what it does about peers that do no good. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createSocket } from "node:dgram";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { connect as connectQuic, type QuicError } from "node:quic";
import { connect, type Http3ClientSession } from "@currentspace/http3";
import { CERTIFICATE, OTHER_CERTIFICATE } from "./support/certificate.ts";
import type { Client } from "./support/client.ts";
import { type Endpoint, HTTP2 } from "./support/clients.ts";
import {
  errorName,
  type Field,
  FrameType,
  frame,
  GET,
  headers,
  readFrames,
  request,
  StreamType,
} from "./support/http3-frames.ts";
import { QuicheClient } from "./support/http3-quiche-client.ts";
import { inTime, until } from "./support/poll.ts";
import { growthDuring, openFilesOf } from "./support/processes.ts";
import { RawHttp3 } from "./support/raw-http3.ts";
import { runFixture, Scratch, startFixture, type TestServer } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { UdpRelay } from "./support/udp-relay.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const start = (quic: object = {}, options: object = {}, env: Readonly<Record<string, string>> = {}) =>
  startFixture("quic.ts", { options: { http3: { engine: "quic", ...quic }, ...options }, env });

/**
 * How a connection ends on which requests were open when it was told to leave: in one of some hundred times the engine is
 * faster than the listener. When the client has acknowledged everything it ends the connection by the transport's NO_ERROR.
 */
const ENDS_WELL = ["H3_NO_ERROR", "0x0"];

interface Told {
  readonly pid: number;
  readonly name: string;
  readonly told: readonly [
    connection: { readonly id: string; readonly remotePort: number },
    detail?: unknown,
  ];
}

/** What the server's workers were told of connections so far. */
function toldBy(server: TestServer): Told[] {
  return [...server.stdout.matchAll(/^event (\d+) (\w+) (.*)$/gm)].map(([, pid, name, told]) => ({
    pid: Number(pid),
    name: name as string,
    told: JSON.parse(told as string),
  }));
}

async function untilTold(
  server: TestServer,
  name: string,
  matches: (told: Told) => boolean = () => true,
): Promise<Told> {
  return until(`the event ${name}`, 10_000, () =>
    toldBy(server).find((told) => told.name === name && matches(told)),
  );
}

async function json<Result>(peer: RawHttp3, path: string): Promise<Result> {
  const id = peer.begin(headers(request({ path })), true);
  await until(`the answer to ${path}`, 10_000, () => peer.stream(id).ended);
  return JSON.parse(peer.body(id));
}

/** A session of quiche's own HTTP/3, which tells of interim responses, trailers and tickets. */
async function quiche(port: number, options: object = {}): Promise<Http3ClientSession> {
  const session = connect(`https://127.0.0.1:${port}`, {
    rejectUnauthorized: false,
    servername: "localhost",
    runtimeMode: "portable",
    ...options,
  });
  session.on("error", () => {});
  return session;
}

const REQUEST = { ":method": "GET", ":scheme": "https", ":authority": "localhost" };

/** Sections of the answer, as quiche tells them: the first, and those that follow. */
async function sectionsOf(
  session: Http3ClientSession,
  path: string,
): Promise<{ sections: Record<string, unknown>[]; body: string }> {
  await session.ready();
  const stream = session.request({ ...REQUEST, ":path": path }, { endStream: true });
  const sections: Record<string, unknown>[] = [];
  let body = "";
  stream.on("response", (section) => sections.push(section));
  stream.on("trailers", (section) => sections.push(section));
  stream.on("data", (chunk) => {
    body += chunk;
  });
  const ended = new Promise<void>((resolve, reject) => stream.on("end", resolve).on("error", reject));
  await inTime(`the answer to ${path}`, 5_000, ended);
  return { sections, body };
}

const connectTo = (authority: string): readonly Field[] => [
  [":method", "CONNECT"],
  [":authority", authority],
];

async function openSession({ port }: Endpoint) {
  const session = await connectQuic(`127.0.0.1:${port}`, {
    servername: "localhost",
    alpn: "h3",
    verifyPeer: "manual",
  });
  // How it ends does not matter.
  session.closed.catch(() => {});
  await inTime("a connection", 5_000, session.opened);
  return session;
}

/** The code with which a connection is closed at once; null where it is taken, or nothing is heard. */
async function refusalOf(port: number, within = 10_000): Promise<number | null> {
  const peer = RawHttp3.attempt(port);
  try {
    return (await peer.untilClosed(within)).code;
  } catch {
    return null;
  } finally {
    await peer.close();
  }
}

describe("requests and responses", () => {
  const shared = sharedServer(() => start());

  test("early hints reach a client before the response (RFC 8297)", async () => {
    const session = await quiche(shared.server.port);
    try {
      // Its body is no matter here: the library drops what it reads together with a section that is not the first.
      const { sections } = await sectionsOf(session, "/hints");
      expect(sections[0]).toMatchObject({ ":status": "103" });
      expect([sections[0]?.link].flat().join()).toContain("</b.js>; rel=preload; as=script");
      expect(sections[1]).toMatchObject({ ":status": "200" });
    } finally {
      await session.close();
    }
    await using peer = await RawHttp3.open(shared.server.port);
    expect(await json(peer, "/hints")).toEqual({ sent: true });
  });

  test("early hints beside other requests do no harm to responses that wait for the congestion window", async () => {
    using relay = await UdpRelay.to(shared.server.port);
    await using other = await RawHttp3.open(shared.server.port);
    await using peer = await RawHttp3.open(relay.port);
    expect(await peer.get()).toBe(200);
    relay.hold();
    peer.begin(headers(request({ path: "/trailers/sized?bytes=100000" })), true);
    await until("the window's end", 5_000, () => relay.waiting >= 25);
    const ids = Array.from({ length: 50 }, () => peer.begin(headers(request({ path: "/hints" })), true));
    // As long as those handlers take.
    await json(other, "/hints");
    relay.release();
    for (const id of ids) {
      await until("an answer", 5_000, () => peer.stream(id).ended);
      expect(peer.statuses(id).at(-1)).toBe(200);
      // That it is left out the mode `base` alone can tell the handler.
      expect(peer.body(id)).toMatch(/^\{"sent":(true|false)\}$/);
    }
  });

  test("trailers follow the body, announced or late, or all of it (RFC 9114 §4.1)", async () => {
    const session = await quiche(shared.server.port);
    try {
      const { sections, body } = await sectionsOf(session, "/trailers");
      expect([body, sections.length]).toEqual(["body", 2]);
      expect(sections[0]).toMatchObject({ ":status": "200", trailer: "x-sum" });
      expect(sections[1]).toEqual({ "x-sum": "abc", "x-late": expect.anything() });
      const whole = await sectionsOf(session, "/trailers/whole");
      expect([whole.body, whole.sections[1]]).toEqual(["whole", { "x-sum": "abc" }]);
    } finally {
      await session.close();
    }
  });

  test("trailers are no part of bodies that wait for the congestion window", async () => {
    await using other = await RawHttp3.open(shared.server.port);
    for (const bytes of [1100, 1700, 3000]) {
      using relay = await UdpRelay.to(shared.server.port);
      await using peer = await RawHttp3.open(relay.port);
      expect(await peer.get()).toBe(200);
      relay.hold();
      const path = `/trailers/sized?bytes=${bytes}`;
      const ids = Array.from({ length: 50 }, () => peer.begin(headers(request({ path })), true));
      // The window is full, nothing is acknowledged, and the other responses have been made meanwhile.
      await until("the window's end", 5_000, () => relay.waiting >= 25);
      await other.get({ path: "/stats" });
      relay.release();
      for (const id of ids) {
        await until("an answer", 5_000, () => peer.stream(id).ended);
        expect([peer.statuses(id), peer.body(id).length]).toEqual([[200, 0], bytes]);
      }
    }
  });

  test("a request's trailers reach the handler, without those that no trailer section may have", async () => {
    await using peer = await RawHttp3.open(shared.server.port);
    const trailers = headers([
      ["x-sum", "abc"],
      ["x-sum", "def"],
      ["content-type", "a/b"],
    ]);
    for (const fields of [[], [["content-length", "2"]]] as const) {
      const head = headers(request({ method: "POST", path: "/echo", fields }));
      const id = peer.begin(Buffer.concat([head, frame(FrameType.data, "hi"), trailers]), true);
      await until("the answer", 5_000, () => peer.stream(id).ended);
      expect(JSON.parse(peer.body(id))).toEqual({ length: 2, text: "hi", trailers: { "x-sum": "abc, def" } });
    }
    // Without a body those that are announced.
    for (const fields of [[], [["content-length", "0"]]] as const) {
      const announcing = request({ path: "/echo", fields: [...fields, ["trailer", "x-sum"]] });
      const id = peer.begin(Buffer.concat([headers(announcing), trailers]), true);
      await until("the answer", 5_000, () => peer.stream(id).ended);
      expect(JSON.parse(peer.body(id))).toEqual({ length: 0, text: "", trailers: { "x-sum": "abc, def" } });
    }
  });

  test("a request is named by its connection and its stream's own id", async () => {
    await using peer = await RawHttp3.open(shared.server.port);
    const names = [];
    for (let i = 0; i < 3; i++) names.push((await json<{ name: string }>(peer, "/connection")).name);
    const [session] = (names[0] as string).split(":");
    expect(session).toMatch(/^q\d+-\d+$/);
    expect(names).toEqual([`${session}:0`, `${session}:4`, `${session}:8`]);
  });

  test("a section of more lines than the engine sends is no response without an end: a reset, and a line in the log", async () => {
    await using server = await start();
    await using peer = await RawHttp3.open(server.port);
    const ask = (query: string) => peer.begin(headers(request({ path: `/lines?${query}` })), true);
    // However late: a handler makes it, and the answer to a later request may overtake that.
    const resetOf = async (id: number) =>
      errorName(await until("the reset", 5_000, () => peer.stream(id).reset ?? undefined));
    expect(await peer.outcome(ask("head=125"))).toBe("answered 200");
    expect(await resetOf(ask("head=126"))).toBe("H3_INTERNAL_ERROR");
    await server.logs("a section of it has 129 lines, and node:quic sends 128 at most");
    const most = ask("trailers=128");
    await until("the trailers", 5_000, () => peer.stream(most).ended);
    expect(peer.statuses(most)).toHaveLength(2);
    expect(await resetOf(ask("trailers=129"))).toBe("H3_INTERNAL_ERROR");
  });

  test("what is malformed never reaches a handler", async () => {
    await using peer = await RawHttp3.open(shared.server.port);
    const before = await json<number>(peer, "/calls");
    const wrong = [
      GET.slice(1),
      [...GET, [":a", "b"]],
      [...GET, ["A", "b"]],
      [...GET, ["te", "gzip"]],
      [...GET, ["a", "b\r\n"]],
    ] as const;
    for (const fields of wrong)
      expect(await peer.outcome(peer.begin(headers(fields as typeof GET), true))).toBe(
        "reset with H3_MESSAGE_ERROR",
      );
    // Nor is more of it waited for.
    const endless = peer.begin(headers([...GET, ["A", "b"]]));
    expect(await peer.outcome(endless)).toBe("reset with H3_MESSAGE_ERROR");
    // Each was followed by a request that is in order: see `outcome`.
    expect(await json<number>(peer, "/calls")).toBe(before + wrong.length + 1);
  });

  test("a body without a length, and without any of it yet, does not keep the handler waiting", async () => {
    await using peer = await RawHttp3.open(shared.server.port);
    const id = peer.begin(headers(request({ method: "POST", path: "/ignore" })));
    await until("the answer", 5_000, () => peer.stream(id).ended);
    expect([peer.statuses(id), peer.body(id)]).toEqual([[200], "ignored"]);
  });

  test.each([
    ["CONNECT, whose stream ends behind its answer (RFC 9114 §4.4)", connectTo("a.example:443"), 501],
    ["GET", GET, 200],
  ])("a request without an end is answered all the same: %s", async (_, fields, status) => {
    await using peer = await RawHttp3.open(shared.server.port);
    const id = peer.begin(headers(fields));
    await until("the answer", 5_000, () => peer.stream(id).ended);
    expect(peer.statuses(id)).toEqual([status]);
  });

  test("expect: 100-continue is answered when the handler reads (RFC 9110 §10.1.1)", async () => {
    await using peer = await RawHttp3.open(shared.server.port);
    const fields = [
      ["expect", "100-continue"],
      ["content-length", "2"],
    ] as const;
    // Whatever else is open.
    const beside = await peer.launch(headers(request({ path: "/hang" })), true);
    const id = peer.begin(headers(request({ method: "POST", path: "/echo", fields })));
    await until("100", 5_000, () => peer.statuses(id).includes(100));
    peer.reset(beside, 0x10c);
    peer.send(id, frame(FrameType.data, "hi"), true);
    await until("the answer", 5_000, () => peer.stream(id).ended);
    expect(peer.statuses(id)).toEqual([100, 200]);
    // Not to a client that does not wait for it.
    const head = headers(request({ method: "POST", path: "/later?ms=50", fields }));
    const hasty = peer.begin(Buffer.concat([head, frame(FrameType.data, "hi")]), true);
    await until("the answer", 5_000, () => peer.stream(hasty).ended);
    expect(peer.statuses(hasty)).toEqual([200]);
  });
});

describe("connections", () => {
  test("connect, handshake and close are told to one worker, which can ask how they are", async () => {
    await using server = await start({}, { workers: 2, mode: "process" });
    const ids: string[] = [];
    for (let i = 0; i < 4; i++) {
      await using peer = await RawHttp3.open(server.port);
      const { name, info, none } = await json<{ name: string; info: Record<string, unknown>; none: unknown }>(
        peer,
        "/connection",
      );
      const id = name.split(":")[0] as string;
      ids.push(id);
      expect(none).toBeNull();
      expect(info).toMatchObject({
        id,
        protocol: "HTTP/3",
        remoteAddress: "127.0.0.1",
        localAddress: "127.0.0.1",
        localPort: server.port,
        serverName: "localhost",
        packetsLost: expect.any(Number),
        streams: { open: 1, total: 1 },
      });
      const { rtt, since } = info as { rtt: Record<string, number>; since: number };
      for (const each of ["latest", "min", "smoothed"]) expect(rtt[each]).toBeWithin(0.001, 1000);
      expect(Math.abs(Date.now() - since)).toBeLessThan(5_000);
      for (const each of ["bytesReceived", "bytesSent", "packetsReceived", "packetsSent", "congestionWindow"])
        expect(info[each]).toBeGreaterThan(0);
    }
    for (const id of ids) {
      const close = await untilTold(server, "close", ({ told }) => told[0].id === id);
      const [connect, handshake] = toldBy(server).filter(({ told }) => told[0].id === id);
      expect([connect?.name, handshake?.name]).toEqual(["connect", "handshake"]);
      expect(new Set([connect, handshake, close].map((each) => each?.pid)).size).toBe(1);
      expect(handshake?.told[1]).toMatchObject({
        protocol: "h3",
        serverName: "localhost",
        earlyData: "none",
        cipher: expect.stringMatching(/^TLS_/),
      });
      expect(close.told[1]).toMatchObject({ by: "client", code: 0 });
    }
    expect(new Set(toldBy(server).map(({ pid }) => pid)).size).toBe(2);
  });

  test("connections that come after a reload are told to the new workers, while the old have requests", async () => {
    await using server = await start({}, { workers: 1, mode: "process" });
    await using busy = await RawHttp3.open(server.port);
    busy.begin(headers(request({ path: "/hang" })), true);
    const before = await untilTold(server, "connect");
    server.kill("SIGHUP");
    await server.logs("reloaded");
    for (let i = 0; i < 2; i++) {
      await using peer = await RawHttp3.open(server.port);
      const { name } = await json<{ name: string }>(peer, "/connection");
      const id = name.split(":")[0];
      const connect = await untilTold(server, "connect", ({ told }) => told[0].id === id);
      expect(connect.pid).not.toBe(before.pid);
    }
  });

  test("close tells who closed it, with which code, and why", async () => {
    await using server = await start(
      { idleTimeout: 1000 },
      { keepAliveTimeout: 2000 },
      { TERCET_TEST_THROW: "1" },
    );
    const closeOf = async (close: (peer: RawHttp3, relay: UdpRelay) => unknown) => {
      using relay = await UdpRelay.to(server.port);
      const peer = await RawHttp3.open(relay.port);
      const { name } = await json<{ name: string }>(peer, "/connection");
      await close(peer, relay);
      const { told } = await untilTold(server, "close", ({ told }) => told[0].id === name.split(":")[0]);
      await peer.close();
      return told[1];
    };
    expect(await closeOf((peer) => peer.close(0x107, "too much"))).toEqual({
      by: "client",
      space: "application",
      code: 0x107,
      reason: "too much",
    });
    expect(await closeOf((peer) => peer.send(2, frame(FrameType.data, "x")))).toEqual({
      by: "server",
      space: "transport",
      code: 1,
      reason: expect.stringContaining("not allowed on the control stream"),
    });
    expect(await closeOf((_, relay) => relay.vanish())).toEqual({
      by: "idle",
      space: "transport",
      code: 0,
      reason: "",
    });
    // What a listener throws goes to the log, and harms nobody.
    await server.logs(/error in close q\d+-\d+: Error: a secret of the close listener/);
  });

  test("a connection without requests is closed after keepAliveTimeout, with H3_NO_ERROR", async () => {
    await using server = await start({}, { keepAliveTimeout: 1000 });
    await using peer = await RawHttp3.open(server.port);
    await using busy = await RawHttp3.open(server.port);
    busy.begin(headers(request({ path: "/hang" })), true);
    const { name } = await json<{ name: string }>(peer, "/connection");
    const began = performance.now();
    expect(errorName((await peer.untilClosed()).code)).toBe("H3_NO_ERROR");
    expect(performance.now() - began).toBeGreaterThan(800);
    const { told } = await untilTold(server, "close", ({ told }) => told[0].id === name.split(":")[0]);
    expect(told[1]).toEqual({
      by: "server",
      space: "application",
      code: 0x100,
      reason: "no request for keepAliveTimeout",
    });
    expect(busy.closed).toBeNull();
  });

  test("a stream of a reserved type keeps what has been still from being given up (RFC 9114 §6.2.3)", async () => {
    await using server = await start({}, { mode: "base", workers: 1, keepAliveTimeout: 1000 });
    await using peer = await RawHttp3.open(server.port);
    peer.begin(headers(request({ path: "/hang" })), true);
    // The control stream and those of QPACK are 3, 7 and 11.
    for (const id of [15, 19]) {
      expect(peer.stream(id).length).toBe(0);
      await using other = await RawHttp3.open(server.port);
      await other.get({ path: "/later-on" });
      await until("a stream", 5_000, () => peer.stream(id).ended);
      expect([...peer.stream(id).data]).toEqual([StreamType.reserved, 0]);
    }
  });

  test("migrate is told when a client goes on from another address, and its requests go on", async () => {
    await using server = await start();
    using relay = await UdpRelay.to(server.port);
    await using peer = await RawHttp3.open(relay.port);
    const before = relay.address;
    const { name } = await json<{ name: string }>(peer, "/connection");
    await relay.move();
    const { info } = await json<{ info: unknown }>(peer, "/connection");
    const { told } = await untilTold(server, "migrate");
    expect(told).toEqual([
      expect.objectContaining({ id: name.split(":")[0], remotePort: relay.address }),
      { remoteAddress: "127.0.0.1", remotePort: before },
    ]);
    expect(info).not.toBeNull();
    const after = await json<{ name: string; info: { remotePort: number } }>(peer, "/connection");
    expect([after.name.split(":")[0], after.info.remotePort]).toEqual([name.split(":")[0], relay.address]);
  });

  test("without listeners nothing is told", async () => {
    await using server = await start({}, {}, { TERCET_TEST_DEAF: "1" });
    await using peer = await RawHttp3.open(server.port);
    expect(await peer.get()).toBe(200);
    expect(toldBy(server)).toEqual([]);
  });

  test("another engine tells nothing, and the log says so", async () => {
    await using server = await startFixture("quic.ts", { options: { http3: "native" } });
    await server.logs(
      'nobody tells of connect, handshake, migrate, close: only the HTTP/3 engine "quic" does',
    );
  });
});

describe("early data (RFC 8470)", () => {
  /**
   * Connects twice, the second time with a request as soon as the client lets it.
   * @param early before anything of the server's has come
   */
  async function resumed(
    server: TestServer,
    method: string,
    early: boolean,
    fields: Readonly<Record<string, string>> = {},
  ): Promise<{ status: string; body: string }> {
    const first = await quiche(server.port, { allow0RTT: true });
    const ticket = await inTime(
      "a ticket",
      5_000,
      new Promise<Buffer>((resolve) => first.on("sessionTicket", resolve)),
    );
    await first.close();
    using relay = await UdpRelay.to(server.port);
    if (early) relay.hold();
    const session = await quiche(relay.port, {
      allow0RTT: true,
      allowUnsafe0RTTMethods: true,
      sessionTicket: ticket,
    });
    try {
      const stream = await until("a way for early data", 2_000, () => {
        try {
          return session.request(
            { ...REQUEST, ":method": method, ":path": "/early", ...fields },
            { endStream: true },
          );
        } catch {
          // Not yet.
          return undefined;
        }
      });
      const head = new Promise<Record<string, unknown>>((resolve) => stream.on("response", resolve));
      let body = "";
      stream.on("data", (chunk) => {
        body += chunk;
      });
      const ended = new Promise<void>((resolve, reject) => stream.on("end", resolve).on("error", reject));
      await until("the request's leaving", 5_000, () => relay.passed >= (early ? 2 : 1));
      relay.release();
      await inTime("the answer", 5_000, ended);
      return { status: String((await head)[":status"]), body };
    } finally {
      await session.close();
    }
  }

  test("where it is on: a safe method is told of it, another gets 425", async () => {
    await using server = await start({ earlyData: true });
    const safe = await resumed(server, "GET", true);
    expect([safe.status, JSON.parse(safe.body)]).toEqual(["200", { early: true, method: "GET" }]);
    expect((await resumed(server, "POST", true)).status).toBe("425");
    const denied = { "early-data": "0" };
    expect((await resumed(server, "POST", true, denied)).status).toBe("425");
    expect(JSON.parse((await resumed(server, "GET", true, denied)).body)).toMatchObject({ early: true });
    const told = await untilTold(
      server,
      "handshake",
      ({ told }) => (told[1] as { earlyData: string }).earlyData === "accepted",
    );
    expect(told.told[0].remotePort).toBeGreaterThan(0);
  });

  test("by default nothing is taken before the handshake is done", async () => {
    await using server = await start();
    const { status, body } = await resumed(server, "POST", false);
    expect([status, JSON.parse(body)]).toEqual(["200", { early: false, method: "POST" }]);
    expect(
      toldBy(server).every(
        ({ name, told }) =>
          name !== "handshake" || (told[1] as { earlyData: string }).earlyData !== "accepted",
      ),
    ).toBe(true);
  });
});

describe("options", () => {
  test("maxConnectionsPerAddress, connectionRate, handshakeRate: one more is refused with CONNECTION_REFUSED", async () => {
    for (const [options, taken] of [
      [{ maxConnectionsPerAddress: 2 }, 2],
      [{ connectionRate: 1 }, 1],
      [{ handshakeRate: 1 }, 1],
    ] as const) {
      await using server = await start(options);
      const peers = [];
      try {
        for (let i = 0; i < taken; i++) {
          const peer = await RawHttp3.open(server.port);
          peers.push(peer);
          expect(await peer.get()).toBe(200);
        }
        const code = await refusalOf(server.port);
        expect(code).toBe(2);
      } finally {
        for (const peer of peers) await peer.close();
      }
    }
  });

  test("a client that goes on from another address counts for the one that it came from, until it leaves", async () => {
    await using server = await start({ maxConnectionsPerAddress: 1 });
    for (let i = 0; i < 2; i++) {
      using relay = await UdpRelay.to(server.port);
      await using peer = await RawHttp3.open(relay.port);
      expect(await peer.get()).toBe(200);
      await relay.move("127.0.0.2");
      await json(peer, "/connection");
      await until("the migration", 10_000, () => server.stdout.match(/ migrate /g)?.length === i + 1);
      await peer.close();
      await until("the end", 10_000, () => server.stdout.match(/ close /g)?.length === i + 1);
    }
  });

  test("the server's own maxConnections and maxConnectionsPerAddress count those over TCP and these together", async () => {
    for (const name of ["maxConnections", "maxConnectionsPerAddress"]) {
      await using server = await startFixture("quic.ts", { options: { http3: "quic", [name]: 2 } });
      await using _tcp = await HTTP2.open(server);
      {
        await using peer = await RawHttp3.open(server.port);
        expect(await peer.get()).toBe(200);
        for (let i = 0; i < 2; i++) expect(await refusalOf(server.port)).toBe(2);
      }
      await until("room", 5_000, async () => (await refusalOf(server.port, 1_000)) === null);
    }
  });

  test("the server's own maxRequestsPerConnection: GOAWAY, the answers to all that came, and the connection's end", async () => {
    await using server = await startFixture("quic.ts", {
      options: { http3: "quic", maxRequestsPerConnection: 2 },
    });
    await using peer = await RawHttp3.open(server.port);
    const slow = peer.begin(headers(request({ path: "/hints" })), true);
    expect(await peer.get()).toBe(200);
    const control = () => readFrames(peer.serverStream(StreamType.control)?.data ?? Buffer.alloc(0));
    await until("GOAWAY", 5_000, () => control().some(({ type }) => type === FrameType.goaway));
    expect(ENDS_WELL).toContain(errorName((await peer.untilClosed()).code));
    // Without early hints: the other request may have been open by then.
    expect(peer.statuses(slow).at(-1)).toBe(200);
    expect(peer.stream(slow).ended).toBe(true);
    await using again = await RawHttp3.open(server.port);
    expect(await again.get()).toBe(200);
  });

  test("block and allow: packets of others are dropped unread; of both, block is held to when it connects", async () => {
    const dropping = [{ block: ["127.0.0.0/8"] }, { allow: ["192.0.2.0/24", "2001:db8::/32"] }];
    await Promise.all(
      dropping.map(async (options) => {
        await using server = await start(options);
        await expect(RawHttp3.connect(server.port)).rejects.toThrow();
      }),
    );
    await using server = await start({ allow: ["127.0.0.0/8"], block: ["127.0.0.1"] });
    expect(await refusalOf(server.port)).toBe(2);
    await using open = await start({ allow: ["127.0.0.1"], block: ["192.0.2.1"] });
    await using peer = await RawHttp3.open(open.port);
    expect(await peer.get()).toBe(200);
  });

  test("maxFieldSectionSize, and maxHeaderBytes beside it: over the smaller one 431, in one line or many", async () => {
    for (const [quic, options, passes] of [
      [{ maxFieldSectionSize: 4096 }, {}, 3_000],
      [{ maxFieldSectionSize: 131_072 }, { maxHeaderBytes: 4096 }, 3_000],
      [{}, { maxHeaderBytes: 1024 }, 500],
    ] as const) {
      await using server = await start(quic, options);
      await using peer = await RawHttp3.open(server.port);
      const line = (bytes: number) => request({ fields: [["x-long", "x".repeat(bytes)]] });
      const outcome = (head: readonly Field[]) => peer.outcome(peer.begin(headers(head), true));
      expect(await outcome(line(passes))).toBe("answered 200");
      for (const bytes of [5_000, 40_000, 200_000]) expect(await outcome(line(bytes))).toBe("answered 431");
      const many = Array.from({ length: 500 }, (): Field => ["x-many", "x"]);
      expect(await outcome(request({ fields: many }))).toBe("answered 431");
    }
  });

  test("maxConcurrentStreams: no more requests are open at a time (RFC 9000 §4.6)", async () => {
    await using server = await start({ maxConcurrentStreams: 3 });
    const session = await quiche(server.port);
    try {
      await session.ready();
      const open = () =>
        session.request({ ...REQUEST, ":path": "/hang" }, { endStream: true }).on("error", () => {});
      for (let i = 0; i < 3; i++) open();
      expect(open).toThrow("StreamLimit");
    } finally {
      await session.close();
    }
  });

  test("windows, streams and datagrams: what clients are told of them (RFC 9000 §18.2)", async () => {
    await using server = await start({
      maxConcurrentStreams: 7,
      streamWindow: 65_536,
      connectionWindow: 131_072,
      maxDatagramSize: 1400,
    });
    const session = await openSession(server);
    try {
      // In Node and in Bun; the types leave it out.
      expect((session as unknown as { remoteTransportParams: object }).remoteTransportParams).toMatchObject({
        initialMaxStreamsBidi: 7n,
        initialMaxStreamDataBidiRemote: 65_536n,
        initialMaxData: 131_072n,
        maxUdpPayloadSize: 1400n,
      });
    } finally {
      await session.close();
    }
  });

  const LARGEST = {
    maxFieldSectionSize: 1024 ** 2,
    qpackMaxTableCapacity: 1024 ** 2,
    qpackBlockedStreams: 65_535,
    maxConcurrentStreams: 65_535,
    streamWindow: 64 * 1024 ** 2,
    connectionWindow: 256 * 1024 ** 2,
    idleTimeout: 600_000,
    handshakeTimeout: 16_777,
    maxDatagramSize: 65_527,
    connectionRate: 1_000_000,
    handshakeRate: 1_000_000,
    maxConnectionsPerAddress: 1_000_000,
  };
  const SMALLEST = {
    maxFieldSectionSize: 1024,
    qpackMaxTableCapacity: 0,
    qpackBlockedStreams: 0,
    maxConcurrentStreams: 1,
    streamWindow: 16 * 1024,
    connectionWindow: 16 * 1024,
    idleTimeout: 1000,
    // A machine that is busy may need longer than the 100 ms of the smallest.
    handshakeTimeout: 5_000,
    maxDatagramSize: 1200,
    connectionRate: 1,
    handshakeRate: 1,
    maxConnectionsPerAddress: 1,
  };
  test.each([
    ["largest", LARGEST],
    ["smallest", SMALLEST],
  ])("each at the %s that it may be: requests are answered", async (_, quic) => {
    await using server = await start(quic);
    const session = await quiche(server.port);
    try {
      expect((await sectionsOf(session, "/")).body).toBe("hello");
    } finally {
      await session.close();
    }
  });

  test("handshakeTimeout: a client that does not go on is forgotten", async () => {
    await using server = await start({ handshakeTimeout: 500 });
    using relay = await UdpRelay.to(server.port);
    relay.mayPass = 1;
    // All that this client needs has come to it; of what it sent the server has the first alone.
    await using peer = await RawHttp3.open(relay.port);
    const id = peer.begin(headers(GET), true);
    await Bun.sleep(1_000);
    relay.mayPass = Number.POSITIVE_INFINITY;
    await peer.untilClosed();
    expect([peer.statuses(id), toldBy(server)]).toEqual([[], []]);
  });

  test("sni: each name has its own certificate, and any other that of tls (RFC 6066 §3)", async () => {
    const [own, other] = [await CERTIFICATE, await OTHER_CERTIFICATE];
    await using server = await start({ sni: { "other.example": other, "*.wild.example": other } });
    const trusts = async (servername: string, ca: string) => {
      const session = await quiche(server.port, {
        servername,
        ca,
        rejectUnauthorized: true,
        connectTimeoutMs: 3_000,
      });
      const verdict = await session.ready().then(
        () => true,
        () => false,
      );
      await session.close();
      return verdict;
    };
    expect(await trusts("localhost", own.cert)).toBe(true);
    expect(await trusts("localhost", other.cert)).toBe(false);
    for (const name of ["other.example", "a.wild.example"]) {
      await using peer = await RawHttp3.open(server.port, undefined, name);
      expect((await json<{ info: { serverName: string } }>(peer, "/connection")).info.serverName).toBe(name);
    }
  });

  test("keylog and qlog that cannot be written keep the server from starting, in one line", async () => {
    const wrong = [
      [{ qlog: "/no/such" }, 'option "http3.qlog" is "/no/such", which is not there'],
      [
        { keylog: "/no/such/keys" },
        'option "http3.keylog" is "/no/such/keys", in the folder /no/such, which is not there',
      ],
      [{ keylog: "/" }, 'option "http3.keylog" is "/", which cannot be written'],
    ] as const;
    for (const [quic, message] of wrong) {
      await using program = await runFixture("quic.ts", { options: { http3: { engine: "quic", ...quic } } });
      expect(await program.ended()).toBe(1);
      expect(program.stderr).toContain(message);
    }
  });

  test("keylog and qlog: the secrets in a file of mode 0600, a file about each connection in a folder", async () => {
    const scratch = await Scratch.make();
    const [keylog, qlog] = [scratch.file("keys.log"), scratch.file("qlog")];
    mkdirSync(qlog);
    await using server = await startFixture("quic.ts", {
      scratch,
      options: { http3: { engine: "quic", keylog, qlog } },
    });
    // What looks like the beginning of a connection, and is none (RFC 9000 §17.2.2), gets no file.
    const stranger = createSocket("udp4");
    const initial = Buffer.from("c300000001081111111111111111082222222222222222004496", "hex");
    for (let i = 0; i < 5; i++) {
      const datagram = Buffer.concat([initial, Buffer.alloc(1200 - initial.length, i + 1)]);
      datagram[6] = i;
      await new Promise((resolve) => stranger.send(datagram, server.port, "127.0.0.1", resolve));
    }
    stranger.close();
    const peer = await RawHttp3.open(server.port);
    const { name } = await json<{ name: string }>(peer, "/connection");
    await peer.close();
    await untilTold(server, "close");
    const secrets = await until("the secrets", 5_000, () => {
      const text = readFileSync(keylog, "latin1");
      return text.includes("SERVER_TRAFFIC_SECRET_0") && text;
    });
    expect(secrets).toMatch(/^CLIENT_TRAFFIC_SECRET_0 [0-9a-f]{64} [0-9a-f]+$/m);
    const file = `${name.split(":")[0]}.sqlog`;
    expect(readdirSync(qlog)).toEqual([file]);
    const records = await until("the last record", 5_000, () => {
      const text = readFileSync(`${qlog}/${file}`, "utf8");
      return text.includes("connection_closed") && text;
    });
    for (const record of records.split("\x1e").slice(1)) JSON.parse(record);
    for (const part of ["qlog_version", "connection_started"]) expect(records).toContain(part);
    for (const path of [keylog, `${qlog}/${file}`]) expect(statSync(path).mode & 0o777).toBe(0o600);
    // A file that was moved away is made anew; what cannot be written is said once, and tried again.
    const visit = async () => {
      await using peer = await RawHttp3.open(server.port);
      return (await json<{ name: string }>(peer, "/connection")).name.split(":")[0] as string;
    };
    renameSync(keylog, `${keylog}.1`);
    rmSync(qlog, { recursive: true });
    const gone = [await visit(), await visit()];
    for (const id of gone) await untilTold(server, "close", ({ told }) => told[0].id === id);
    await server.logs(/http3\.qlog: .*ENOENT/);
    expect(readFileSync(keylog, "latin1")).toContain("SERVER_TRAFFIC_SECRET_0");
    mkdirSync(qlog);
    const back = await visit();
    await until("its file", 5_000, () => readdirSync(qlog).includes(`${back}.sqlog`));
    expect(server.stderr.match(/http3\.(qlog|keylog)/g)).toEqual(["http3.qlog"]);
  });

  test("what node:quic does not do is said in the log", async () => {
    await using server = await start({ qpackMaxTableCapacity: 0, qpackBlockedStreams: 100 });
    await server.logs(/http3\.qpackMaxTableCapacity: node:quic in Bun \S+ tells clients 4096 all the same/);
    expect(server.stderr).not.toContain("qpackBlockedStreams");
  });
});

describe("bodies that are not read", () => {
  const MIB = 1_048_576;

  test("wait on the disk, and arrive whole; the memory does not grow, and nothing stays behind", async () => {
    await using server = await start({}, { maxBodyBytes: 256 * MIB });
    await using client = await QuicheClient.connect(server);
    const size = 96 * MIB;
    const chunk = Buffer.alloc(65_536, "tercet ");
    const hasher = new Bun.CryptoHasher("sha256");
    const pieces = async function* () {
      for (let left = size; left > 0; left -= chunk.length) {
        hasher.update(chunk);
        yield chunk;
      }
    };
    await using observer = await RawHttp3.open(server.port);
    const { reactors } = await json<{ reactors: { pid: number }[] }>(observer, "/stats");
    const grown = await growthDuring(reactors[0]?.pid ?? 0, async () => {
      const response = await client.uploadFreely({ path: "/later?ms=1500", body: pieces() });
      expect(await response.body.json<unknown>()).toEqual({ length: size, sha256: hasher.digest("hex") });
    });
    expect(grown).toBeLessThan(48 * MIB);
  });

  test("wait in the folder of uploads, in a file without a name, which is gone with the client", async () => {
    const scratch = await Scratch.make();
    const directory = scratch.file("bodies");
    mkdirSync(directory);
    await using server = await startFixture("quic.ts", {
      scratch,
      options: { http3: "quic", upload: { directory } },
    });
    await using observer = await RawHttp3.open(server.port);
    const { reactors } = await json<{ reactors: { pid: number }[] }>(observer, "/stats");
    const files = () => openFilesOf(reactors[0]?.pid ?? 0).filter((path) => path.startsWith(directory));
    await using peer = await RawHttp3.open(server.port);
    const id = peer.begin(headers(request({ method: "POST", path: "/hang" })));
    const piece = frame(FrameType.data, Buffer.alloc(65_536));
    await until("the file", 5_000, () => {
      if (files().length === 1) return true;
      peer.send(id, piece);
      return false;
    });
    expect(files()[0]).toEndWith(" (deleted)");
    expect(readdirSync(directory).filter((name) => name.startsWith("spool"))).toEqual([]);
    await peer.close();
    await until("its end", 5_000, () => files().length === 0);
  });

  test.each(["process", "base"])(
    "do not come to an end, short as they are: behind the answer their client is told to stop (RFC 9114 §4.1), in the mode %s",
    async (mode) => {
      await using server = await start({}, { mode });
      await using peer = await RawHttp3.open(server.port);
      const ids = ["", "x"].map((body) =>
        peer.begin(
          Buffer.concat([
            headers(request({ method: "POST", path: "/ignore" })),
            ...(body === "" ? [] : [frame(FrameType.data, body)]),
          ]),
        ),
      );
      await until("the answers", 5_000, () => ids.every((id) => peer.stream(id).ended));
      expect(ids.map((id) => peer.body(id))).toEqual(["ignored", "ignored"]);
      await until("the streams' end", 5_000, async () => {
        const { info } = await json<{ info: { streams: { open: number } } }>(peer, "/connection");
        // Its own is the one.
        return info.streams.open === 1;
      });
    },
  );

  test("over maxBodyBytes are 413, however slow the handler", async () => {
    await using server = await start({}, { maxBodyBytes: MIB });
    await using client = await QuicheClient.connect(server);
    const pieces = async function* () {
      for (let i = 0; i < 32; i++) yield Buffer.alloc(65_536);
    };
    expect((await client.uploadFreely({ path: "/later?ms=100", body: pieces() })).status).toBe(413);
  });
});

describe("peers that do no good", () => {
  /** So much that nothing else that leaves in the meantime is as long. */
  const PADDING = [["x-padding", "x".repeat(1000)]] as const;

  /** Of those that were reset, the server lets others take the place one by one (RFC 9000 §4.6). */
  const whenThereIsRoom = <Result>(open: () => Promise<Result>) => until("room for a stream", 5_000, open);
  const shared = sharedServer(() => start());

  test("requests that are reset at any moment leave nothing in flight, and no error in the log", async () => {
    const { server } = shared;
    await using observer = await RawHttp3.open(server.port);
    for (let round = 0; round < 6; round++) {
      await using peer = await RawHttp3.open(server.port);
      for (const path of ["/hang", "/trickle", "/echo", "/later?ms=5", "/hang?empty"]) {
        const whole = path === "/hang" || path === "/trickle";
        const empty: readonly Field[] = path === "/hang?empty" ? [["content-length", "0"]] : [];
        const fields = [...PADDING, ...empty];
        const head = headers(request({ method: whole ? "GET" : "POST", path, fields }));
        const id = await peer.launch(head, whole);
        await Bun.sleep(round * 2);
        // What is left open ends with its connection.
        if (round !== 5) peer.reset(id, 0x10c);
      }
      if (round !== 5) expect([await peer.get(), peer.closed]).toEqual([200, null]);
    }
    await until("nothing in flight", 10_000, async () => {
      const { inFlight } = await json<{ inFlight: number }>(observer, "/stats");
      return inFlight === 1;
    });
    expect(server.stderr).toBe("");
  });

  test("a body that is broken off ends its request with H3_REQUEST_INCOMPLETE (RFC 9114 §4.1)", async () => {
    const { server } = shared;
    await using observer = await RawHttp3.open(server.port);
    // The raw client always ends both sides of a stream.
    const session = await openSession(server);
    try {
      const requests = [
        ["GET", "/hang"],
        ["POST", "/hang"],
        ["POST", "/echo"],
        ["POST", "/trickle"],
      ] as const;
      for (const [method, path] of requests) {
        const stream = await session.createBidirectionalStream();
        stream.closed.catch(() => {});
        stream.sendHeaders({ ...REQUEST, ":method": method, ":path": path });
        if (method === "POST") stream.writer.writeSync("hi");
        await Bun.sleep(50);
        (stream as unknown as { resetStream(code: bigint): void }).resetStream(0x10cn);
        const reset = new Promise((resolve) => {
          stream.onreset = (error) => resolve(Number((error as QuicError).errorCode));
        });
        expect(await inTime(`the end of ${method} ${path}`, 5_000, reset)).toBe(0x10d);
      }
    } finally {
      // What is left would end with the connection.
      await until("nothing in flight", 5_000, async () => {
        const { inFlight } = await json<{ inFlight: number }>(observer, "/stats");
        return inFlight === 1;
      });
      await session.close();
    }
    expect(server.stderr).toBe("");
  });

  test("a flood of resets, of tiny frames, or of unknown frames grows no memory", async () => {
    const { server } = shared;
    await using observer = await RawHttp3.open(server.port);
    const { reactors } = await json<{ reactors: { pid: number }[] }>(observer, "/stats");
    const flood = async () => {
      await using peer = await RawHttp3.open(server.port);
      for (let i = 0; i < 25; i++) {
        const head = headers(request({ path: "/hang", fields: PADDING }));
        const launch = () => whenThereIsRoom(() => peer.launch(head, true));
        const burst = Array.from({ length: 20 }, launch);
        for (const id of await Promise.all(burst)) peer.reset(id, 0x10c);
      }
      const tiny = Buffer.concat(Array.from({ length: 2000 }, () => frame(FrameType.data, "x")));
      const grease = Buffer.concat(Array.from({ length: 2000 }, (_, i) => frame(0x21 + 0x1f * i)));
      const whole = Buffer.concat([headers(request({ method: "POST", path: "/echo" })), tiny, grease]);
      const id = await whenThereIsRoom(async () => peer.begin(whole, true));
      await until("the answer", 10_000, () => peer.stream(id).ended);
      expect(JSON.parse(peer.body(id))).toMatchObject({ length: 2000 });
    };
    await flood();
    const grown = await growthDuring(reactors[0]?.pid ?? 0, async () => {
      for (let connection = 0; connection < 3; connection++) await flood();
    });
    expect(grown).toBeLessThan(24 * 1_048_576);
    expect(server.stderr).toBe("");
  });

  test("clients that vanish hold up nobody: no response of the others stands still for 100 ms", async () => {
    await using server = await start({}, { shutdownTimeout: 500 });
    await using others = await QuicheClient.connect(server);
    await using elsewhere = await QuicheClient.connect(shared.server);
    /** Milliseconds that a long response stands still at most. */
    const longestPause = async (client: Client) => {
      // Fast enough that what is sent next, after the answer to a client that has vanished, is for these.
      const { body } = await client.request({ path: "/trickle?bytes=400000&every=5" });
      let longest = 0;
      let last = performance.now();
      const end = last + 2_500;
      for await (const _ of body) {
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
        if (now > end) break;
      }
      return longest;
    };
    /** How much longer it stands still than it may, while one client after the other vanishes: the machine may be busy. */
    const excess = async () => {
      const isOver = new AbortController();
      const vanishing = (async () => {
        while (!isOver.signal.aborted) {
          await askAndVanish(server.port);
          await Bun.sleep(5);
        }
      })();
      const pauses = Promise.all([longestPause(others), longestPause(elsewhere)]);
      const [longest, beside] = await inTime("the responses", 15_000, pauses);
      isOver.abort();
      await vanishing;
      return longest - Math.max(100, Math.min(2 * beside, 800));
    };
    // A stall takes a second, in every round. From other work on the machine some may suffer.
    let least = Number.POSITIVE_INFINITY;
    for (let round = 1; round <= 6 && least >= 0; round++) least = Math.min(least, await excess());
    expect(least).toBeLessThan(0);
  });

  test("a client that acknowledges nothing holds up nobody", async () => {
    const { server } = shared;
    using relay = await UdpRelay.to(server.port);
    await using others = await RawHttp3.open(server.port);
    await using peer = await RawHttp3.open(relay.port);
    expect(await peer.get()).toBe(200);
    relay.hold();
    peer.begin(headers(request({ path: "/trailers/sized?bytes=100000" })), true);
    await until("the window's end", 5_000, () => relay.waiting >= 25);
    const ids = Array.from({ length: 60 }, () => peer.begin(headers(GET), true));
    for (let i = 0; i < 20; i++) expect(await others.get()).toBe(200);
    relay.release();
    for (const id of ids) await until("its own answers", 5_000, () => peer.stream(id).ended);
    expect(ids.map((id) => peer.statuses(id))).toEqual(ids.map(() => [200]));
  });

  /**
   * Sends a packet that a server has to answer (of a version that is nobody's: RFC 9000 §6.1), and is gone when the answer comes:
   * the system tells the server so, by ICMP.
   */
  async function askAndVanish(port: number): Promise<void> {
    const packet = Buffer.alloc(1200);
    packet[0] = 0xc0;
    packet.writeUInt32BE(0x1a2a3a4a, 1);
    for (const at of [5, 14]) {
      packet[at] = 8;
      crypto.getRandomValues(packet.subarray(at + 1, at + 9));
    }
    const socket = createSocket("udp4");
    await new Promise((resolve) => socket.send(packet, port, "127.0.0.1", resolve));
    await new Promise<void>((resolve) => socket.close(resolve));
  }
});

describe("shutdown", () => {
  test("GOAWAY, what is open is finished, what comes later is not taken, and no error at the end (RFC 9114 §5.2)", async () => {
    await using server = await start();
    await using peer = await RawHttp3.open(server.port);
    await using idle = await RawHttp3.open(server.port);
    expect(await idle.get()).toBe(200);
    const id = peer.begin(headers(request({ method: "POST", path: "/echo" })));
    await until(
      "the request",
      5_000,
      async () => (await json<{ inFlight: number }>(idle, "/stats")).inFlight === 2,
    );
    server.kill("SIGTERM");
    const goaway = await until("GOAWAY", 5_000, () => {
      const control = peer.serverStream(StreamType.control);
      return control && readFrames(control.data).find(({ type }) => type === FrameType.goaway);
    });
    expect(goaway.payload).toEqual(Buffer.from([id + 4]));
    const late = peer.begin(headers(GET), true);
    expect(await refusalOf(server.port)).toBe(2);
    // Longer than connections are kept on which nothing is open.
    await idle.untilClosed();
    peer.send(id, frame(FrameType.data, "hi"), true);
    await until("the answer", 5_000, () => peer.stream(id).ended);
    expect(peer.statuses(id)).toEqual([200]);
    expect(ENDS_WELL).toContain(errorName((await peer.untilClosed()).code));
    expect(errorName((await idle.untilClosed()).code)).toBe("H3_NO_ERROR");
    expect(peer.statuses(late)).toEqual([]);
    expect(await server.ended()).toBe(0);
    await server.leavesNothing();
    expect(server.stderr).toBe("");
  });

  test("the end of what is open past shutdownTimeout is told, too", async () => {
    await using server = await start({}, { mode: "process", shutdownTimeout: 100 });
    await using peer = await RawHttp3.open(server.port);
    // And of what has not begun nothing: of this one the server has the first datagram alone.
    using relay = await UdpRelay.to(server.port);
    relay.mayPass = 1;
    await using _greeting = await RawHttp3.open(relay.port);
    peer.begin(headers(request({ path: "/hang" })), true);
    const { told } = await untilTold(server, "connect");
    server.kill("SIGTERM");
    expect(await server.ended()).toBe(0);
    const close = await untilTold(server, "close", (each) => each.told[0].id === told[0].id);
    expect(close.told[1]).toMatchObject({ by: "server", reason: "the server is shutting down" });
    expect(toldBy(server).map(({ name }) => name)).toEqual(["connect", "handshake", "close"]);
  });
});
