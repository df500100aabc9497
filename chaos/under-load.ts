/** Workers are replaced, killed and blocked while a steady load runs on HTTP/1.1, HTTP/2 and HTTP/3 at once. */
import { makeCertificate } from "../test/support/certificate.ts";
import type { Client } from "../test/support/client.ts";
import { ALL_CLIENTS, HTTP2 } from "../test/support/clients.ts";
import { Load, type LoadSettings, MIXED_REQUESTS } from "../test/support/load.ts";
import { until } from "../test/support/poll.ts";
import { startFixture, type TestServer } from "../test/support/server.ts";
import {
  fingerprintOf,
  replaceCertificate,
  shownByQuic,
  shownByTcp,
} from "../test/support/shown-certificate.ts";
import { killWorkers, readStats, untilRestarted } from "../test/support/stats.ts";
import { startVersions } from "../test/support/versions.ts";
import { brokenOf, type Outcome, type Scenario } from "./scenario.ts";

const MIB = 1024 * 1024;
const RELOADS = 20;
const RECYCLED = 20;
const CERTIFICATES = 10;
/** Milliseconds. */
const RECYCLED_WITHIN = 180_000;
const KILLING = 20_000;
const REPLACED_WITHIN = 20_000;

export const UNDER_LOAD: readonly Scenario[] = [
  {
    name: "reloads",
    promise: `${RELOADS} reloads under load: no request fails and no connection is closed`,
    run: async (say) => {
      await using versions = await startVersions({ workers: 2 });
      return await underLoad(versions.server, { requests: MIXED_REQUESTS }, async (observer) => {
        for (let reload = 1; reload <= RELOADS; reload++) {
          versions.load(String(reload + 1));
          await expectText(observer, "/reload", "reloaded");
          await expectText(observer, "/version", String(reload + 1));
          say(`${reload} of ${RELOADS}`);
        }
        return `${RELOADS} reloads`;
      });
    },
  },
  {
    name: "max-requests",
    promise: "workers replaced after `maxRequests`: no request fails and no connection is closed",
    run: async (say) => {
      await using versions = await startVersions({ workers: 2, maxRequests: 200 });
      return await underLoad(versions.server, { requests: MIXED_REQUESTS }, (observer) =>
        recycled(observer, say, async () => {}),
      );
    },
  },
  {
    name: "max-memory",
    promise: "workers replaced over `maxMemory`: no request fails and no connection is closed",
    run: async (say) => {
      await using versions = await startVersions({ workers: 2, maxMemory: 400 * MIB });
      return await underLoad(versions.server, { requests: MIXED_REQUESTS }, (observer) =>
        recycled(observer, say, async () => {
          await expectText(observer, `/leak?bytes=${100 * MIB}`, "");
        }),
      );
    },
  },
  {
    name: "certificates",
    promise: `${CERTIFICATES} certificate changes under load: new connections get each, no request fails and no connection is closed`,
    run: async (say) => {
      await using server = await startFixture("certificate.ts", { options: { workers: 2 } });
      return await underLoad(server, { requests: MIXED_REQUESTS }, async () => {
        for (let change = 1; change <= CERTIFICATES; change++) {
          const certificate = await makeCertificate();
          const outcome = await replaceCertificate(server, certificate);
          if (outcome !== "in force") throw new Error(`certificate ${change} was not taken: ${outcome}`);
          const shown = await Promise.all([shownByTcp(server.port), shownByQuic(server.port)]);
          if (shown.some((fingerprint) => fingerprint !== fingerprintOf(certificate)))
            throw new Error(`certificate ${change} is not shown to new connections`);
          say(`${change} of ${CERTIFICATES}`);
        }
        return `${CERTIFICATES} certificates`;
      });
    },
  },
  {
    name: "kill-workers",
    promise:
      "`kill -9` of a worker at random each 100 ms for 20 s: idempotent requests lose none, others only those in that worker",
    run: async () => {
      await using server = await startFixture("server.ts", { options: { workers: 4 } });
      const post = { method: "POST", path: "/wait?ms=15" };
      let lost = 0;
      let posts = 0;
      await using others = await Load.begin(server, {
        requests: [post],
        isRight: (status) => {
          posts++;
          if (status === 502) lost++;
          return status === 200 || status === 502;
        },
      });
      let kills = 0;
      const outcome = await underLoad(server, { requests: [{ path: "/wait?ms=15" }] }, async (observer) => {
        const end = performance.now() + KILLING;
        kills = await killWorkers(observer, () => performance.now() >= end);
        return `kill -9 of ${kills} workers`;
      });
      const harm = await others.harm();
      return {
        measured: `${outcome.measured}; of ${posts} that are not idempotent ${lost} were lost`,
        broken: [
          ...outcome.broken,
          ...harm,
          // Each connection has so many of them under way, on two workers or more.
          ...brokenOf({
            [`${lost} requests were lost with ${kills} workers`]: lost <= kills * 3 * 4,
            "no worker was killed": kills > 0,
          }),
        ],
      };
    },
  },
  {
    name: "endless-loop",
    promise: "a handler in `while (true)`: 504 for its own request, and no other fails",
    run: async () => {
      const options = { workers: 2, requestTimeout: 1000, shutdownTimeout: 500 };
      await using server = await startFixture("server.ts", { options });
      const wrong: string[] = [];
      const outcome = await underLoad(server, { requests: [{ path: "/wait?ms=15" }] }, async (observer) => {
        const kinds = [...ALL_CLIENTS, ...ALL_CLIENTS];
        for (const kind of kinds) {
          await using client = await kind.open(server);
          const before = await readStats(observer);
          const response = await client.request({ path: "/spin" });
          await response.body.bytes();
          if (response.status !== 504) wrong.push(`GET /spin, ${kind.name}: ${response.status}, not 504`);
          await untilRestarted(observer, before, REPLACED_WITHIN);
        }
        return `${kinds.length} endless loops`;
      });
      return { ...outcome, broken: [...outcome.broken, ...wrong] };
    },
  },
];

async function underLoad(
  server: TestServer,
  settings: LoadSettings,
  ordeal: (observer: Client) => Promise<string>,
): Promise<Outcome> {
  await using load = await Load.begin(server, settings);
  await using observer = await HTTP2.open(server);
  const began = performance.now();
  const what = await ordeal(observer);
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  const broken = await load.harm();
  const { count, wrong, slowest } = load;
  return {
    measured: `${what} in ${seconds} s, ${count} requests: ${wrong.length} failed, the slowest took ${slowest.toFixed(0)} ms`,
    broken,
  };
}

async function expectText(client: Client, path: string, expected: string): Promise<void> {
  const text = await (await client.request({ path })).body.text();
  if (text !== expected) throw new Error(`GET ${path} was answered with "${text}", not "${expected}"`);
}

/** Waits until so many workers have been replaced. */
async function recycled(
  observer: Client,
  say: (line: string) => void,
  push: () => Promise<void>,
): Promise<string> {
  const seen = new Set<number>();
  const { workers } = await readStats(observer);
  await until(`${RECYCLED} new workers`, RECYCLED_WITHIN, async () => {
    await push();
    const before = seen.size;
    for (const { pid } of (await readStats(observer)).workers) seen.add(pid);
    if (seen.size > before) say(`${seen.size - workers.length} replaced`);
    return seen.size >= workers.length + RECYCLED;
  });
  return `${seen.size - workers.length} workers replaced`;
}
