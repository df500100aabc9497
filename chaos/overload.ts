/** Three times as many requests as a server can serve, at a steady rate, whatever becomes of those before. */
import { header } from "../test/support/client.ts";
import { HTTP2 } from "../test/support/clients.ts";
import { startFixture } from "../test/support/server.ts";
import { untilIdle } from "../test/support/stats.ts";
import { brokenOf, type Outcome, type Scenario } from "./scenario.ts";

/** Four at a time, 40 ms each: one hundred a second. */
const OPTIONS = { workers: 2, concurrency: 2, queueTarget: 10 };
const PATH = "/wait?ms=40";
/** Requests a second. */
const AT_CAPACITY = 80;
const OVER_CAPACITY = 300;
/** Milliseconds. */
const REFUSED_WITHIN = 50;

export const overload: Scenario = {
  name: "overload",
  promise:
    "3 × the capacity: the accepted keep p99 within 2 × that at capacity, the rest get 503 within 50 ms",
  run: () => runOverload(30),
};

/** What became of the requests of one rate; times in milliseconds. */
interface Rate {
  readonly accepted: number;
  readonly refused: number;
  readonly p99: number;
  readonly p99Refused: number;
  /** Refusals without Retry-After, and other answers. */
  readonly wrong: readonly string[];
}

/** @param seconds for which each rate is kept */
export async function runOverload(seconds: number): Promise<Outcome> {
  await using server = await startFixture("server.ts", { options: OPTIONS });
  await using client = await HTTP2.open(server);
  const measure = async (perSecond: number): Promise<Rate> => {
    const accepted: number[] = [];
    const refused: number[] = [];
    const wrong: string[] = [];
    const ask = async (counts: boolean) => {
      const began = performance.now();
      const response = await client.request({ path: PATH });
      await response.body.bytes();
      const isRefused = response.status === 503 && /^[1-9]\d*$/.test(header(response, "retry-after") ?? "");
      if (!isRefused && response.status !== 200) wrong.push(`an answer ${response.status}`);
      if (counts) (isRefused ? refused : accepted).push(performance.now() - began);
    };
    const asked: Promise<void>[] = [];
    const total = perSecond * (seconds + 1);
    for (const start = performance.now(); asked.length < total; await Bun.sleep(2)) {
      const due = Math.min(((performance.now() - start) / 1000) * perSecond, total);
      // The first second does not count: a queue that has just begun to stand is still a burst.
      while (asked.length < due) asked.push(ask(asked.length > perSecond));
    }
    await Promise.all(asked);
    return {
      accepted: accepted.length,
      refused: refused.length,
      p99: p99(accepted),
      p99Refused: p99(refused),
      wrong,
    };
  };
  const at = await measure(AT_CAPACITY);
  const over = await measure(OVER_CAPACITY);
  await untilIdle(client);
  const slower = over.p99 / at.p99;
  return {
    measured:
      `${OVER_CAPACITY} requests a second for ${seconds} s, of which about 100 can be served: ${over.accepted} accepted ` +
      `with p99 ${slower.toFixed(2)} × that at ${AT_CAPACITY} a second, ${over.refused} refused, p99 ${over.p99Refused.toFixed(1)} ms`,
    broken: [
      ...new Set([...at.wrong, ...over.wrong]),
      ...brokenOf({
        [`${at.refused} were refused at capacity`]: at.refused < AT_CAPACITY * seconds * 0.05,
        [`only ${over.accepted} were accepted`]: over.accepted > 65 * seconds,
        [`only ${over.refused} were refused`]: over.refused > 130 * seconds,
        [`the accepted took ${slower.toFixed(2)} × as long`]: slower < 2,
        [`the refused waited for ${over.p99Refused.toFixed(0)} ms`]: over.p99Refused < REFUSED_WITHIN,
      }),
    ],
  };
}

function p99(times: number[]): number {
  return times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? 0;
}
