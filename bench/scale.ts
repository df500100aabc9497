/**
 * `npm run bench:scale`: what requests cost as connections, streams, bodies, heads, workers, reactors and idle connections
 * become more. The arguments are those of `npm run bench`.
 */
import { measureIdle } from "./idle.ts";
import { compare } from "./measure.ts";
import type { Series } from "./results.ts";
import { IDLE_SCALE, LOAD_SCALES, type LoadScale } from "./scales.ts";
import type { Place, ServerName } from "./servers.ts";
import { startServer } from "./servers.ts";
import { type Measuring, runBenchmark } from "./session.ts";

/** Of a run. */
const SECONDS = 1;

type Measure = Pick<Measuring, "bench" | "place">;

async function measureScale({ bench, place }: Measure, scale: LoadScale): Promise<Series[]> {
  const { name, servers, options, requests } = scale;
  const found: Series[] = [];
  for (const x of scale.xs) {
    const size = requests === undefined ? { seconds: SECONDS } : { requests: requests(x) };
    const comparison = { name, servers, work: scale.work(x), size };
    if (options === undefined) {
      found.push(...(await compare(bench, comparison, x)));
    } else {
      const changed: Place = { ...place, options: { ...place.options, ...options(x) } };
      await using stack = new AsyncDisposableStack();
      const started = new Map<ServerName, Awaited<ReturnType<typeof startServer>>>();
      for (const server of servers) {
        bench.signal.throwIfAborted();
        if (bench.servers.has(server)) started.set(server, stack.use(await startServer(server, changed)));
      }
      found.push(...(await compare({ ...bench, servers: started }, comparison, x)));
    }
  }
  return found;
}

await runBenchmark({
  kind: "scale",
  servers: ["raw", "process", "base"],
  async measure({ bench, place, compare: compareOnce }) {
    for (const scale of LOAD_SCALES) {
      await compareOnce(scale.name, () => measureScale({ bench, place }, scale));
    }
    const { name, servers, xs } = IDLE_SCALE;
    // Each is minutes of opening connections: once tells a line from a curve.
    const once = { ...bench, repetitions: 1 };
    await compareOnce(name, async () => {
      const found: Series[] = [];
      for (const connections of xs) {
        const series = await measureIdle(once, place, { name, servers, connections });
        found.push(...series.map((one) => ({ ...one, x: connections })));
      }
      return found;
    });
  },
});
