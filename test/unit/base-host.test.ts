/** The host of the mode `base`: which handlers run, and what they are told, without a socket. */
import { describe, expect, test } from "bun:test";
import { BaseHost, type BaseLimits } from "../../src/base/base-host.ts";
import { now } from "../../src/clock.ts";
import type { Exchange, ResponseHead } from "../../src/exchange.ts";

/** A host whose handlers note that they run, and leave their exchanges open. */
function hostOf(bounds: Partial<BaseLimits> = {}, handle: (exchange: Exchange) => void = () => {}) {
  const limits = { maxHeaderBytes: 1000, maxBodyBytes: 1, requestTimeout: 0, maxExchanges: 100 };
  const queue = { concurrency: 0, maxQueue: 10, queueTarget: 1000 };
  const ran: Exchange[] = [];
  const told: string[] = [];
  const host = new BaseHost(
    (exchange) => {
      ran.push(exchange);
      exchange.onAborted = ({ path }) => told.push(path);
      handle(exchange);
    },
    { compression: null, proxies: null },
    { ...limits, ...queue, ...bounds },
    0,
    { spent: () => {}, connections: { events: new Set(), told: () => {} }, log: () => {} },
  );
  /** A request comes. @param comes told of it before the host is */
  const ask = (path: string, sink: object = {}, comes: (exchange: Exchange) => void = () => {}) => {
    const head = { protocol: "HTTP/2", method: "GET", authority: "a", path, fields: [], session: "1" };
    const whole = { headSent: false, respond: () => {}, abort: () => {}, ...sink };
    const exchange = {
      ...head,
      id: host.nextId(),
      stream: 1,
      body: null,
      malformed: null,
      receivedAt: now(),
    };
    const asked = { ...exchange, aborted: false, sink: whole } as unknown as Exchange;
    comes(asked);
    host.accept(asked);
    return asked;
  };
  /** Its client leaves. */
  const leave = (exchange: Exchange) => {
    Object.assign(exchange, { aborted: true }).onAborted?.(exchange);
  };
  return { host, ran, told, ask, leave };
}

const OK: ResponseHead = { status: 200, fields: [] };

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
    const { host, ran, told, ask } = hostOf({ requestTimeout: 1000 });
    const done: string[] = [];
    const sink = (path: string) => ({
      respond: ({ status }: ResponseHead) => void done.push(`${status} ${path}`),
      head: () => void done.push(`head ${path}`),
    });
    for (const path of ["/late", "/streaming"]) ask(path, sink(path));
    ran[1]?.sink.head(OK);
    host.expire(now() + 900);
    expect(done).toEqual(["head /streaming"]);
    host.expire(now() + 1000);
    expect([done, told]).toEqual([["head /streaming", "504 /late"], ["/late"]]);
  });
});
