/** The project's own generator, seen from the benchmark: generator.ts in a child process. */
import { runToEnd } from "./child.ts";
import type { GeneratorReport } from "./generator.ts";
import { BenchError, type Generator } from "./load.ts";

const PROGRAM = `${import.meta.dir}/generator.ts`;

export const ownGenerator: Generator = {
  name: `bench/generator.ts (node:quic of Bun ${Bun.version})`,
  async run(port, load, signal) {
    const { path, connections, streams, requests, responseBytes, acceptEncoding = "" } = load;
    const size = [connections, streams, requests, responseBytes].map(String);
    const { stdout } = await runToEnd(
      [process.execPath, PROGRAM, `${port}`, path, ...size, acceptEncoding],
      signal,
    );
    const report = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as GeneratorReport;
    if (report.failures > 0) throw new BenchError(`${report.failures} failed, the first: ${report.failure}`);
    return {
      seconds: report.seconds,
      requestsPerSecond: requests / report.seconds,
      megabytesPerSecond: (requests * responseBytes) / 1e6 / report.seconds,
      p50: report.p50,
      p99: report.p99,
      generatorCores: report.cpuSeconds / report.seconds,
    };
  },
};
