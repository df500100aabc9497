/** Clients that leave at any moment: nothing stays in flight, and nothing is logged as an error. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { CancelledError, type Client, type ClientRequest } from "./support/client.ts";
import { type ClientKind, HTTP1, HTTP2, QUINN } from "./support/clients.ts";
import { isDiscardedAnswer } from "./support/http3-quinn-client.ts";
import { Random } from "./support/random.ts";
import { startFixture } from "./support/server.ts";
import { countsOf, untilIdle } from "./support/stats.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const REQUESTS = 10_000;
const AT_ONCE = 32;
const SEED = 20_261_123;

function randomRequest(random: Random): ClientRequest {
  switch (random.below(6)) {
    case 0:
      return { path: `/stream?bytes=${random.below(400_000)}` };
    case 1:
      return { path: "/echo", body: new Uint8Array(random.below(65_536)) };
    case 2:
      return { path: "/raw", body: new Uint8Array(random.below(65_536)) };
    case 3:
      return { path: `/wait?ms=${random.below(20)}` };
    case 4:
      return { path: "/trickle?count=4&every=2" };
    default:
      return { path: "/hello" };
  }
}

interface Tally {
  completed: number;
  cancelled: number;
  /** Whatever else became of a request, in words. */
  readonly wrong: string[];
}

/** One request, given up after a random time or not at all. */
async function performOne(client: Client, random: Random, tally: Tally): Promise<void> {
  const request = randomRequest(random);
  const isCancelled = random.below(3) === 0;
  try {
    const response = await client.request(
      isCancelled ? { ...request, giveUpAfter: random.below(12) } : request,
    );
    await response.body.bytes();
    if (response.status === 200) tally.completed++;
    else tally.wrong.push(`${client.name} ${request.path}: ${response.status}`);
  } catch (error) {
    if (isCancelled && error instanceof CancelledError) tally.cancelled++;
    else if (isDiscardedAnswer(error)) tally.completed++;
    else tally.wrong.push(`${client.name} ${request.path}: ${error}`);
  }
}

/**
 * A request that is given up before the HTTP/3 engine has seen its whole head costs the connection one of its hundred
 * streams for good, so that HTTP/3 needs more than one connection here. Quiche is left out: it loses the end of a
 * response now and then when other streams of its connection are reset.
 */
const LOADS: readonly [kind: ClientKind, connections: number][] = [
  [HTTP1, 1],
  [HTTP2, 1],
  [QUINN, AT_ONCE],
];

test("10,000 requests, a third of them cancelled at random moments", async () => {
  await using server = await startFixture("server.ts", { options: { workers: 2 } });
  const tally: Tally = { completed: 0, cancelled: 0, wrong: [] };
  const share = Math.ceil(REQUESTS / LOADS.length);
  await Promise.all(
    LOADS.map(async ([kind, connections], index) => {
      const random = new Random(SEED + index);
      const clients = await Promise.all(Array.from({ length: connections }, () => kind.open(server)));
      let left = share;
      const perform = async (client: Client) => {
        while (left-- > 0) await performOne(client, random, tally);
      };
      try {
        await Promise.all(
          Array.from({ length: AT_ONCE }, (_, i) => perform(clients[i % connections] as Client)),
        );
      } finally {
        for (const client of clients) await client.close();
      }
    }),
  );
  expect(tally.wrong).toEqual([]);
  expect(tally.completed + tally.cancelled).toBe(share * LOADS.length);
  expect(tally.cancelled).toBeGreaterThan(REQUESTS / 8);

  await using observer = await HTTP1.open(server);
  const stats = await untilIdle(observer);
  for (const [{ protocol }] of LOADS) {
    const { completed, aborted, failed, rejected } = countsOf(stats, protocol);
    expect({ protocol, failed, rejected }).toEqual({ protocol, failed: 0, rejected: 0 });
    expect(aborted).toBeGreaterThan(0);
    expect(completed).toBeGreaterThan(share / 2);
  }
  expect(stats.workers.every(({ restarts }) => restarts === 0)).toBe(true);
  expect(server.stderr).toBe("");
}, 120_000);
