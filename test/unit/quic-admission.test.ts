/** Which connections the HTTP/3 engines take, without a socket and with a clock of the test's own. */
import { describe, expect, test } from "bun:test";
import { BlockList } from "node:net";
import { ConnectionLimits, SeenConnections } from "../../src/listeners/connection-limits.ts";
import { Admission } from "../../src/listeners/quic/admission.ts";

const NONE = { connectionRate: 0, handshakeRate: 0, maxConnectionsPerAddress: 0 };
const unlimited = () => new ConnectionLimits({ maxConnections: 0, maxConnectionsPerAddress: 0 });

describe("admission", () => {
  test("without limits takes all, and remembers nobody who has gone", () => {
    const admission = new Admission(NONE, unlimited(), null, 0);
    for (let i = 0; i < 5000; i++) {
      expect(admission.admit(`10.0.${i >> 8}.${i & 255}`, i)).toBeNull();
      admission.release(`10.0.${i >> 8}.${i & 255}`, i);
    }
    expect(admission.size).toBe(0);
  });

  test("maxConnectionsPerAddress counts those that are open, for each address by itself", () => {
    const admission = new Admission({ ...NONE, maxConnectionsPerAddress: 2 }, unlimited(), null, 0);
    const take = (address: string) => admission.admit(address, 0);
    expect([take("::1"), take("::1"), take("::1"), take("::2")]).toEqual([
      null,
      null,
      "too many connections from this address",
      null,
    ]);
    admission.release("::1", 0);
    expect([take("::1"), take("::1")]).toEqual([null, "too many connections from this address"]);
  });

  test("connectionRate lets a burst of a second's worth through, and then its rate", () => {
    const admission = new Admission({ ...NONE, connectionRate: 10 }, unlimited(), null, 0);
    const taken = (now: number) => {
      const refused = admission.admit("192.0.2.1", now);
      if (refused === null) admission.release("192.0.2.1", now);
      return refused === null;
    };
    const count = (from: number, to: number) => {
      let sum = 0;
      for (let now = from; now < to; now++) if (taken(now)) sum++;
      return sum;
    };
    expect(count(0, 1000)).toBe(19);
    expect(count(1000, 2000)).toBe(10);
    // However long it was quiet.
    expect(Array.from({ length: 20 }, () => taken(62_000)).filter(Boolean).length).toBe(10);
    expect(admission.admit("192.0.2.2", 2000)).toBeNull();
    // Whoever came too fast is forgotten when a new one would fare no worse.
    expect(admission.size).toBe(2);
    admission.release("192.0.2.2", 60_000);
    for (let i = 0; i < 1100; i++) {
      admission.admit(`198.51.${i >> 8}.${i & 255}`, 60_000);
      admission.release(`198.51.${i >> 8}.${i & 255}`, 120_000);
    }
    expect(admission.size).toBeLessThan(1100);
  });

  test("handshakeRate is for all addresses together", () => {
    const admission = new Admission({ ...NONE, handshakeRate: 3 }, unlimited(), null, 0);
    const refusals = ["::1", "::2", "::3", "::4"].map((address) => admission.admit(address, 0));
    expect(refusals).toEqual([null, null, null, "connections come too fast"]);
    expect(admission.admit("::5", 400)).toBeNull();
  });

  test("blocked addresses are not taken", () => {
    const blocked = new BlockList();
    blocked.addSubnet("192.0.2.0", 24, "ipv4");
    blocked.addAddress("2001:db8::1", "ipv6");
    const admission = new Admission(NONE, unlimited(), blocked, 0);
    expect(admission.admit("192.0.2.9", 0)).toBe("the address is blocked");
    expect(admission.admit("2001:db8::1", 0)).toBe("the address is blocked");
    expect(admission.admit("192.0.3.9", 0)).toBeNull();
  });
});

describe("the limits of all protocols together", () => {
  test("count those of each address that are open, as some go and others come", () => {
    const limits = new ConnectionLimits({ maxConnections: 0, maxConnectionsPerAddress: 3 });
    const take = (times: number) => Array.from({ length: times }, () => limits.admit("::1"));
    expect([take(4), limits.admit("::2")]).toEqual([[true, true, true, false], true]);
    limits.release("::1");
    expect(take(2)).toEqual([true, false]);
    for (let i = 0; i < 2; i++) limits.release("::1");
    expect(take(3)).toEqual([true, true, false]);
  });

  test("are set where one of them is", () => {
    const areSet = (maxConnections: number, maxConnectionsPerAddress: number) =>
      new ConnectionLimits({ maxConnections, maxConnectionsPerAddress }).areSet;
    expect([areSet(0, 0), areSet(1, 0), areSet(0, 1)]).toEqual([false, true, true]);
  });

  test("hold for a connection that nothing else refuses, until that has gone", () => {
    const shared = new ConnectionLimits({ maxConnections: 1, maxConnectionsPerAddress: 0 });
    const admission = new Admission(NONE, shared, null, 0);
    const take = () => admission.admit("::1", 0);
    expect([take(), take()]).toEqual([null, "there are too many connections"]);
    admission.release("::1", 0);
    expect(take()).toBeNull();
  });
});

describe("connections that only their requests show", () => {
  const of = (bounds: { maxConnections?: number; maxConnectionsPerAddress?: number }) => {
    const limits = new ConnectionLimits({ maxConnections: 0, maxConnectionsPerAddress: 0, ...bounds });
    const clock = { at: 0 };
    return { limits, clock, seen: new SeenConnections(limits, 100, () => clock.at) };
  };

  test("count until no request has come from there for as long as an idle one is kept", () => {
    const { seen, clock } = of({ maxConnections: 2 });
    const see = (at: number, ...ports: number[]) => {
      clock.at = at;
      return ports.map((port) => seen.sees("::1", port));
    };
    expect(see(0, 1, 2, 3)).toEqual([true, true, false]);
    expect([see(60, 1), see(99, 3)]).toEqual([[true], [false]]);
    // The second is forgotten, and the first not, though it was there before.
    expect(see(120, 3, 4, 1)).toEqual([true, false, true]);
    expect(see(300, 5, 6)).toEqual([true, true]);
  });

  test("count for each address by itself", () => {
    const { seen } = of({ maxConnectionsPerAddress: 1 });
    expect([seen.sees("::1", 1), seen.sees("::1", 2), seen.sees("::2", 1)]).toEqual([true, false, true]);
  });

  test("give their room to those of another protocol, too, though no more requests come", () => {
    for (const bounds of [{ maxConnections: 1 }, { maxConnectionsPerAddress: 1 }]) {
      const { limits, seen, clock } = of(bounds);
      seen.sees("::1", 1);
      clock.at = 99;
      expect(limits.admit("::1")).toBe(false);
      clock.at = 100;
      expect([limits.admit("::1"), limits.admit("::1")]).toEqual([true, false]);
    }
  });
});
