/**
 * Back pressure from end to end: a large response to a client that reads 5 MB/s, and a large upload into a handler
 * that takes 5 MB/s. Neither fills the memory of reactor or worker, and neither slows anybody else down. The protocols
 * and directions run at the same time, each with a server of its own, as each takes half a minute; 256 MiB, which
 * `npm run soak` moves, take a whole one.
 */
import { describe, expect, test } from "bun:test";
import type { Client } from "./support/client.ts";
import { type ClientKind, SLOW_CLIENTS } from "./support/clients.ts";
import { readPaced } from "./support/paced.ts";
import { residentBytes } from "./support/processes.ts";
import { startFixture, type TestServer } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { IS_SOAK } from "./support/soak.ts";
import { readStats } from "./support/stats.ts";

const MIB = 1_048_576;
const SIZE = (IS_SOAK ? 256 : 128) * MIB;
const BYTES_PER_SECOND = 5_000_000;
const MAY_GROW = 48 * MIB;
/**
 * Milliseconds, for 95 of 100 and for all, beyond what the same takes at the same time at a server that does nothing else, for
 * the machine may be busy: blocked behind a slow body, a small request waits for seconds.
 */
const MOST_SMALL_REQUESTS = 100;
const SLOWEST_SMALL_REQUEST = 500;
const SAMPLE_EVERY = 100;
const WITHIN = 150_000;

interface Watched {
  readonly reactor: number;
  readonly worker: number;
  /** Milliseconds of each small request. */
  readonly latencies: number[];
  /** The same, at the server that does nothing else. */
  readonly idleLatencies: number[];
}

async function hello(client: Client): Promise<number> {
  const began = performance.now();
  const response = await client.request({ path: "/hello" });
  await response.body.text();
  expect(response.status).toBe(200);
  return performance.now() - began;
}

/** Runs `transfer`; meanwhile watches how much more memory the processes hold, and how others are served. */
async function watch(
  server: TestServer,
  other: Client,
  idle: Client,
  transfer: () => Promise<void>,
): Promise<Watched> {
  // A server that has served nothing yet has not loaded all its code.
  for (let i = 0; i < 300; i++) await hello(other);
  const stats = await readStats(other);
  const pids = { reactor: stats.reactors[0]?.pid ?? 0, worker: stats.workers[0]?.pid ?? 0 };
  const before = { reactor: residentBytes(pids.reactor), worker: residentBytes(pids.worker) };
  const grown = { reactor: 0, worker: 0 };
  const latencies: number[] = [];
  const idleLatencies: number[] = [];
  let isDone = false;
  const done = transfer().finally(() => {
    isDone = true;
  });
  while (!isDone) {
    latencies.push(await hello(other));
    idleLatencies.push(await hello(idle));
    for (const process of ["reactor", "worker"] as const) {
      const now = residentBytes(pids[process]) - before[process];
      grown[process] = Math.max(grown[process], now);
    }
    await Promise.race([done, Bun.sleep(SAMPLE_EVERY)]);
  }
  await done;
  expect(server.stderr).not.toMatch(/error/i);
  return { ...grown, latencies, idleLatencies };
}

/** Reads the body at the pace of a slow client. */
async function readSlowly(client: Client): Promise<void> {
  const response = await client.request({ path: `/stream?bytes=${SIZE}` });
  expect(await readPaced(response.body, BYTES_PER_SECOND)).toBe(SIZE);
}

/** Offers as much as the server takes. */
async function uploadIntoSlowHandler(client: Client): Promise<void> {
  let taken = 0;
  const pieces = async function* () {
    const chunk = new Uint8Array(65_536);
    for (; taken < SIZE; taken += chunk.length) yield chunk;
  };
  const response = await client.request({ path: `/slow-read?rate=${BYTES_PER_SECOND}`, body: pieces() });
  expect(response.status).toBe(200);
  expect(await response.body.json<unknown>()).toEqual({ length: SIZE });
}

async function hold(kind: ClientKind, transfer: (client: Client) => Promise<void>): Promise<void> {
  await using server = await startFixture("server.ts", { options: { maxBodyBytes: 2 * SIZE } });
  await using slow = await kind.open(server);
  await using other = await kind.open(server);
  await using idle = await kind.open(shared.server);
  const began = performance.now();
  const { reactor, worker, latencies, idleLatencies } = await watch(server, other, idle, () =>
    transfer(slow),
  );
  expect(performance.now() - began).toBeGreaterThan((SIZE / BYTES_PER_SECOND) * 900);
  expect(reactor).toBeLessThan(MAY_GROW);
  expect(worker).toBeLessThan(MAY_GROW);
  expect(latencies.length).toBeGreaterThan(50);
  const [most, slowest] = percentiles(latencies);
  const [idleMost, idleSlowest] = percentiles(idleLatencies);
  expect(most).toBeLessThan(idleMost + MOST_SMALL_REQUESTS);
  expect(slowest).toBeLessThan(idleSlowest + SLOWEST_SMALL_REQUEST);
}

/** The 95th, and the largest. */
function percentiles(latencies: number[]): [number, number] {
  latencies.sort((a, b) => a - b);
  return [latencies[Math.ceil(latencies.length * 0.95) - 1] ?? 0, latencies.at(-1) ?? 0];
}

const shared = sharedServer(() => startFixture("server.ts"));

describe(`${SIZE / MIB} MiB at 5 MB/s`, () => {
  for (const kind of SLOW_CLIENTS) {
    test.concurrent(`a slow reader, ${kind.name}`, () => hold(kind, readSlowly), WITHIN);
    test.concurrent(`a slow handler, ${kind.name}`, () => hold(kind, uploadIntoSlowHandler), WITHIN);
  }
});
