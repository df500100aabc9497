/** The program that chooses among the sockets of one port, run by the kernel on real packets. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Socket } from "node:dgram";
import { networkInterfaces } from "node:os";
import { bindSocket } from "../../src/listeners/native/connection-finder.ts";
import { askPacket } from "../../src/listeners/native/connection-ids.ts";
import {
  CAUGHT,
  reuseportProgram,
  type Steering,
  UNKNOWN,
} from "../../src/listeners/native/reuseport-program.ts";
import { UdpGroup } from "../../src/listeners/native/udp-group.ts";
import {
  addressOf,
  attachReuseportProgram,
  type SocketAddress,
  udpSocketsOf,
} from "../../src/listeners/udp-socket.ts";
import { failureOf, inTime } from "../support/poll.ts";
import { Random } from "../support/random.ts";

const PLACES = 5;
const OLD = 0;
const OLDER = 1;
const FRESH = 3;
const CATCHER = 4;
const SENDERS = 40;
const PORTS = 65_536;

/** Sockets that share a port, and clients that send to it. */
class Port {
  readonly #members: Socket[] = [];
  readonly #senders: Socket[] = [];
  readonly #target: SocketAddress;
  #arrived: (place: number) => void = () => {};

  private constructor(target: SocketAddress) {
    this.#target = target;
  }

  static async open(bound: string, clients: { family: SocketAddress["family"]; address: string }) {
    const first = await bindSocket({ family: familyOf(bound), address: bound, port: 0 }, true);
    const { port } = first.address();
    const all = new Port({ ...clients, port });
    all.#add(first);
    while (all.#members.length < PLACES)
      all.#add(await bindSocket({ family: familyOf(bound), address: bound, port }, true));
    while (all.#senders.length < SENDERS) all.#senders.push(await bindSocket({ ...clients, port: 0 }, false));
    return all;
  }

  #add(member: Socket): void {
    const place = this.#members.push(member) - 1;
    member.on("message", () => this.#arrived(place));
  }

  get clientPorts(): number[] {
    return this.#senders.map((sender) => sender.address().port);
  }

  choose(steering: Partial<Steering>, portsTogether?: number): void {
    const program = reuseportProgram(steeringOf(steering), portsTogether);
    if (program === null) throw new Error("the program is too long");
    attachReuseportProgram(udpSocketsOf(this.#target.port)[0] as number, program);
  }

  /** Where the packet arrives. */
  async place(packet: Uint8Array, sender = 0): Promise<number> {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.#arrived = resolve;
    this.#senders[sender]?.send(packet, this.#target.port, this.#target.address);
    return inTime("a packet", 5_000, promise);
  }

  close(): void {
    for (const socket of [...this.#members, ...this.#senders]) socket.close();
  }
}

function familyOf(address: string): SocketAddress["family"] {
  return address.includes(":") ? "udp6" : "udp4";
}

function steeringOf(steering: Partial<Steering>): Steering {
  return { ids: null, ports: noPorts(), fresh: FRESH, catcher: CATCHER, catching: false, ...steering };
}

function noPorts(): Uint8Array {
  return new Uint8Array(PORTS).fill(UNKNOWN);
}

/** RFC 9000 §17.3. */
function short(id: number, random: Random): Uint8Array {
  const packet = Buffer.from(random.bytes(60));
  packet[0] = 0x40 | random.below(0x40);
  packet.writeUInt32BE(id, 1);
  return packet;
}

/** RFC 9000 §17.2, RFC 9369 §3.2. */
function long(type: number, id: number, random: Random, version = 1): Uint8Array {
  const packet = Buffer.from(random.bytes(1200));
  packet[0] = 0xc0 | (type << 4) | random.below(16);
  packet.writeUInt32BE(version, 1);
  packet[5] = 8;
  packet.writeUInt32BE(id, 6);
  return packet;
}

const HANDSHAKE = 2;
const VERSION_2 = 0x6b33_43cf;
const hasIpv6 = Object.values(networkInterfaces()).some((own) =>
  own?.some(({ family }) => family === "IPv6"),
);
const CASES = [
  { name: "IPv4", bound: "127.0.0.1", clients: { family: "udp4", address: "127.0.0.1" } },
  { name: "IPv6", bound: "::1", clients: { family: "udp6", address: "::1" } },
  { name: "IPv4 to a socket of both", bound: "::", clients: { family: "udp4", address: "127.0.0.1" } },
] as const;

for (const { name, bound, clients } of CASES.filter(({ bound }) => hasIpv6 || !bound.includes(":"))) {
  describe(name, () => {
    let port: Port;
    const random = new Random(1);
    beforeAll(async () => {
      port = await Port.open(bound, clients);
    });
    afterAll(() => port.close());

    test("a connection is known by its id, among a thousand others, in every packet but what begins one", async () => {
      const ids = new Map([[0, OLD] as [number, number], [0xffff_ffff, OLDER]]);
      while (ids.size < 1000) ids.set(Math.floor(random.next() * 2 ** 32), random.pick([OLD, OLDER, FRESH]));
      for (const catching of [true, false]) {
        port.choose({ ids, catching });
        for (const [id, place] of [...ids].slice(0, 40)) {
          expect(await port.place(short(id, random))).toBe(place);
          expect(await port.place(long(HANDSHAKE, id, random))).toBe(place);
          expect(await port.place(long(0, id, random))).toBe(FRESH);
          expect(await port.place(long(1, id, random, VERSION_2))).toBe(FRESH);
          const unknown = (id + 1) >>> 0;
          if (ids.has(unknown)) continue;
          expect(await port.place(short(unknown, random))).toBe(catching ? CATCHER : FRESH);
          expect(await port.place(long(HANDSHAKE, unknown, random))).toBe(catching ? CATCHER : FRESH);
        }
      }
    });

    test("an unknown id is caught from a port that is", async () => {
      const ports = noPorts();
      port.clientPorts.forEach((client, sender) => {
        if (sender % 2 === 0) ports[client] = CAUGHT;
      });
      port.choose({ ids: new Map([[7, OLD]]), ports });
      for (let sender = 0; sender < SENDERS; sender++) {
        expect(await port.place(short(8, random), sender)).toBe(sender % 2 === 0 ? CATCHER : FRESH);
        expect(await port.place(short(7, random), sender)).toBe(OLD);
        expect(await port.place(long(0, 8, random), sender)).toBe(FRESH);
      }
    });

    for (const [others, portsTogether] of [
      [0, 1],
      [1000, 1],
      [20_000, 4],
    ] as const) {
      test(`a client is known by its port, among ${others} others, ${portsTogether} taken together`, async () => {
        const ports = noPorts();
        for (let i = 0; i < others; i++) ports[random.below(PORTS)] = OLD;
        const bucketOf = (client: number) => Math.floor(client / portsTogether);
        // Of clients that are taken together the first decides.
        const senders = port.clientPorts.flatMap((client, sender, all) => {
          const isFirst = all.findIndex((other) => bucketOf(other) === bucketOf(client)) === sender;
          return isFirst ? [{ client, sender }] : [];
        });
        for (const { client, sender } of senders) {
          const first = bucketOf(client) * portsTogether;
          ports.fill(UNKNOWN, first, first + portsTogether);
          if (sender % 4 === 1) ports[client] = OLD;
          if (sender % 4 === 2) ports[client] = OLDER;
          if (sender % 4 === 3) ports[client] = CAUGHT;
        }
        port.choose({ ports }, portsTogether);
        for (const { sender } of senders) {
          const [rest, begins] = [
            [FRESH, FRESH],
            [OLD, OLD],
            [OLDER, OLDER],
            [CATCHER, FRESH],
          ][sender % 4] as [number, number];
          expect(await port.place(short(1, random), sender)).toBe(rest);
          expect(await port.place(long(0, 1, random), sender)).toBe(begins);
        }
      });
    }

    test("an ask arrives where it says", async () => {
      port.choose({ ids: new Map([[7, OLD]]) });
      for (let place = 0; place < PLACES; place++) {
        for (const kind of ["ask", "before", "control"] as const) {
          const ask = askPacket(kind, place, Buffer.from("0000000700000000", "hex"), Buffer.from("abc"));
          expect(await port.place(ask)).toBe(place);
        }
      }
    });
  });
}

test("what is more than the kernel takes is no program", () => {
  const ports = noPorts().map((_, client) => (client % 3 === 0 ? OLD : UNKNOWN));
  expect(reuseportProgram(steeringOf({ ports }))).toBeNull();
  const ids = new Map(Array.from({ length: 10_000 }, (_, id) => [id, OLD]));
  expect(reuseportProgram(steeringOf({ ids }))).toBeNull();
  expect(reuseportProgram(steeringOf({ ports }), 128)).not.toBeNull();
});

test("a socket's descriptor is found by its port, and its address by its descriptor", async () => {
  for (const [family, address, read] of [
    ["udp4", "127.0.0.1", "127.0.0.1"],
    ["udp6", "::1", "0:0:0:0:0:0:0:1"],
  ] as const) {
    if (family === "udp6" && !hasIpv6) continue;
    const socket = await bindSocket({ family, address, port: 0 }, false);
    const { port } = socket.address();
    const descriptors = udpSocketsOf(port);
    expect(descriptors.map(addressOf)).toEqual([{ family, address: read, port }]);
    socket.close();
    expect(udpSocketsOf(port)).toEqual([]);
  }
});

test("sockets that no other could join are as before, and nothing is told of connections at their end", async () => {
  const told: string[] = [];
  // No socket can be bound to it (RFC 5737), as none can to a port that was root's where the process is root no more.
  const address: SocketAddress = { family: "udp4", address: "192.0.2.1", port: 9 };
  const engine = { close: async () => {} };
  const times = { catching: 1000, handshake: 1000, check: 1000 };
  const group = new UdpGroup(address, engine, times, (line) => told.push(line));
  const failure = await failureOf(
    "another engine",
    1000,
    group.advance(() => engine),
  );
  expect(failure).toMatchObject({ code: "EADDRNOTAVAIL" });
  await group.hold();
  group.close();
  expect(told).toEqual([]);
});
