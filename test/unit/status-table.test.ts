/** A status as lines: what is in them, and that they fit. */
import { describe, expect, test } from "bun:test";
import { statusLines } from "../../src/cli/status-table.ts";
import type { ServerStatus } from "../../src/manager/control.ts";

const MIB = 1024 * 1024;
const none = { active: 0, completed: 0, aborted: 0, failed: 0, rejected: 0 };
const protocols = {
  "HTTP/1.1": none,
  "HTTP/2": { active: 3, completed: 1234, aborted: 5, failed: 7, rejected: 11 },
  "HTTP/3": none,
};

const STATUS: ServerStatus = {
  version: "0.1.0",
  state: "serving",
  host: "::",
  port: 443,
  protocols: ["HTTP/1.1", "HTTP/2"],
  runDirectory: "/tmp/tercet-0-443",
  manager: { pid: 4_194_000, uptime: 59_999, rss: 60 * MIB, cpu: 0.004 },
  totals: protocols,
  inFlight: 3,
  reactors: [
    {
      id: 1,
      pid: 4_194_001,
      state: "silent",
      uptime: 3_600_000,
      restarts: 2,
      cpu: 0.996,
      rss: 2000 * MIB,
      inFlight: 3,
      queued: 7,
      droppedFrames: 0,
      protocols,
    },
  ],
  workers: [
    {
      id: 1,
      pid: 4_194_002,
      state: "retiring",
      uptime: 86_400_000,
      restarts: 0,
      cpu: 1.5,
      rss: 99.6 * MIB,
      inFlight: 2,
      requests: 99_999_999,
    },
    {
      id: 16,
      pid: 4_194_003,
      state: "ready",
      uptime: 307_000,
      restarts: 0,
      cpu: 0,
      rss: 0,
      inFlight: 1,
      requests: 123_456_789,
    },
  ],
  taskWorkers: [
    {
      id: 1,
      pid: 4_194_004,
      state: "ready",
      uptime: 1000,
      restarts: 1,
      cpu: 0.5,
      rss: 50 * MIB,
      inFlight: 1,
      queued: 20,
      tasks: 300,
    },
  ],
};

describe("a status", () => {
  test("is a line for each process, and for each protocol that is spoken", () => {
    expect(statusLines(STATUS, 100)).toEqual([
      "tercet 0.1.0, serving on port 443 (HTTP/1.1, HTTP/2)",
      "run directory /tmp/tercet-0-443",
      "",
      "PROCESS        PID  STATE     UPTIME  REQUESTS  IN FLIGHT  QUEUED    RSS   CPU  RESTARTS",
      "manager    4194000  serving      59s         -          -       -    60M    0%         -",
      "reactor 1  4194001  silent     1h00m      1260          3       7  2000M  100%         2",
      "worker 1   4194002  retiring   1d00h  99999999          2       -   100M  150%         0",
      "worker 16  4194003  ready      5m07s      123M          1       -     0M    0%         0",
      "task 1     4194004  ready         1s       300          1      20    50M   50%         1",
      "",
      "PROTOCOL  IN FLIGHT  COMPLETED  ABORTED  FAILED  REJECTED",
      "HTTP/1.1          0          0        0       0         0",
      "HTTP/2            3       1234        5       7        11",
    ]);
  });

  test("of a server that does not listen yet has no protocols", () => {
    const starting = {
      ...STATUS,
      state: "starting",
      protocols: [],
      port: 0,
      reactors: [],
      workers: [],
    } as const;
    const manager = { ...STATUS.manager, uptime: 60_000 };
    expect(statusLines({ ...starting, taskWorkers: [], manager }, 100)).toEqual([
      "tercet 0.1.0, starting on port 0 (not listening yet)",
      "run directory /tmp/tercet-0-443",
      "",
      "PROCESS      PID  STATE     UPTIME  REQUESTS  IN FLIGHT  QUEUED  RSS  CPU  RESTARTS",
      "manager  4194000  starting   1m00s         -          -       -  60M   0%         -",
    ]);
  });

  test("fits into 80 columns, also with large numbers", () => {
    expect(Math.max(...statusLines(STATUS, 80).map(({ length }) => length))).toBeLessThanOrEqual(80);
  });

  test("has one line for what is reactor and worker at once", () => {
    const [reactor] = STATUS.reactors;
    const [worker] = STATUS.workers;
    if (reactor === undefined || worker === undefined) throw new Error("the status has neither");
    const one = { ...STATUS, reactors: [{ ...reactor, pid: worker.pid }], workers: [worker] };
    const lines = statusLines(one, 100).filter((line) => line.includes("4194002"));
    expect(lines).toEqual([
      "worker 1  4194002  retiring   1d00h  99999999          2       7  100M  150%         0",
    ]);
  });

  test("moves no cursor, whatever answered", () => {
    const lines = statusLines({ ...STATUS, version: "\x1b[2J\u009b31m", runDirectory: "a\nb" }, 80);
    expect(lines.join("")).not.toMatch(/\p{Cc}/u);
  });
});
