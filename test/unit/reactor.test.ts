/** The parts of a reactor that need no socket: the dispatcher, its policies and its queue, the registry, and the end of workers. */
import { afterAll, describe, expect, test } from "bun:test";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import fc from "fast-check";
import { now } from "../../src/clock.ts";
import type { Connection, ConnectionEvent } from "../../src/connection.ts";
import type { Exchange, ExchangeId, RequestHead, ResponseHead } from "../../src/exchange.ts";
import { ConnectionDesk, type Listening } from "../../src/reactor/connection-desk.ts";
import {
  type Candidate,
  compileDispatch,
  type DispatchSetting,
  dispatchPolicy,
} from "../../src/reactor/dispatch-policy.ts";
import { Dispatcher } from "../../src/reactor/dispatcher.ts";
import { Flight } from "../../src/reactor/flight.ts";
import { Reactor, type ReactorLimits } from "../../src/reactor/reactor.ts";
import { Registry } from "../../src/reactor/registry.ts";
import { stuckAfter } from "../../src/reactor/stuck.ts";
import { WaitingQueue } from "../../src/reactor/waiting-queue.ts";
import type { WorkerLink } from "../../src/reactor/worker-link.ts";
import { maskOf } from "../../src/wire/connections.ts";
import { writeFile } from "../../src/wire/files.ts";
import { DATA_BYTES, type Frame, FrameType, type FrameWriter } from "../../src/wire/frames.ts";
import { writeResponse, writeTrailers } from "../../src/wire/heads.ts";
import { doingOf, progressPath } from "../../src/wire/progress.ts";
import { WINDOW_BYTES } from "../../src/wire/window.ts";
import { openChannel, say, wrongHellos } from "../support/channel.ts";
import { inTime, until } from "../support/poll.ts";

class Worker implements Candidate {
  readonly workerId: number;
  inFlight: number;
  isLate = false;
  concurrency = Number.POSITIVE_INFINITY;

  constructor(workerId: number, inFlight = 0) {
    this.workerId = workerId;
    this.inFlight = inFlight;
  }

  takes(): boolean {
    return !this.isLate && this.inFlight < this.concurrency;
  }
}

const LIMITS = { maxExchanges: 100, maxQueue: 2, queueTarget: 100 };

interface Asked {
  readonly session: string;
  readonly remoteAddress: string;
}

const asked = (session: string, remoteAddress = "::1") =>
  ({ session, remoteAddress }) as unknown as RequestHead;

function dispatcherOf(
  count: number,
  limits = LIMITS,
  setting: DispatchSetting = { policy: "least-busy" },
  evenly = true,
) {
  const policy = dispatchPolicy<Worker>(setting, evenly, () => {});
  const dispatcher = new Dispatcher<string, Worker>(limits, policy, (item) => asked(item));
  const workers = Array.from({ length: count }, (_, i) => new Worker(i + 1));
  for (const worker of workers) dispatcher.addWorker(worker);
  const take = (item = "x") => {
    const worker = dispatcher.acquire(item, 0);
    if (worker !== null) worker.inFlight++;
    return worker?.workerId;
  };
  return { dispatcher, workers, take };
}

describe("dispatcher", () => {
  test("holds to maxExchanges, and goes on when one ends", () => {
    const { dispatcher, take } = dispatcherOf(1, { ...LIMITS, maxExchanges: 2 });
    expect([take(), take(), take()]).toEqual([1, 1, undefined]);
    dispatcher.enqueue("y", 0);
    expect(dispatcher.next(0)).toBeNull();
    dispatcher.release();
    expect(dispatcher.next(0)?.item).toBe("y");
  });

  test("gives nothing without a worker, and queues up to its bound", () => {
    const { dispatcher, take } = dispatcherOf(0);
    expect(take()).toBeUndefined();
    expect([1, 2, 3].map((n) => dispatcher.enqueue(`item ${n}`, 0))).toEqual([true, true, false]);
  });

  test("hands out the queue in the order of arrival, without what was withdrawn", () => {
    const { dispatcher } = dispatcherOf(0, { ...LIMITS, maxQueue: 10 });
    for (const item of ["x", "y", "z"]) dispatcher.enqueue(item, 0);
    expect(dispatcher.withdraw("y")).toBe(true);
    expect(dispatcher.withdraw("y")).toBe(false);
    dispatcher.addWorker(new Worker(1));
    expect([dispatcher.next(0)?.item, dispatcher.next(0)?.item, dispatcher.next(0)]).toEqual([
      "x",
      "z",
      null,
    ]);
  });

  test("gives nothing to a worker that has left, is late, or has all that it takes", () => {
    const { dispatcher, workers, take } = dispatcherOf(4);
    const [gone, late, full] = workers as [Worker, Worker, Worker];
    // It has retired, and then its channel has closed.
    for (let i = 0; i < 2; i++) dispatcher.removeWorker(gone);
    late.isLate = true;
    full.concurrency = 0;
    expect([take(), take(), take()]).toEqual([4, 4, 4]);
  });
});

describe("the policy", () => {
  test("least-busy takes workers in turn where all are equally busy", () => {
    const { dispatcher } = dispatcherOf(3);
    const order = Array.from({ length: 7 }, () => dispatcher.acquire("x", 0)?.workerId);
    expect(order).toEqual([1, 2, 3, 1, 2, 3, 1]);
  });

  test("least-busy takes the first of them where the last is to be seen idle", () => {
    const { dispatcher } = dispatcherOf(3, LIMITS, { policy: "least-busy" }, false);
    expect(Array.from({ length: 3 }, () => dispatcher.acquire("x", 0)?.workerId)).toEqual([1, 1, 1]);
  });

  test("least-busy takes the least busy", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(50), { minLength: 1, maxLength: 8 }), fc.nat(20), (busy, before) => {
        const { dispatcher } = dispatcherOf(0);
        busy.forEach((inFlight, i) => {
          dispatcher.addWorker(new Worker(i + 1, inFlight));
        });
        for (let i = 0; i < before; i++) dispatcher.acquire("x", 0);
        expect(dispatcher.acquire("x", 0)?.inFlight).toBe(Math.min(...busy));
      }),
    );
  });

  test("round-robin takes the next in turn, however busy, that takes any", () => {
    const { workers, take } = dispatcherOf(3, LIMITS, { policy: "round-robin" });
    (workers[0] as Worker).inFlight = 50;
    (workers[1] as Worker).isLate = true;
    expect([take(), take(), take(), take()]).toEqual([1, 3, 1, 3]);
  });

  test("connection gives each connection a worker of its own, and spreads them", () => {
    const { workers, take } = dispatcherOf(4, { ...LIMITS, maxExchanges: 10_000 }, { policy: "connection" });
    const of = (session: number) => take(String(session));
    const first = Array.from({ length: 400 }, (_, i) => of(i));
    expect(Array.from({ length: 400 }, (_, i) => of(i))).toEqual(first);
    for (const worker of workers) expect(worker.inFlight).toBeGreaterThan(100);
  });

  test("connection: when a worker has gone, only its own connections get another", () => {
    const { dispatcher, workers, take } = dispatcherOf(
      4,
      { ...LIMITS, maxExchanges: 10_000 },
      { policy: "connection" },
    );
    const before = Array.from({ length: 200 }, (_, i) => take(String(i)));
    dispatcher.removeWorker(workers[2] as Worker);
    const after = Array.from({ length: 200 }, (_, i) => take(String(i)));
    for (let i = 0; i < before.length; i++) {
      if (before[i] === 3) expect(after[i]).not.toBe(3);
      else expect(after[i]).toBe(before[i] as number);
    }
  });

  test("what waits for its own worker does not hold up what another could take", () => {
    const { dispatcher, workers, take } = dispatcherOf(
      2,
      { ...LIMITS, maxQueue: 10 },
      { policy: "connection" },
    );
    const sessions = Array.from({ length: 20 }, (_, i) => String(i));
    const [forFirst] = sessions.filter((session) => take(session) === 1) as [string];
    const [forSecond] = sessions.filter((session) => take(session) === 2) as [string];
    (workers[0] as Worker).isLate = true;
    dispatcher.enqueue(forFirst, 0);
    dispatcher.enqueue(forSecond, 0);
    expect(dispatcher.next(0)?.item).toBe(forSecond);
    expect(dispatcher.next(0)).toBeNull();
    (workers[0] as Worker).isLate = false;
    expect(dispatcher.next(0)?.item).toBe(forFirst);
  });

  test("a function names the worker; what is no worker's id is for the least busy", () => {
    const source = String((head: Asked) => Number(head.session));
    const { workers, take } = dispatcherOf(3, LIMITS, { source });
    expect([take("2"), take("2"), take("3")]).toEqual([2, 2, 3]);
    expect(take("99")).toBe(1);
    (workers[1] as Worker).isLate = true;
    expect(take("2")).toBeUndefined();
  });

  test("a function that fails is told of once, and the least busy worker is taken", () => {
    const log: string[] = [];
    const source = "() => nowhere.known";
    const policy = dispatchPolicy<Worker>({ source }, true, (line) => log.push(line));
    const workers = [new Worker(1, 5), new Worker(2)];
    expect([1, 2].map(() => policy.pick(asked("1"), workers, 0)?.workerId)).toEqual([2, 2]);
    expect(log.length).toBe(1);
    expect(log[0]).toContain("nowhere");
  });

  test("a function may be an arrow, a declaration or a method, and nothing else", () => {
    const made = { dispatch: (head: Asked) => head.session, pick() {} };
    for (const source of [String(made.dispatch), "function named() { return 1; }", "pick() { return 1; }"]) {
      expect(compileDispatch(source)).toBeFunction();
    }
    for (const source of ["42", "{{", "native code"]) expect(() => compileDispatch(source)).toThrow();
  });
});

describe("the queue", () => {
  const queueOf = (queueTarget: number, maxQueue = 1000) =>
    new WaitingQueue<number>({ maxQueue, queueTarget });
  /** Items are the times at which they arrive: one each `every` milliseconds and one departure each `service`, for `time`. */
  const run = (queue: WaitingQueue<number>, every: number, service: number, from: number, time: number) => {
    const refused: number[] = [];
    const waits: number[] = [];
    let left = from + service;
    for (let now = from; now < from + time; now += every) {
      for (; left <= now; left += service) {
        const [first] = queue;
        if (first === undefined) continue;
        queue.depart(first);
        waits.push(left - first);
      }
      if (!queue.add(now, now)) refused.push(now - from);
    }
    return { refused, waits };
  };

  test("a burst passes, however long the queue is for a moment", () => {
    const queue = queueOf(100);
    for (let i = 0; i < 900; i++) expect(queue.add(i, 0)).toBe(true);
    for (let i = 0; i < 900; i++) queue.depart(i);
    expect(queue.length).toBe(0);
    expect(queue.add(1, 901)).toBe(true);
  });

  test("but not one in which the last would wait ten times the target", () => {
    const { refused, waits } = run(queueOf(100), 1, 50, 0, 900);
    expect(Math.max(...waits)).toBeLessThanOrEqual(1100);
    expect(refused.length).toBeGreaterThan(100);
  });

  test("below its capacity nothing is refused", () => {
    expect(run(queueOf(20), 10, 9, 0, 5000).refused).toEqual([]);
  });

  test("at three times its capacity the wait is held to the target, and a third is served", () => {
    for (const queueTarget of [1, 10, 20, 100]) {
      const queue = queueOf(queueTarget);
      run(queue, 3, 9, 0, 3000);
      const { refused, waits } = run(queue, 3, 9, 3000, 5000);
      expect(Math.max(...waits)).toBeLessThanOrEqual(queueTarget + 2 * 9);
      expect(waits.length).toBeGreaterThan(500);
      expect(refused.length).toBeGreaterThan(1000);
    }
  });

  test("it is strict until it has kept to its target for a while, and a burst passes again then", () => {
    const queue = queueOf(20);
    run(queue, 3, 9, 0, 1000);
    const { refused } = run(queue, 10, 9, 1000, 1000);
    expect(refused.filter((at) => at > 300)).toEqual([]);
    const burst = Array.from({ length: 20 }, (_, i) => queue.add(10_000 + i, 2000));
    expect(burst).not.toContain(false);
  });

  test("one in which nothing left for a moment goes on as before", () => {
    const queue = queueOf(100);
    for (const now of [0, 60]) expect(queue.add(now, now)).toBe(true);
    queue.depart(0);
    for (const now of [61, 62]) expect(queue.add(now, now)).toBe(true);
  });

  test("when nothing leaves any more, arrivals are refused", () => {
    const queue = queueOf(20);
    for (let now = 0; now < 200; now++) queue.add(now, now);
    expect(queue.add(201, 201)).toBe(false);
  });
});

describe("registry", () => {
  const flight = (registry: Registry<Flight>, path: string) => {
    const exchange = {
      id: registry.nextId(),
      protocol: "HTTP/2",
      method: "GET",
      path,
      receivedAt: 1000,
      session: "7",
      stream: 3,
      remoteAddress: "::1",
      remotePort: 4433,
    };
    return new Flight(exchange as unknown as Exchange);
  };

  test("counts each exchange once, however it ends", () => {
    const registry = new Registry<Flight>();
    const outcomes = ["completed", "aborted", "failed", "rejected"] as const;
    const flights = outcomes.map((outcome) => flight(registry, `/${outcome}`));
    for (const each of flights) registry.add(each);
    expect(registry.counts()["HTTP/2"].active).toBe(4);
    for (let i = 0; i < outcomes.length; i++) {
      registry.remove(flights[i] as Flight, outcomes[i] as (typeof outcomes)[number]);
    }
    expect(registry.size).toBe(0);
    expect(registry.counts()["HTTP/2"]).toEqual({
      active: 0,
      completed: 1,
      aborted: 1,
      failed: 1,
      rejected: 1,
    });
    expect(registry.counts()["HTTP/3"].completed).toBe(0);
  });

  test("finds each of thousands by its id, and none that has gone", () => {
    const registry = new Registry<Flight>();
    const flights = Array.from({ length: 5000 }, (_, i) => flight(registry, `/${i}`));
    for (const each of flights) registry.add(each);
    const [gone, kept] = [flights.filter((_, i) => i % 3 === 0), flights.filter((_, i) => i % 3 !== 0)];
    for (const each of gone) registry.remove(each, "completed");
    for (const each of gone) expect(registry.get(each.exchange.id)).toBeUndefined();
    for (const each of kept) expect(registry.get(each.exchange.id)).toBe(each);
    expect(registry.size).toBe(kept.length);
    expect(new Set(registry.flights())).toEqual(new Set(kept));
  });

  test("takes as many as there are, each as it comes", () => {
    const registry = new Registry<Flight>();
    const flights = Array.from({ length: 3000 }, (_, i) => {
      const each = flight(registry, `/${i}`);
      registry.add(each);
      return each;
    });
    for (const each of flights) expect(registry.get(each.exchange.id)).toBe(each);
  });

  test("mixes up none that has gone, or whose id was given long before it came, with another", () => {
    const registry = new Registry<Flight>();
    const early = flight(registry, "/early");
    let late = early;
    while (late.exchange.id % 1024 !== early.exchange.id || late === early) late = flight(registry, "/late");
    registry.add(late);
    expect(registry.get(early.exchange.id)).toBeUndefined();
    registry.add(early);
    expect([registry.get(early.exchange.id), registry.get(late.exchange.id)]).toEqual([early, late]);
  });

  test("begins again behind the last id that the wire has room for, and leaves out what is in flight", () => {
    const last = 0xffff_fffe;
    const registry = new Registry<Flight>(last - 1);
    const lasting = flight(registry, "/lasting");
    registry.add(lasting);
    const first = flight(registry, "/first");
    registry.add(first);
    expect([lasting.exchange.id, first.exchange.id]).toEqual([last, 1] as ExchangeId[]);
    expect([registry.get(lasting.exchange.id), registry.get(first.exchange.id)]).toEqual([lasting, first]);
    while (registry.nextId() % 1024 !== 1021);
    expect(registry.nextId() % 1024).toBe(1023);
  });

  test("gives no id that an exchange in flight has, however long that one lasts", () => {
    const registry = new Registry<Flight>();
    const lasting = flight(registry, "/lasting");
    registry.add(lasting);
    for (let i = 0; i < 10_000; i++) {
      const brief = flight(registry, "/brief");
      registry.add(brief);
      expect(registry.get(brief.exchange.id)).toBe(brief);
      registry.remove(brief, "completed");
    }
    expect(registry.flights()).toEqual([lasting]);
  });

  test("names exchanges by session and stream", () => {
    const registry = new Registry<Flight>();
    registry.add(flight(registry, "/a?b"));
    expect(registry.snapshot(1250)).toEqual([
      { id: 1, name: "7:3", state: "queued", protocol: "HTTP/2", method: "GET", path: "/a?b", age: 250 },
    ]);
  });
});

describe("events of connections", () => {
  const connection = (id: string) => ({ id, protocol: "HTTP/3", remotePort: 1, localPort: 2 }) as Connection;

  /** A worker that listens, and what it is told. */
  class Listener implements Listening {
    employed = true;
    readonly told: string[] = [];

    sendEvent({ name, connection }: ConnectionEvent): void {
      this.told.push(`${name} ${connection.id}`);
    }
  }

  test("go to one worker for each connection, in turn, and to another when that has gone", () => {
    const desk = new ConnectionDesk<Listener>(({ employed }) => employed);
    const [one, other] = [new Listener(), new Listener()];
    for (const each of [one, other]) desk.listen(each, maskOf(["connect", "close"]));
    const tell = (name: "connect" | "migrate" | "close", id: string) =>
      desk.tell?.({ name, connection: connection(id) } as ConnectionEvent);
    for (const id of ["a", "b", "c"]) tell("connect", id);
    // Nobody has asked for it.
    tell("migrate", "b");
    desk.leave(one);
    for (const id of ["a", "b", "c"]) tell("close", id);
    expect(one.told).toEqual(["connect a", "connect c"]);
    expect(other.told).toEqual(["connect b", "close a", "close b", "close c"]);
    desk.leave(other);
    expect(desk.tell).toBeNull();
  });

  test("begin with a worker that gets requests, where there is one", () => {
    const desk = new ConnectionDesk<Listener>(({ employed }) => employed);
    const [used, other] = [new Listener(), new Listener()];
    for (const each of [used, other]) desk.listen(each, maskOf(["connect"]));
    const connect = (id: string) => desk.tell?.({ name: "connect", connection: connection(id) });
    other.employed = false;
    for (const id of ["a", "b"]) connect(id);
    used.employed = false;
    for (const id of ["c", "d"]) connect(id);
    expect([used.told, other.told]).toEqual([["connect a", "connect b", "connect c"], ["connect d"]]);
  });

  test("are of a connection that nobody knows any more when it has closed", () => {
    const desk = new ConnectionDesk<Listener>(({ employed }) => employed);
    const listeners = [new Listener(), new Listener()];
    for (const each of listeners) desk.listen(each, maskOf(["connect", "close"]));
    for (const name of ["connect", "close", "connect"] as const)
      desk.tell?.({ name, connection: connection("a") } as ConnectionEvent);
    expect(listeners.map(({ told }) => told)).toEqual([["connect a", "close a"], ["connect a"]]);
  });
});

/**
 * @param stuck told of workers that are
 * @param broken told of workers that break a rule of the wire
 */
function reactorOf(
  bounds: Partial<ReactorLimits>,
  runDirectory = "",
  stuck = (_pid: number) => {},
  broken = (_pid: number) => {},
): Reactor {
  const limits = { ...LIMITS, maxHeaderBytes: 1000, maxBodyBytes: 1, requestTimeout: 0, concurrency: 0 };
  const policy = dispatchPolicy<WorkerLink>({ policy: "least-busy" }, true, () => {});
  const told = { stuck, broken, log: () => {} };
  return new Reactor({ limits: { ...limits, ...bounds }, policy, runDirectory, ...told });
}

/** A request comes to the reactor. @param ago milliseconds since it has arrived */
function ask(reactor: Reactor, sink: object, ago = 0, body: object | null = null): ExchangeId {
  const id = reactor.nextId();
  const head = { ...asked("1"), protocol: "HTTP/2", method: "GET", path: "/", authority: "a", fields: [] };
  const exchange = { ...head, id, body, malformed: null, receivedAt: now() - ago, sink };
  reactor.accept(exchange as unknown as Exchange);
  return id;
}

describe("a request whose workers die", () => {
  const directory = mkdtempSync(join(tmpdir(), "tercet-reactor-"));
  afterAll(() => rmSync(directory, { recursive: true }));

  /** A request that has come so many milliseconds ago, at a reactor, and workers that have it one after another. */
  function begin(ago: number) {
    const stuck: number[] = [];
    const reactor = reactorOf({ requestTimeout: 1000 }, directory, (pid) => stuck.push(pid));
    const statuses: number[] = [];
    const sink = { headSent: false, respond: ({ status }: ResponseHead) => void statuses.push(status) };
    const id = ask(reactor, sink, ago);
    let pid = 1_000_000;
    /** @param noted what the worker notes that it runs; null for nothing at all */
    const dies = async (noted: number | null) => {
      const socket = attach(reactor, ++pid);
      reactor.employ([pid], []);
      if (noted !== null)
        writeFileSync(progressPath(directory, pid), Buffer.from(Uint32Array.of(process.pid, noted).buffer));
      socket.destroy();
      await once(socket, "close");
    };
    return { reactor, statuses, stuck, id, dies };
  }

  test("runs again once, three times, or ten times: by what they did", async () => {
    const runs = async (notedBy: (id: number) => number | null) => {
      const { statuses, id, dies } = begin(0);
      let count = 0;
      for (; statuses.length === 0 && count < 50; count++) await dies(notedBy(id));
      expect(statuses).toEqual([502]);
      return count;
    };
    expect(await runs(() => null)).toBe(2);
    expect(await runs((id) => id)).toBe(4);
    expect(await runs(() => 0)).toBe(11);
  });

  test("tells them apart by what they had noted", () => {
    const pid = 3_000_000;
    const noted = (...words: number[]) => {
      writeFileSync(progressPath(directory, pid), Buffer.from(Uint32Array.from(words).buffer));
      return doingOf(directory, pid);
    };
    expect(doingOf(directory, pid)).toBe("unknown");
    // Its page was being made.
    expect(noted(process.pid)).toBe("unknown");
    expect(noted(process.pid, 0)).toBe("nothing");
    expect(noted(process.pid, 7)).toEqual({ ran: 7 as ExchangeId });
    expect(noted(process.pid + 1, 7)).toBe("another");
    expect(noted(process.pid, 0xffff_ffff)).toBe("leaving");
  });

  test("has its requestTimeout again for each run", async () => {
    const { reactor, statuses, dies } = begin(900);
    await dies(0);
    reactor.expire(now() + 500);
    expect(statuses).toEqual([]);
    reactor.expire(now() + 1000);
    expect(statuses).toEqual([504]);
  });

  test("has an end for each of them, though that it has no body showed only when the first had it", async () => {
    const reactor = reactorOf({}, directory);
    const id = ask(reactor, {}, 0, { read: async () => null, trailers: [], cancel: () => {} });
    for (const pid of [1_000_000, 1_000_001]) {
      let hasEnded = false;
      const socket = attach(reactor, pid, (frame) => {
        hasEnded ||= frame.id === id && frame.end;
      });
      reactor.employ([pid], []);
      await until("its end", 1000, () => hasEnded);
      socket.destroy();
      await once(socket, "close");
    }
  });

  test("goes on to its end where its response had come whole, and the client had not taken it", async () => {
    const reactor = reactorOf({ maxExchanges: 1 }, directory);
    const done: string[] = [];
    const sink = { headSent: false, head: () => {}, data: () => false, onDrain: () => {} };
    const ends = { end: () => void done.push("end"), abort: () => void done.push("abort") };
    const held = { ...sink, ...ends };
    const id = ask(reactor, held);
    const socket = attach(reactor, 1_000_000);
    attach(reactor, 1_000_001);
    reactor.employ([1_000_000, 1_000_001], []);
    const next = ask(reactor, {});
    say(socket, (writer) => {
      writeResponse(writer, id, FrameType.response, { status: 200, fields: [] }, null, false);
      writer.data(id, Buffer.from("the body"), true);
    });
    socket.destroy();
    await once(socket, "close");
    expect([done, reactor.queued]).toEqual([[], 0]);
    held.onDrain();
    expect([done, reactor.registry.flights().map(({ exchange }) => exchange.id)]).toEqual([["end"], [next]]);
  });

  test("is over once where its client leaves before it has taken a response that had come whole", () => {
    const reactor = reactorOf({}, directory);
    const sink = { headSent: false, head: () => {}, data: () => false, end: () => {}, onDrain: () => {} };
    const id = ask(reactor, sink);
    const socket = attach(reactor, 1_000_000);
    reactor.employ([1_000_000], []);
    say(socket, (writer) => {
      writeResponse(writer, id, FrameType.response, { status: 200, fields: [] }, null, false);
      writer.data(id, Buffer.from("the body"), true);
    });
    const exchange = reactor.registry.get(id)?.exchange as Exchange;
    exchange.onAborted?.(exchange);
    // As listeners tell whoever waits for room that it waits in vain.
    sink.onDrain();
    expect([reactor.registry.size, reactor.registry.counts()["HTTP/2"].completed]).toEqual([0, 0]);
  });

  test("loses no time to a machine that stood still, and neither does its worker", () => {
    const { reactor, statuses, stuck } = begin(900);
    const pid = 2_000_000;
    attach(reactor, pid);
    reactor.employ([pid], []);
    const at = now();
    reactor.expire(at);
    reactor.stoodStill(5000, at + 5000);
    reactor.expire(at + 5050);
    expect([statuses, stuck]).toEqual([[], []]);
    reactor.expire(at + 5150);
    expect([statuses, stuck]).toEqual([[504], []]);
    reactor.expire(at + 6050);
    expect(stuck).toEqual([pid]);
  });
});

describe("a request that waits is handed out", () => {
  const PID = 1_000_000;

  test("when a worker that the manager has named connects", () => {
    const reactor = reactorOf({});
    reactor.employ([PID], []);
    ask(reactor, {});
    expect(reactor.queued).toBe(1);
    attach(reactor, PID);
    expect(reactor.queued).toBe(0);
  });

  test("when a worker that was late has answered", async () => {
    const reactor = reactorOf({});
    const socket = attach(reactor, PID);
    reactor.employ([PID], []);
    ask(reactor, {});
    await until("it to be late", 1000, () => {
      ask(reactor, {});
      return reactor.queued > 0;
    });
    say(socket, (writer) => writer.signal(FrameType.pong));
    expect(reactor.queued).toBe(0);
  });

  test("when the answer before it is a file's, which needs neither its worker nor the rest of its request", async () => {
    const reactor = reactorOf({ concurrency: 1, maxExchanges: 1, maxBodyBytes: 1_000_000 });
    const sent = Promise.withResolvers<void>();
    const failed: string[] = [];
    const fail = (reason: string) => void failed.push(reason);
    const upload = Promise.withResolvers<null>();
    const requestBody = { length: 1_000_000, read: () => upload.promise, cancel: () => upload.resolve(null) };
    const sink = { file: () => sent.promise, abort: fail, respond: () => fail("answered") };
    const id = ask(reactor, sink, 0, requestBody);
    const socket = attach(reactor, PID);
    reactor.employ([PID], []);
    const next = ask(reactor, {});
    say(socket, (writer) => {
      writer.signal(FrameType.pong);
      writeFile(writer, id, { status: 200, fields: [] }, { path: "/a", identity: "", pieces: [] });
    });
    expect([reactor.queued, reactor.registry.get(next)?.state]).toEqual([0, "dispatched"]);
    await inTime("the end of the upload", 1000, upload.promise);
    socket.destroy();
    await once(socket, "close");
    expect([reactor.registry.get(id)?.state, failed]).toEqual(["responding", []]);
    sent.resolve();
    await until("its end", 1000, () => reactor.registry.get(id) === undefined);
  });

  test("in its time where there is a worker again, and gets 503 only where there is none", () => {
    const reactor = reactorOf({ concurrency: 1 });
    const statuses: number[] = [];
    const sink = { headSent: false, respond: ({ status }: ResponseHead) => void statuses.push(status) };
    reactor.leaveUnserved();
    ask(reactor, sink);
    expect(statuses).toEqual([503]);
    attach(reactor, PID);
    reactor.employ([PID], []);
    for (let i = 0; i < 2; i++) ask(reactor, sink);
    expect([reactor.queued, statuses]).toEqual([1, [503]]);
  });
});

test("a worker is stuck after requestTimeout, and after a second at least; without one it is told of after five", () => {
  expect([2000, 1000, 10, 0].map(stuckAfter)).toEqual([2000, 1000, 1000, 5000]);
});

test("a worker is found stuck that has answered all that it was asked, and says nothing from then on", () => {
  const stuck: number[] = [];
  const reactor = reactorOf({ requestTimeout: 60_000 }, "", (pid) => stuck.push(pid));
  const socket = attach(reactor, 1_000_000);
  reactor.employ([1_000_000], []);
  ask(reactor, { respond: () => {} });
  say(socket, (writer) => writer.signal(FrameType.pong));
  const at = now();
  for (const later of [0, 59_000]) reactor.expire(at + later);
  expect(stuck).toEqual([]);
  for (const later of [60_000, 61_000]) reactor.expire(at + later);
  expect(stuck).toEqual([1_000_000]);
});

test("a response that its engine refuses ends by itself, and those behind it come whole", () => {
  const reactor = reactorOf({});
  const done: string[] = [];
  const refuse = () => {
    throw new TypeError("no such field");
  };
  const refusing = { headSent: true, respond: refuse, abort: () => void done.push("abort") };
  const ids = [ask(reactor, refusing), ask(reactor, { respond: () => void done.push("respond") })];
  const socket = attach(reactor, 1_000_000);
  reactor.employ([1_000_000], []);
  say(socket, (writer) => {
    for (const id of ids)
      writeResponse(writer, id, FrameType.response, { status: 200, fields: [] }, null, true);
  });
  expect([done, reactor.registry.size]).toEqual([["abort", "respond"], 0]);
});

describe("the channel closes of a worker that sends", () => {
  const head: ResponseHead = { status: 200, fields: [] };
  const file = { path: "/a", identity: "1:2", pieces: [] };
  const begin = (writer: FrameWriter, id: ExchangeId) =>
    writeResponse(writer, id, FrameType.response, head, null, false);
  const wrong: Record<string, (writer: FrameWriter, id: ExchangeId) => void> = {
    "a second head": (writer, id) => {
      begin(writer, id);
      begin(writer, id);
    },
    "a file behind a head": (writer, id) => {
      begin(writer, id);
      writeFile(writer, id, head, file);
    },
    "data without a head": (writer, id) => writer.data(id, Buffer.from("a"), false),
    "trailers without a head": (writer, id) => writeTrailers(writer, id, []),
    "data behind the end": (writer, id) => {
      begin(writer, id);
      writer.data(id, Buffer.from("a"), true);
      writer.data(id, Buffer.from("a"), false);
    },
    "trailers behind the end": (writer, id) => {
      begin(writer, id);
      writer.data(id, Buffer.from("a"), true);
      writeTrailers(writer, id, []);
    },
    "more of the body than its window": (writer, id) => {
      begin(writer, id);
      for (let sent = 0; sent <= WINDOW_BYTES; sent += DATA_BYTES)
        writer.data(id, new Uint8Array(DATA_BYTES), false);
    },
    "credit that was never spent": (writer, id) => writer.credit(id, 1),
    "a status that there is not": (writer, id) =>
      writeResponse(writer, id, FrameType.response, { status: 99, fields: [] }, null, true),
    "a question that names no connection": (writer, id) => {
      writer.begin(FrameType.connection, 0, id);
      writer.latin1('{"toString":1}');
      writer.finish();
    },
    "a frame of a reactor's": (writer, id) => {
      writer.begin(FrameType.event, 0, id);
      writer.finish();
    },
  };
  for (const [what, write] of Object.entries(wrong)) {
    test(what, () => {
      const broken: number[] = [];
      const reactor = reactorOf({}, "", undefined, (pid) => broken.push(pid));
      const socket = attach(reactor, 1_000_000);
      reactor.employ([1_000_000], []);
      // The client takes nothing: what has come is still to be sent.
      const sink = { head: () => {}, data: () => false, respond: () => {}, abort: () => {} };
      const id = ask(reactor, sink);
      say(socket, (writer) => write(writer, id));
      expect([broken, socket.destroyed]).toEqual([[1_000_000], true]);
    });
  }

  test("something else than a hello, or that of another version", () => {
    const broken: number[] = [];
    const reactor = reactorOf({}, "", undefined, (pid) => broken.push(pid));
    for (const first of wrongHellos({ workerId: 1, pid: 1_000_000 })) {
      const { socket } = openChannel((socket) => reactor.attach(socket), first);
      expect(socket.destroyed).toBe(true);
    }
    // Whose process it is nobody knows.
    expect(broken).toEqual([]);
  });
});

/** A worker's end of a channel to the reactor, which has said hello. @param told what the reactor sends */
function attach(reactor: Reactor, pid: number, told: (frame: Frame) => void = () => {}): Duplex {
  return openChannel((socket) => reactor.attach(socket), { workerId: 1, pid }, told).socket;
}

test("killWorkers ends every worker, though one has ended by itself and its channel is still open", async () => {
  const reactor = reactorOf({});
  const ended = Bun.spawn(["true"]);
  await ended.exited;
  const working = Bun.spawn(["sleep", "60"]);
  for (const { pid } of [ended, working]) attach(reactor, pid);
  reactor.killWorkers();
  await working.exited;
  expect(working.signalCode).toBe("SIGKILL");
});
