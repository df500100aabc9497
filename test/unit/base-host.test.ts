/** The host of the mode `base`: which handlers run, and what they are told, without a socket. */
import { describe, expect, mock, test } from "bun:test";
import { BaseHost, type BaseLimits } from "../../src/base/base-host.ts";
import { now } from "../../src/clock.ts";
import {
  BodyLostError,
  type Exchange,
  type FileBody,
  type RequestBody,
  type ResponseHead,
} from "../../src/exchange.ts";
import type { TrustedProxies } from "../../src/http/proxy.ts";
import { failureOf, until } from "../support/poll.ts";

/** A host whose handlers note that they run, and leave their exchanges open. */
function hostOf(
  bounds: Partial<BaseLimits> = {},
  handle: (exchange: Exchange) => void = () => {},
  { maxRequests = 0, proxies = null as TrustedProxies | null } = {},
) {
  const limits = { maxHeaderBytes: 1000, maxBodyBytes: 10, requestTimeout: 0, maxExchanges: 100 };
  const queue = { concurrency: 0, maxQueue: 10, queueTarget: 1000 };
  const ran: Exchange[] = [];
  const told: string[] = [];
  const lines: string[] = [];
  const spent = mock();
  const host = new BaseHost(
    (exchange) => {
      ran.push(exchange);
      exchange.onAborted = ({ path }) => told.push(path);
      handle(exchange);
    },
    { compression: null, proxies },
    { ...limits, ...queue, ...bounds },
    maxRequests,
    { spent, connections: { events: new Set(), told: () => {} }, log: (line) => void lines.push(line) },
  );
  /** What clients were sent: the path, and a status, or what else it was. */
  const sent: string[] = [];
  const requestOf = (path: string, sink: object = {}, own: object = {}) => {
    const head = { protocol: "HTTP/2", method: "GET", authority: "a", path, fields: [], session: "1" };
    const whole = {
      headSent: false,
      respond: ({ status }: ResponseHead) => void sent.push(`${path} ${status}`),
      head: ({ status }: ResponseHead) => {
        whole.headSent = true;
        sent.push(`${path} begins with ${status}`);
      },
      data: () => true,
      end: () => void sent.push(`${path} ends`),
      abort: () => void sent.push(`${path} is reset`),
      ...sink,
    };
    const exchange = {
      ...head,
      id: host.nextId(),
      stream: 1,
      body: null,
      malformed: null,
      receivedAt: now(),
      sendsInterim: true,
    };
    return { ...exchange, aborted: false, sink: whole, ...own } as unknown as Exchange;
  };
  /** A request comes. @param comes told of it before the host is */
  const ask = (
    path: string,
    sink: object = {},
    comes: (exchange: Exchange) => void = () => {},
    own: object = {},
  ) => {
    const asked = requestOf(path, sink, own);
    comes(asked);
    host.accept(asked);
    return asked;
  };
  /** Its client leaves. */
  const leave = (exchange: Exchange) => {
    Object.assign(exchange, { aborted: true }).onAborted?.(exchange);
  };
  const counts = () => host.registry.counts()["HTTP/2"];
  return { host, ran, told, ask, leave, sent, lines, spent, requestOf, counts };
}

const OK: ResponseHead = { status: 200, fields: [] };
const FILE: FileBody = { path: "/", identity: "", pieces: [] };

describe("concurrency", () => {
  test("what waits runs when its handler has let go, and what a client has left does not run at all", () => {
    const { host, ran, told, ask, leave } = hostOf({ concurrency: 1 });
    const [first, second] = ["/first", "/second", "/third", "/fourth"].map((path) => ask(path));
    leave(second as Exchange);
    expect([host.queued, told]).toEqual([2, []]);
    leave(first as Exchange);
    expect(ran.map(({ path }) => path)).toEqual(["/first", "/third"]);
    ran[1]?.sink.respond(OK, null);
    expect([ran.length, ran[2]?.path, host.queued, host.registry.size]).toEqual([3, "/fourth", 0, 1]);
  });
});

describe("a handler is told", () => {
  test("when its client leaves, and when it has left while the handler ran", () => {
    const { host, told, ask, leave } = hostOf({}, ({ path }) => {
      if (path === "/meanwhile") clients.get(path)?.();
    });
    const clients = new Map<string, () => void>();
    leave(ask("/later"));
    ask("/meanwhile", {}, (exchange) => clients.set("/meanwhile", () => leave(exchange)));
    expect([told, host.registry.size]).toEqual([["/later", "/meanwhile"], 0]);
  });

  test("when its time is over, where it has not begun to answer: its client gets 504", () => {
    const { host, ran, told, ask, sent, lines } = hostOf({ requestTimeout: 1000 });
    for (const path of ["/late", "/streaming"]) ask(path);
    ran[1]?.sink.head(OK);
    host.expire(now() + 900);
    expect(sent).toEqual(["/streaming begins with 200"]);
    host.expire(now() + 1000);
    expect([sent, told]).toEqual([["/streaming begins with 200", "/late 504"], ["/late"]]);
    expect(lines).toEqual(["504 GET /late 1:1: no response within 1000 ms"]);
    const untimed = hostOf();
    untimed.ask("/late");
    untimed.host.expire(now() + 1e9);
    expect(untimed.sent).toEqual([]);
  });

  test("nothing more of what it has left to a file: neither that its client has left nor that the file failed", async () => {
    const { host, ran, told, ask, leave, sent, lines, counts } = hostOf({ concurrency: 1 });
    const file = Promise.withResolvers<void>();
    const left = ask("/left", { file: () => file.promise });
    ask("/failed", { file: () => Promise.reject(new Error("gone")) });
    await ran[0]?.sink.file(OK, FILE);
    // Its handler has let go, and it is in flight still.
    expect([ran.length, host.registry.snapshot(0)[0]?.state]).toEqual([2, "responding"]);
    leave(left);
    await ran[1]?.sink.file(OK, FILE);
    await until("an answer", 5_000, () => sent.length > 0);
    expect([told, sent]).toEqual([[], ["/failed 500"]]);
    expect(lines).toEqual([expect.stringContaining("/failed 1:1: Error: gone")]);
    expect(counts()).toMatchObject({ active: 0, aborted: 1, failed: 1, completed: 0 });
    file.resolve();
    await file.promise;
    expect(counts()).toMatchObject({ active: 0, aborted: 1, completed: 0 });
  });
});

describe("what becomes of a request is counted, and its client told", () => {
  test("answered, reset, lost, or refused before it has run", () => {
    const { host, ask, leave, ran, sent, lines, counts, requestOf } = hostOf({
      maxExchanges: 4,
      maxQueue: 0,
    });
    const [, , , left] = ["/whole", "/pieces", "/reset", "/left"].map((path) => ask(path));
    ask("/full");
    const [whole, pieces, reset] = ran.map(({ sink }) => sink);
    whole?.respond(OK, null);
    pieces?.head(OK);
    pieces?.end(null);
    reset?.head(OK);
    reset?.abort("no more");
    leave(left as Exchange);
    ask("/malformed", {}, undefined, { malformed: "no request" });
    ask("/a b");
    host.turnAway(requestOf("/another"));
    expect(sent).toEqual([
      ...["/full 503", "/whole 200", "/pieces begins with 200", "/pieces ends"],
      ...["/reset begins with 200", "/reset is reset", "/malformed 400", "/a b 400", "/another 503"],
    ]);
    expect(lines).toEqual(["GET /reset 1:1: the response ended short: no more"]);
    expect(counts()).toEqual({ active: 0, completed: 2, failed: 1, aborted: 1, rejected: 4 });
    // Nothing more can be said of any of them.
    for (const { sink } of ran) {
      sink.head(OK);
      sink.data(Buffer.from("a"));
      sink.respond(OK, null);
      sink.end(null);
      sink.abort("again");
      expect(sink.inform({ status: 103, fields: [] })).toBe(false);
    }
    expect([sent.length, ran.length]).toEqual([9, 4]);
    expect(counts()).toEqual({ active: 0, completed: 2, failed: 1, aborted: 1, rejected: 4 });
  });

  test("at the end: those that come are refused, those in flight are waited for, and then ended", async () => {
    const { host, ask, ran, sent, counts } = hostOf();
    for (const path of ["/whole", "/waits", "/streams"]) ask(path);
    let isOver = false;
    const drained = host.drain().then(() => {
      isOver = true;
    });
    ask("/late");
    ran[0]?.sink.respond(OK, null);
    ran[2]?.sink.head(OK);
    await Promise.resolve();
    expect([sent, isOver]).toEqual([["/late 503", "/whole 200", "/streams begins with 200"], false]);
    host.close();
    await drained;
    expect(sent.slice(3)).toEqual(["/waits 503", "/streams is reset"]);
    expect(counts()).toEqual({ active: 0, completed: 1, failed: 2, aborted: 0, rejected: 1 });
    await hostOf().host.drain();
  });

  test("the worker is told once that it has had its share", () => {
    const { ask, ran, spent, counts } = hostOf({}, ({ sink }) => sink.respond(OK, null), { maxRequests: 2 });
    for (const told of [0, 1, 1]) {
      ask("/");
      expect(spent).toHaveBeenCalledTimes(told);
    }
    expect([counts().completed, ran.every(({ sink }) => sink.headSent)]).toEqual([3, true]);
  });
});

describe("a handler sees", () => {
  test("the client that a trusted proxy names", () => {
    const proxies = { clientOf: (head: object) => ({ ...head, path: "/seen" }) } as unknown as TrustedProxies;
    const { ask, ran } = hostOf({}, undefined, { proxies });
    ask("/");
    expect(ran[0]?.path).toBe("/seen");
  });

  test("whether an interim response can be sent, and when there is room for more", () => {
    const informed: number[] = [];
    const sink = { inform: ({ status }: ResponseHead) => informed.push(status) > 0, data: () => false };
    const { ask, ran } = hostOf();
    const asked = ["/", "/none"].map((path) => ask(path, sink, undefined, { sendsInterim: path === "/" }));
    const early: ResponseHead = { status: 103, fields: [] };
    expect(ran.map((exchange) => exchange.sink.inform(early))).toEqual([true, false]);
    expect(informed).toEqual([103]);
    const drained = mock();
    const [{ sink: streamed }] = ran as [Exchange];
    streamed.onDrain = drained;
    streamed.head(OK);
    expect([streamed.data(Buffer.from("a")), streamed.data(Buffer.alloc(0))]).toEqual([false, true]);
    asked[0]?.sink.onDrain?.();
    expect([drained.mock.calls.length, streamed.headSent]).toEqual([1, true]);
  });
});

describe("a request's body", () => {
  /** A body that comes in the given pieces, and then stays open where `isWhole` is false. */
  const bodyOf = (pieces: string[], length?: number, isWhole = true) => {
    const left = pieces.map((piece) => Buffer.from(piece));
    const body = {
      length,
      trailers: ["x-sum", "1"],
      cancelled: 0,
      reads: 0,
      atOnce: 0,
      pending: null as (() => void) | null,
      read: async () => {
        body.reads++;
        expect(++body.atOnce).toBe(1);
        await Promise.resolve();
        const piece = left.shift() ?? null;
        if (piece === null && !isWhole && body.cancelled === 0)
          await new Promise<void>((resolve) => {
            body.pending = resolve;
          });
        body.atOnce--;
        return piece;
      },
      readAll: async () => Buffer.concat(left.splice(0)),
      cancel: () => {
        body.cancelled++;
        body.pending?.();
      },
    };
    return body;
  };
  const received = (bounds: Partial<BaseLimits>, body: ReturnType<typeof bodyOf>) => {
    const all = hostOf(bounds);
    const fields = body.length === undefined ? [] : ["content-length", String(body.length)];
    all.ask("/", {}, undefined, { method: "POST", body, fields });
    const [{ body: own, sink }] = all.ran as [Exchange];
    return { ...all, own: own as NonNullable<typeof own>, sink };
  };

  test("of the length it promised, and within the limit, comes whole", async () => {
    for (const length of [undefined, 10]) {
      const read = async () => {
        const { own } = received({}, bodyOf(["12345", "67890"], length));
        return [await own.read(), await own.read(), await own.read(), own.trailers, own.length];
      };
      expect(await read()).toEqual([
        Buffer.from("12345"),
        Buffer.from("67890"),
        null,
        ["x-sum", "1"],
        length,
      ]);
      const { own } = received({}, bodyOf(["12345", "67890"], length));
      expect(String(Buffer.from(await own.readAll()))).toBe("1234567890");
    }
  });

  test("of another length gets 400, and one over the limit 413, whichever way it is read", async () => {
    const wrong: [string[], number | undefined, string][] = [
      [["123", "45"], 6, "/ 400"],
      [["123", "45"], 4, "/ 400"],
      [["123456", "78901"], undefined, "/ 413"],
      [["12345678901"], 10, "/ 413"],
    ];
    for (const [pieces, length, answer] of wrong) {
      const ways: ((body: RequestBody) => Promise<unknown>)[] = [
        (body) => body.readAll(),
        async (body) => {
          while ((await body.read()) !== null);
        },
      ];
      for (const read of ways) {
        const { own, sent, told, counts } = received({}, bodyOf(pieces, length));
        expect(await failureOf("the read", 5_000, read(own))).toBeInstanceOf(BodyLostError);
        expect([sent, told, counts().failed]).toEqual([[answer], ["/"], 1]);
      }
    }
  });

  test("that nobody wants is taken for a while: so much of it as would be on its way to a worker", async () => {
    const piece = "a".repeat(100_000);
    const body = bodyOf(Array(5).fill(piece));
    const { sink } = received({ maxBodyBytes: 1_000_000 }, body);
    sink.respond(OK, null);
    await until("its end", 5_000, () => body.cancelled > 0);
    expect(body.reads).toBe(3);
    const whole = bodyOf([piece]);
    const other = received({ maxBodyBytes: 1_000_000 }, whole);
    other.own.cancel();
    other.sink.respond(OK, null);
    await until("its end", 5_000, () => whole.reads === 2 && whole.atOnce === 0);
    expect(whole.cancelled).toBe(0);
  });

  test("that never ends is given up, and a read of it that is under way comes first", async () => {
    const body = bodyOf(["a"], undefined, false);
    const { own, sink } = received({}, body);
    await own.read();
    const reading = failureOf("the read", 5_000, own.read());
    sink.respond(OK, null);
    expect(await reading).toBeInstanceOf(BodyLostError);
    await until("its end", 5_000, () => body.cancelled > 0);
  });
});
