/**
 * `npm run bench`: Tercet, bare servers of its runtime, and what else is put in front of Node.js, started one after another
 * and loaded in turn by the same generator, three times, over each protocol. Writes every figure as JSON, tables and
 * charts to bench/results. Of a server that had an error no figure is shown, and the exit code is 1.
 *
 *   --quick            one short repetition: shows that all of it works, measures nothing well
 *   --servers LIST     only these, such as raw,process
 *   --only LIST        only the comparisons that have one of these in their names, such as http3,idle
 *   --reactors N       of Tercet; without it, as many as it has by itself
 *   --resume FILE      measures what an earlier result lacks, on the same machine and at the same commit
 *   --publish FILE     shows an earlier result in docs/; measures nothing
 *   H2LOAD, NGINX, CADDY, NODEJS=…   command lines of what else is measured
 */
import { measureIdle } from "./idle.ts";
import { plan } from "./loads.ts";
import { compare } from "./measure.ts";
import { SERVER_NAMES } from "./servers.ts";
import { runBenchmark } from "./session.ts";

await runBenchmark({
  kind: "bench",
  servers: SERVER_NAMES,
  async measure({ bench, place, upload, compare: compareOnce }) {
    const { comparisons, idle } = plan(upload);
    for (const comparison of comparisons) {
      await compareOnce(comparison.name, () => compare(bench, comparison));
    }
    for (const comparison of idle) {
      await compareOnce(comparison.name, () => measureIdle(bench, place, comparison));
    }
  },
});
