/** What the benchmark takes for a good run of h2load, and what it refuses to report. */
import { describe, expect, test } from "bun:test";
import { parseReport } from "./h2load.ts";
import type { Load } from "./load.ts";

const LOAD: Load = {
  protocol: "HTTP/3",
  path: "/",
  connections: 2,
  streams: 1,
  requests: 1000,
  responseBytes: 14,
};

const REPORT = `Application protocol: h3
progress: 100% done

finished in 805.67ms, 1241.20 req/s, 6.22MB/s
requests: 1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 1000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 5.01MB (52578) total, 3.05MB (32000) headers (space savings 60.49%), 13.67KB (14000) data
UDP datagram: 10747 sent, 12023 received
                 min         max         median      p95         p99         mean        sd         +/- sd
request     :      163us      6.86ms       708us      1.35ms      1.02s       786us       460us    87.11%
connect     :     4.89ms      8.11ms      6.61ms      8.11ms      8.11ms      6.54ms      1.22ms    60.00%
`;

describe("h2load's report", () => {
  test("gives rates, latencies in milliseconds and the generator's load", () => {
    const measurement = parseReport(REPORT, LOAD, 0.40283);
    expect(measurement.seconds).toBeCloseTo(0.80567);
    expect(measurement.requestsPerSecond).toBeCloseTo(1241.2, 1);
    expect(measurement.megabytesPerSecond).toBeCloseTo(0.014 / 0.80567);
    expect(measurement.p50).toBeCloseTo(0.708);
    expect(measurement.p99).toBe(1020);
    expect(measurement.generatorCores).toBeCloseTo(0.5);
  });

  const refused = {
    "a failed request": ["1000 succeeded, 0 failed", "999 succeeded, 1 failed"],
    "a connection that timed out": ["0 timeout", "1 timeout"],
    "a status other than 2xx": ["1000 2xx, 0 3xx, 0 4xx, 0 5xx", "999 2xx, 0 3xx, 1 4xx, 0 5xx"],
    "a body of another length": ["(14000) data", "(13999) data"],
    "another protocol": ["Application protocol: h3", "Application protocol: h2"],
    "a version without percentiles": ["median      p95         p99 ", ""],
    "a report cut short": ["finished in", ""],
  } as const;
  for (const [name, [good, bad]] of Object.entries(refused)) {
    test(`with ${name} is refused`, () => {
      expect(REPORT).toContain(good);
      expect(() => parseReport(REPORT.replace(good, bad), LOAD, 0)).toThrow();
    });
  }
});
