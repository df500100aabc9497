/** The project's own generator, seen from the benchmark: generator/main.ts in a child process. */
import { runToEnd } from "./child.ts";
import type { GeneratorReport } from "./generator/main.ts";
import { BenchError, type Generator, measurementOf } from "./load.ts";

const PROGRAM = `${import.meta.dir}/generator/main.ts`;

export const ownGenerator: Generator = {
  name: `bench/generator of Bun ${Bun.version}`,
  async run(port, load, signal) {
    const { stdout } = await runToEnd([process.execPath, PROGRAM, `${port}`, JSON.stringify(load)], signal);
    const report = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as GeneratorReport;
    if (report.failures > 0) throw new BenchError(`${report.failures} failed, the first: ${report.failure}`);
    return measurementOf(load, report);
  },
};
