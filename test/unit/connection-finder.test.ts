/** Which engine has a connection, as engines answer that have it, have it not, or are lost on the way. No engines. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";
import type { Socket } from "node:dgram";
import { bindSocket, ConnectionFinder } from "../../src/listeners/native/connection-finder.ts";
import {
  ASK_PLACE_MASK,
  ASK_PLACE_OFFSET,
  connectionId,
  ID_BYTES,
  idStart,
} from "../../src/listeners/native/connection-ids.ts";
import { inTime, until } from "../support/poll.ts";
import { denial } from "../support/version-negotiation.ts";

// Milliseconds: longer than any deadline in a test, which so says what it waited for.
setDefaultTimeout(60_000);

const ADDRESS = { family: "udp4", address: "127.0.0.1", port: 0 } as const;
const [ASK, BEFORE, CONTROL] = [0x00, 0x40, 0x80];
const NEWEST = 5;

/** All engines of the port. */
let engines: Socket;
let finder: ConnectionFinder;
/** By place: the connections that the engine there has. */
let had: Map<number, Buffer[]>;
/** What was asked of which place, in order. */
let asked: { readonly kind: number; readonly place: number; readonly id: Buffer }[];
/** Of the next packets to a place, the kinds that are lost on the way. */
let lost: { readonly kind: number; readonly place: number }[];
let found: string[];
let gone: string[];

beforeEach(async () => {
  had = new Map();
  [asked, lost, found, gone] = [[], [], [], []];
  engines = await bindSocket(ADDRESS, false);
  engines.on("message", (packet, from) => {
    const byte = packet[ASK_PLACE_OFFSET] as number;
    const [kind, place] = [byte & ~ASK_PLACE_MASK, byte & ASK_PLACE_MASK];
    const id = Buffer.from(connectionId(packet) as Buffer);
    const loss = lost.findIndex((each) => each.kind === kind && each.place === place);
    if (loss !== -1) {
      lost.splice(loss, 1);
      return;
    }
    asked.push({ kind, place, id });
    if (!had.get(place)?.some((own) => own.equals(id))) engines.send(denial(packet), from.port, from.address);
  });
  finder = await ConnectionFinder.open(
    { ...ADDRESS, port: engines.address().port },
    {
      found: ({ port }, place) => found.push(`${port} at ${place}`),
      gone: (start, place) => gone.push(`${start} at ${place}`),
    },
  );
});

afterEach(() => {
  finder.close();
  engines.close();
});

const connection = (port: number) => ({ id: randomBytes(ID_BYTES), port });

test("a connection is where an engine does not deny it, and with the newest where all others do", async () => {
  const [own, another] = [connection(1), connection(2)];
  had.set(1, [own.id]);
  finder.find(own, [0, 1, 2], NEWEST);
  await until("the first", 5_000, () => found.length === 1);
  finder.find(another, [0, 1, 2], NEWEST);
  await until("the second", 5_000, () => found.length === 2);
  expect(found).toEqual(["1 at 1", `2 at ${NEWEST}`]);
  expect(gone).not.toContain(`${idStart(own.id)} at 1`);
  // In the middle of a handshake it would take who asks for the client.
  expect(asked.some(({ place }) => place === NEWEST)).toBe(false);
});

test("an engine is asked when it has seen to what came before, and not again while it is", async () => {
  const own = connection(1);
  for (let i = 0; i < 3; i++) finder.find(own, [0, 1], NEWEST);
  await until("the answer", 5_000, () => found.length === 1 && asked.length >= 6);
  for (const place of [0, 1]) {
    const kinds = asked.filter((each) => each.place === place).map(({ kind }) => kind);
    expect(kinds).toEqual([BEFORE, ASK, CONTROL]);
  }
  const ids = asked.filter(({ kind }) => kind === ASK).map(({ id }) => idStart(id));
  expect(ids).toEqual([idStart(own.id), idStart(own.id)]);
});

test("an ask that was lost is not taken for a connection that is there", async () => {
  lost.push({ kind: ASK, place: 0 });
  finder.find(connection(1), [0], NEWEST);
  await until("the answer", 5_000, () => found.length === 1);
  expect(found).toEqual([`1 at ${NEWEST}`]);
});

test("of many connections those are told that their engine no longer has", async () => {
  const all = Array.from({ length: 100 }, (_, i) => ({ ...connection(i), place: i % 3 }));
  for (const { id, place } of all.slice(0, 40)) had.set(place, [...(had.get(place) ?? []), id]);
  finder.check(all);
  const ended = all.slice(40).map(({ id, place }) => `${idStart(id)} at ${place}`);
  await until("all of them", 5_000, () => gone.length === ended.length);
  expect(gone.toSorted()).toEqual(ended.toSorted());
});

test("an engine is asked until it answers, and not beyond", async () => {
  lost.push({ kind: ASK, place: 3 }, { kind: ASK, place: 3 });
  await inTime("the answer", 1_900, finder.answers(3));
  const asks = () => asked.filter(({ place }) => place === 3).length;
  // What is still on its way comes before what is asked of another.
  await inTime("another answer", 1_900, finder.answers(4));
  const before = asks();
  await Bun.sleep(60);
  expect([asks(), lost]).toEqual([before, []]);
});
