/** The parts of a reactor that need no socket: the dispatcher and the registry. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Exchange } from "../../src/exchange.ts";
import { Dispatcher } from "../../src/reactor/dispatcher.ts";
import { Flight } from "../../src/reactor/flight.ts";
import { Registry } from "../../src/reactor/registry.ts";

interface Worker {
  readonly name: string;
  inFlight: number;
}

function dispatcherOf(names: string, limits = { maxExchanges: 100, maxQueue: 2 }) {
  const dispatcher = new Dispatcher<string, Worker>(limits);
  const workers = [...names].map((name) => ({ name, inFlight: 0 }));
  for (const worker of workers) dispatcher.addWorker(worker);
  return { dispatcher, workers };
}

describe("dispatcher", () => {
  test("takes workers in turn where all are equally busy", () => {
    const { dispatcher } = dispatcherOf("abc");
    const order = Array.from({ length: 7 }, () => dispatcher.acquire()?.name);
    expect(order.join("")).toBe("abcabca");
  });

  test("takes the least busy worker", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(50), { minLength: 1, maxLength: 8 }), fc.nat(20), (busy, before) => {
        const dispatcher = new Dispatcher<string, Worker>({ maxExchanges: 1000, maxQueue: 1 });
        for (let i = 0; i < busy.length; i++)
          dispatcher.addWorker({ name: `${i}`, inFlight: busy[i] as number });
        for (let i = 0; i < before; i++) dispatcher.acquire();
        expect(dispatcher.acquire()?.inFlight).toBe(Math.min(...busy));
      }),
    );
  });

  test("gives nothing without a worker, and queues up to its bound", () => {
    const { dispatcher } = dispatcherOf("");
    expect(dispatcher.acquire()).toBeNull();
    expect([1, 2, 3].map((n) => dispatcher.enqueue(`item ${n}`))).toEqual([true, true, false]);
  });

  test("hands out the queue in the order of arrival, without what was withdrawn", () => {
    const { dispatcher } = dispatcherOf("", { maxExchanges: 10, maxQueue: 10 });
    for (const item of ["x", "y", "z"]) dispatcher.enqueue(item);
    expect(dispatcher.withdraw("y")).toBe(true);
    expect(dispatcher.withdraw("y")).toBe(false);
    dispatcher.addWorker({ name: "a", inFlight: 0 });
    expect([dispatcher.next()?.item, dispatcher.next()?.item, dispatcher.next()]).toEqual(["x", "z", null]);
  });

  test("holds to maxExchanges, and goes on when one ends", () => {
    const { dispatcher } = dispatcherOf("a", { maxExchanges: 2, maxQueue: 5 });
    expect([dispatcher.acquire()?.name, dispatcher.acquire()?.name, dispatcher.acquire()]).toEqual([
      "a",
      "a",
      null,
    ]);
    dispatcher.enqueue("x");
    expect(dispatcher.next()).toBeNull();
    dispatcher.release();
    expect(dispatcher.next()?.item).toBe("x");
  });

  test("gives nothing to a worker that has left", () => {
    const { dispatcher, workers } = dispatcherOf("ab");
    dispatcher.removeWorker(workers[0] as Worker);
    expect([dispatcher.acquire()?.name, dispatcher.acquire()?.name]).toEqual(["b", "b"]);
  });
});

describe("registry", () => {
  const flight = (registry: Registry, path: string) => {
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
    const registry = new Registry();
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
    const registry = new Registry();
    const flights = Array.from({ length: 5000 }, (_, i) => flight(registry, `/${i}`));
    for (const each of flights) registry.add(each);
    const [gone, kept] = [flights.filter((_, i) => i % 3 === 0), flights.filter((_, i) => i % 3 !== 0)];
    for (const each of gone) registry.remove(each, "completed");
    for (const each of gone) expect(registry.get(each.exchange.id)).toBeUndefined();
    for (const each of kept) expect(registry.get(each.exchange.id)).toBe(each);
    expect(registry.size).toBe(kept.length);
    expect(new Set(registry.flights())).toEqual(new Set(kept));
  });

  test("gives no id that an exchange in flight has, however long that one lasts", () => {
    const registry = new Registry();
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
    const registry = new Registry();
    registry.add(flight(registry, "/a?b"));
    expect(registry.snapshot(1250)).toEqual([
      { id: 1, name: "7:3", state: "queued", protocol: "HTTP/2", method: "GET", path: "/a?b", age: 250 },
    ]);
  });
});
