/** What a manager decides, without a process: when one starts again, how many there should be, and a pool's steps. */
import {
  afterAll,
  afterEach,
  beforeEach,
  describe,
  expect,
  jest,
  mock,
  setSystemTime,
  spyOn,
  test,
} from "bun:test";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { now } from "../../src/clock.ts";
import type { Certificates } from "../../src/listeners/listener.ts";
import { selfSignedCertificate, timeFault } from "../../src/manager/certificate.ts";
import { CertificateRenewal } from "../../src/manager/certificate-renewal.ts";
import { Heartbeat, type Pulse } from "../../src/manager/heartbeat.ts";
import { memberStats } from "../../src/manager/member-stats.ts";
import { MemoryLimit } from "../../src/manager/memory-limit.ts";
import {
  type ChildTold,
  MemberError,
  type MemberState,
  Pool,
  type PoolChild,
} from "../../src/manager/pool.ts";
import { RestartPolicy } from "../../src/manager/restart-policy.ts";
import { Scaler } from "../../src/manager/scaler.ts";
import { Totals } from "../../src/manager/totals.ts";
import { noCounts } from "../../src/reactor/registry.ts";
import { Deadline, deadlinePath, timeLeft } from "../../src/tasks/deadline.ts";
import type { Vitals } from "../../src/vitals.ts";
import { CERTIFICATE } from "../support/certificate.ts";
import { inTime, until } from "../support/poll.ts";

describe("restart policy", () => {
  const died = (lived: number, hadServed = true, wasKilled = false) => ({ lived, hadServed, wasKilled });

  test("starts again at once what had lived", () => {
    const policy = new RestartPolicy();
    expect([60_000, 5000, 1000].map((lived) => policy.delayAfter(died(lived)))).toEqual([0, 0, 0]);
  });

  test("waits longer and longer for what dies young, up to five seconds", () => {
    const policy = new RestartPolicy();
    const delays = Array.from({ length: 9 }, () => policy.delayAfter(died(50)));
    expect(delays).toEqual([0, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
  });

  test("never starts again at once what died before it served", () => {
    expect(new RestartPolicy().delayAfter(died(60_000, false))).toBe(100);
  });

  test("but once what was killed then", () => {
    const policy = new RestartPolicy();
    expect([1, 2, 3].map(() => policy.delayAfter(died(50, false, true)))).toEqual([0, 200, 400]);
  });

  test("forgets what was, once a process has lived, or was killed from outside", () => {
    for (const wasKilled of [false, true]) {
      const policy = new RestartPolicy();
      for (let i = 0; i < 5; i++) policy.delayAfter(died(50));
      expect(policy.delayAfter(died(wasKilled ? 50 : 5000, true, wasKilled))).toBe(0);
      expect(policy.delayAfter(died(50))).toBe(0);
    }
  });
});

describe("memory limit", () => {
  const limited = () => {
    const log: string[] = [];
    return { limit: new MemoryLimit<object>(100, "worker", (line) => log.push(line)), log };
  };
  const reason = "it holds 101 bytes, and maxMemory is 100";

  test("is told of at once for what comes to hold more", () => {
    const { limit, log } = limited();
    const child = {};
    expect([100, 101].map((rss) => limit.look(child, 1, rss, 0))).toEqual([null, reason]);
    expect(log).toEqual([]);
  });

  test("is told of later and later for what holds more from the beginning, up to a minute, and the log says so once", () => {
    const { limit, log } = limited();
    const lived = Array.from({ length: 7 }, () => {
      const child = {};
      let now = 0;
      while (limit.look(child, 1, 101, now) === null) now += 1000;
      return now;
    });
    expect(lived).toEqual([2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    expect(log).toEqual([
      expect.stringMatching(/^error: worker 1 holds 101 bytes from the beginning, and maxMemory is 100: /),
    ]);
  });

  test("forgets that once one holds less", () => {
    const { limit } = limited();
    for (let i = 0; i < 5; i++) limit.look({}, 1, 101, 0);
    const light = {};
    expect([limit.look(light, 1, 99, 0), limit.look(light, 1, 101, 0)]).toEqual([null, reason]);
    const heavy = {};
    expect([0, 1999, 2000].map((now) => limit.look(heavy, 1, 101, now))).toEqual([null, null, reason]);
    expect(limit.look({}, 2, 101, 0)).toBeNull();
  });

  test("is none where none was set", () => {
    const log: string[] = [];
    const limit = new MemoryLimit<object>(0, "worker", (line) => log.push(line));
    const child = {};
    expect([[0, 60_000].map((now) => limit.look(child, 1, 2 ** 40, now)), log]).toEqual([[null, null], []]);
  });
});

describe("a heartbeat", () => {
  let clock = 0;
  beforeEach(() => {
    clock = 0;
    jest.useFakeTimers();
    spyOn(performance, "now").mockImplementation(() => clock);
  });
  afterEach(() => {
    mock.restore();
    jest.useRealTimers();
  });

  /** Of one process, which says what the test says. */
  function heartbeatOf() {
    const child = {};
    const told: (Vitals | null)[] = [];
    const questions: ((vitals: Vitals | null) => void)[] = [];
    const heartbeat = new Heartbeat(
      () => [child],
      () => new Promise<Vitals | null>((resolve) => questions.push(resolve)),
      (_, vitals) => told.push(vitals),
    );
    return {
      told,
      /** How often it was asked. */
      asked: () => questions.length,
      pulse: () => heartbeat.pulseOf(child),
      /** @param late milliseconds */
      beat: (late = 0) => {
        clock += 1000 + late;
        jest.advanceTimersByTime(1000);
      },
      /** To the last question; null for none in time. */
      answer: async (cpuTime: number | null) => {
        questions.at(-1)?.(cpuTime === null ? null : { rss: 0, cpuTime });
        await Promise.resolve();
      },
    };
  }

  test("keeps what was said last, and what that cost since the answer before", async () => {
    const { beat, answer, pulse } = heartbeatOf();
    const cores: number[] = [];
    for (const cpuTime of [5000, 5500, 5500]) {
      beat();
      await answer(cpuTime);
      expect(pulse()?.vitals.cpuTime).toBe(cpuTime);
      cores.push(pulse()?.cpu ?? Number.NaN);
    }
    expect(cores.map((each) => each.toFixed(3))).toEqual(["0.000", "0.500", "0.000"]);
  });

  test("asks nobody a second time who has not answered, and keeps what he said when he says nothing", async () => {
    const { beat, answer, asked, pulse, told } = heartbeatOf();
    beat();
    await answer(1);
    for (let i = 0; i < 3; i++) beat();
    expect(asked()).toBe(2);
    await answer(null);
    expect([told, pulse()?.vitals.cpuTime]).toEqual([[{ rss: 0, cpuTime: 1 }, null], 1]);
  });

  test("tells nothing, once, of who could not answer since the machine stood still", async () => {
    const { beat, answer, told } = heartbeatOf();
    const standStill = async () => {
      beat();
      beat(300);
      await answer(null);
    };
    await standStill();
    expect(told).toEqual([]);
    await standStill();
    expect(told).toEqual([null]);
    await standStill();
    expect(told).toEqual([null]);
    beat();
    await answer(1);
    // It was asked when the machine had gone on, and beats are a little late at times.
    beat(300);
    beat(200);
    await answer(null);
    expect(told).toEqual([null, { rss: 0, cpuTime: 1 }, null]);
  });
});

describe("what is told of a process", () => {
  const slot = { id: 3, restarts: 2, serving: null };
  const nothing = { rss: 0, cpuTime: 0, requests: 0 };
  const told = (state: MemberState, answer: typeof nothing | null, pulse?: Pulse<typeof nothing>) => {
    const child = new FakeProcess(7, 3, { ready: () => {}, failed: () => {}, exit: () => {} });
    return {
      child,
      stats: () => memberStats({ slot, child, state, startedAt: now() }, answer, pulse, nothing),
    };
  };

  test("is what it says now, else what it said last, or nothing; that it says nothing, once it should", () => {
    const answer = { rss: 2, cpuTime: 20, requests: 200 };
    const pulse = { vitals: { rss: 1, cpuTime: 10, requests: 100 }, at: 0, cpu: 0.5 };
    const own = { id: 3, pid: 7, restarts: 2, uptime: expect.any(Number) };
    const spoken = { ...own, cpu: 0.5, rss: 2, requests: 200 };
    expect(told("serving", answer, pulse).stats()).toEqual({ ...spoken, state: "ready" });
    expect(told("ready", answer, pulse).stats()).toEqual({ ...spoken, state: "starting" });
    expect(told("retiring", answer, pulse).stats()).toEqual({ ...spoken, state: "retiring" });
    const silent = { ...own, cpu: 0.5, rss: 1, requests: 100, state: "silent" };
    for (const state of ["serving", "ready", "retiring"] as const)
      expect(told(state, null, pulse).stats()).toEqual({ ...silent, state: "silent" });
    expect(told("starting", null).stats()).toEqual({
      ...own,
      cpu: 0,
      rss: 0,
      requests: 0,
      state: "starting",
    });
  });

  test("is nothing when it has ended", () => {
    const { child, stats } = told("serving", nothing);
    child.end("exit code 0");
    expect(stats()).toBeNull();
  });
});

test("totals keep what processes did that have ended; what these had in flight has failed", () => {
  const totals = new Totals();
  const [one, other] = [{}, {}];
  const counts = (active: number, completed: number) => ({
    ...noCounts(),
    "HTTP/2": { active, completed, aborted: 1, failed: 2, rejected: 3 },
  });
  totals.heard(one, counts(5, 10));
  totals.heard(one, counts(4, 20));
  totals.heard(other, counts(1, 100));
  expect(totals.sum()["HTTP/2"]).toEqual({ active: 5, completed: 120, aborted: 2, failed: 4, rejected: 6 });
  for (const process of [one, one, {}]) totals.ended(process);
  expect(totals.sum()["HTTP/2"]).toEqual({ active: 1, completed: 120, aborted: 2, failed: 8, rejected: 6 });
  expect(totals.sum()["HTTP/3"]).toEqual(noCounts()["HTTP/3"]);
});

describe("another certificate", () => {
  async function renewalOf(count: number) {
    const log: string[] = [];
    const { process, pool, started } = poolOf();
    await started(count);
    const current = { ...(await CERTIFICATE), sni: {} };
    const renewal = new CertificateRenewal({ tls: current, quic: null }, current, (line) => log.push(line));
    /** Resolves when each reactor has been sent it. */
    const spread = async (certificates: Certificates) => {
      const spread = renewal.spread(certificates, pool, async () => {});
      await Promise.resolve();
      return { spread: inTime("the end", 500, spread) };
    };
    return { renewal, process, spread, current, log };
  }

  test("is not waited for where a reactor dies before it has it: the next has it", async () => {
    const { renewal, process, spread, log } = await renewalOf(2);
    const other = { cert: "another", key: "another", sni: {} };
    const under = await spread(other);
    process(2).end("signal SIGKILL");
    renewal.answered(1, null);
    await under.spread;
    expect([process(1).sent, renewal.current, log]).toEqual([
      [{ type: "certificate", tls: other }],
      other,
      [],
    ]);
  });

  test("that some reactor has not taken is there at the next reload, too, and none that all have", async () => {
    const { renewal, spread, current, log } = await renewalOf(1);
    expect(renewal.read()).toBeNull();
    for (const failure of ["it shares its port", null]) {
      const under = await spread(current);
      renewal.answered(1, failure);
      await under.spread;
      expect(renewal.read()).toEqual(failure === null ? null : current);
    }
    expect(log).toEqual(["reactor 1 keeps the certificate before: it shares its port"]);
  });
});

test("the self-signed certificate is kept until it is over soon, and not where it was made by a clock that was ahead", async () => {
  const { XDG_CACHE_HOME: before } = process.env;
  const folder = mkdtempSync(join(tmpdir(), "tercet-cache-"));
  process.env.XDG_CACHE_HOME = folder;
  try {
    const DAY = 86_400_000;
    const start = Date.parse("2030-01-01");
    const at = async (days: number) =>
      new X509Certificate((await selfSignedCertificate(start + days * DAY)).cert);
    const { serialNumber } = await at(0);
    expect([(await at(0)).serialNumber, (await at(357)).serialNumber]).toEqual([serialNumber, serialNumber]);
    expect((await at(359)).serialNumber).not.toBe(serialNumber);
    expect(timeFault(await at(0), start)).toBeNull();
  } finally {
    if (before === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before;
    rmSync(folder, { recursive: true });
  }
});

describe("the deadline of a task worker", () => {
  const directory = mkdtempSync(join(tmpdir(), "tercet-deadline-"));
  afterAll(() => rmSync(directory, { recursive: true }));
  const left = () => timeLeft(directory, process.pid);
  const expectSeconds = (seconds: number) => {
    expect(left()).toBeGreaterThanOrEqual(seconds * 1000);
    expect(left()).toBeLessThan((seconds + 2) * 1000);
  };

  test("is that of the longest task that runs, at once where none does, and never where one may take for ever", () => {
    const deadline = Deadline.open(directory, true, () => {});
    expect(left()).toBeLessThan(0);
    for (const timeout of [5000, 60_000]) deadline?.begin(timeout);
    expectSeconds(60);
    deadline?.begin(0);
    expect(left()).toBe(Number.POSITIVE_INFINITY);
    for (const timeout of [0, 60_000, 5000]) deadline?.end(timeout);
    expect(left()).toBeLessThan(0);
    // What ended early gives the next no time.
    deadline?.begin(5000);
    expectSeconds(5);
  });

  test("is none where nobody is watched, or nothing is known", () => {
    expect(timeLeft(directory, 1)).toBe(Number.POSITIVE_INFINITY);
    Deadline.open(directory, false, () => {});
    expect(left()).toBe(Number.POSITIVE_INFINITY);
  });

  test("is not nearer when the system's clock is set", () => {
    const deadline = Deadline.open(directory, true, () => {});
    deadline?.begin(60_000);
    try {
      setSystemTime(Date.now() + 3_600_000);
      expectSeconds(60);
    } finally {
      setSystemTime();
    }
  });

  test("is none on a file system without shared mappings: zeros in its file would have every silence punished", () => {
    const elsewhere = mkdtempSync(join(directory, "unmappable-"));
    symlinkSync("/dev/null", deadlinePath(elsewhere, process.pid));
    const lines: string[] = [];
    expect(Deadline.open(elsewhere, true, (line) => lines.push(line))).toBeNull();
    expect(lines).toEqual([
      expect.stringMatching(/^its deadline is not noted: \S+ cannot be mapped: EINVAL/),
    ]);
    expect(readdirSync(elsewhere)).toEqual([]);
    expect(timeLeft(elsewhere, process.pid)).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("scaler", () => {
  test("adds one worker at a time while requests wait, up to the most", () => {
    const scaler = new Scaler({ min: 1, max: 3 }, 1000);
    scaler.waits(50, 1);
    expect(scaler.count).toBe(1);
    scaler.waits(50, 1);
    expect(scaler.count).toBe(2);
    // That one is still starting.
    for (let i = 0; i < 10; i++) scaler.waits(500, 1);
    expect(scaler.count).toBe(2);
    // What waited for it does not show that it is too few.
    scaler.waits(500, 2);
    expect(scaler.count).toBe(2);
    for (let i = 0; i < 10; i++) scaler.waits(500, scaler.count);
    expect(scaler.count).toBe(3);
  });

  test("does not add one for a wait that is short, or was one moment's", () => {
    const scaler = new Scaler({ min: 1, max: 3 }, 1000);
    for (let i = 0; i < 10; i++) scaler.waits(15, 1);
    for (let i = 0; i < 10; i++) scaler.waits(i % 2 === 0 ? 50 : 0, 1);
    expect(scaler.count).toBe(1);
  });

  test("takes the last one away when it was idle for long enough, down to the least", () => {
    const scaler = new Scaler({ min: 1, max: 3 }, 1000);
    for (let i = 0; i < 2; i++) scaler.waits(50, 1);
    scaler.idles(999);
    expect(scaler.count).toBe(2);
    scaler.idles(1000);
    scaler.idles(1000);
    expect(scaler.count).toBe(1);
  });
});

/** A process that does what the test says. */
class FakeProcess implements PoolChild {
  alive = true;
  readonly #end = Promise.withResolvers<void>();
  readonly exited = this.#end.promise;
  readonly pid: number;
  readonly slotId: number;
  readonly told: ChildTold;
  /** Milliseconds in which it has to; null as long as it has not. */
  leavesWithin: number | null = null;
  readonly sent: unknown[] = [];

  constructor(pid: number, slotId: number, told: ChildTold) {
    this.pid = pid;
    this.slotId = slotId;
    this.told = told;
  }

  end(cause: string, wasKilled = false): void {
    if (!this.alive) return;
    this.alive = false;
    this.told.exit(cause, wasKilled);
    this.#end.resolve();
  }

  kill(): void {
    this.end("signal SIGKILL", true);
  }

  send(message: unknown): void {
    this.sent.push(message);
  }
}

/** @param open of the pool's spec */
function poolOf(open?: (process: FakeProcess) => Promise<void>) {
  const processes: FakeProcess[] = [];
  const log: string[] = [];
  const switches: string[] = [];
  let unserved = 0;
  const pidsOf = (children: readonly FakeProcess[]) => children.map(({ pid }) => pid).join(",");
  const pool = new Pool<FakeProcess>({
    name: "worker",
    outage: "requests get 503",
    start: (slotId, told) => {
      const process = new FakeProcess(processes.length + 1, slotId, told);
      processes.push(process);
      return process;
    },
    awaited: () => "it loads",
    leave: (process, timeout) => {
      process.leavesWithin = timeout;
    },
    ...(open && { open }),
    switched: (used, retired) => switches.push(`${pidsOf(used)}/${pidsOf(retired)}`),
    ended: () => {},
    unserved: () => unserved++,
    log: (line) => log.push(line),
  });
  const process = (pid: number) => processes[pid - 1] as FakeProcess;
  const started = async (count: number) => {
    const serving = pool.start(count);
    for (const one of processes) one.told.ready();
    await serving;
  };
  return { pool, processes, process, log, switches, started, unserved: () => unserved };
}

describe("pool", () => {
  test("a renewal of all switches in one step, and the old ones leave", async () => {
    const { pool, process, switches, started } = poolOf();
    await started(2);
    const renewed = pool.renew(true, 60_000);
    await until("new processes", 1000, () => pool.members.length === 4);
    process(3).told.ready();
    expect(pool.serving.map(({ pid }) => pid)).toEqual([1, 2]);
    process(4).told.ready();
    await renewed;
    expect(switches).toEqual(["1/", "2/", "3,4/1,2"]);
    expect(pool.members.map(({ state }) => state)).toEqual(["retiring", "retiring", "serving", "serving"]);
    process(1).end("exit code 0");
    process(2).end("exit code 0");
    expect(pool.members.map(({ child }) => child.pid)).toEqual([3, 4]);
    expect(pool.slots.map(({ restarts }) => restarts)).toEqual([0, 0]);
  });

  test("a renewal of which one fails leaves the old ones serving, and ends the new", async () => {
    const { pool, process, switches, started } = poolOf();
    await started(2);
    const renewed = pool.renew(true, 60_000);
    await until("new processes", 1000, () => pool.members.length === 4);
    process(3).told.ready();
    process(4).told.failed("app.ts does not load");
    process(4).end("exit code 1");
    await expect(renewed).rejects.toThrow(new MemberError("app.ts does not load"));
    expect(pool.members.map(({ child, state }) => `${child.pid} ${state}`)).toEqual([
      "1 serving",
      "2 serving",
    ]);
    expect(process(3).alive).toBe(false);
    expect(switches).toEqual(["1/", "2/"]);
  });

  test("a renewal one after another stops at the first that fails", async () => {
    const { pool, process, switches, started } = poolOf();
    await started(3);
    const renewed = pool.renew(false, 60_000);
    await until("the first", 1000, () => pool.members.length === 4);
    process(4).told.ready();
    await until("the second", 1000, () => pool.members.length === 5);
    process(5).end("exit code 1");
    await expect(renewed).rejects.toThrow("worker 2 ended (exit code 1) before it was ready");
    expect(switches.at(-1)).toBe("4/1");
    expect(pool.serving.map(({ pid }) => pid)).toEqual([4, 2, 3]);
  });

  test("one that dies while it waits for the others fails the renewal", async () => {
    const { pool, process, started } = poolOf();
    await started(2);
    const renewed = pool.renew(true, 60_000);
    await until("new processes", 1000, () => pool.members.length === 4);
    process(3).told.ready();
    process(3).end("signal SIGKILL", true);
    process(4).told.ready();
    await expect(renewed).rejects.toThrow("worker 1 ended as soon as it was ready");
    expect(pool.serving.map(({ pid }) => pid)).toEqual([1, 2]);
  });

  test("what has to be opened serves when it is; one that dies meanwhile fails the renewal, and the others leave", async () => {
    const opened = new Map<number, () => void>();
    const { pool, process, switches } = poolOf(({ pid }) => new Promise((open) => opened.set(pid, open)));
    const started = pool.start(2);
    for (const pid of [1, 2]) process(pid).told.ready();
    expect(switches).toEqual([]);
    for (const open of opened.values()) open();
    await started;
    const renewed = pool.renew(true, 60_000);
    await until("new processes", 1000, () => pool.members.length === 4);
    for (const pid of [3, 4]) process(pid).told.ready();
    await until("the opening", 1000, () => opened.size === 4);
    opened.get(3)?.();
    process(4).told.failed("the port is in use");
    process(4).end("exit code 1");
    await expect(renewed).rejects.toThrow(new MemberError("the port is in use"));
    expect(switches).toEqual(["1/", "2/"]);
    expect(pool.serving.map(({ pid }) => pid)).toEqual([1, 2]);
    expect([process(3).alive, process(3).leavesWithin]).toEqual([true, 60_000]);
  });

  test("one that takes another's place and dies while it is opened does not serve, and the next does", async () => {
    const opened = Promise.withResolvers<void>();
    const { pool, process, processes, started } = poolOf((one) =>
      one.pid === 2 ? opened.promise : Promise.resolve(),
    );
    await started(1);
    process(1).end("signal SIGSEGV");
    for (const pid of [2, 3]) {
      await until("another", 1000, () => processes.length === pid);
      process(pid).told.ready();
      if (pid === 2) process(2).end("signal SIGSEGV");
    }
    await until("it to serve", 1000, () => pool.serving.length === 1);
    opened.resolve();
    await opened.promise;
    expect(pool.serving.map(({ pid }) => pid)).toEqual([3]);
  });

  test("a process that dies while it is being replaced is not started a second time", async () => {
    const { pool, process, processes, started } = poolOf();
    await started(1);
    const renewed = pool.renew(true, 60_000);
    await until("a new process", 1000, () => pool.members.length === 2);
    process(1).end("signal SIGSEGV");
    // Behind the timer by which one that dies is started again at once.
    await new Promise((resolve) => setTimeout(resolve, 1));
    process(2).told.ready();
    await renewed;
    expect(processes.length).toBe(2);
    expect(pool.serving.map(({ pid }) => pid)).toEqual([2]);
  });

  test("fewer slots retire those at the end", async () => {
    const { pool, process, log, switches, started } = poolOf();
    await started(3);
    pool.resize(1, 60_000);
    expect(switches.at(-1)).toBe("/2,3");
    expect(pool.serving.map(({ pid }) => pid)).toEqual([1]);
    for (const pid of [2, 3]) process(pid).end("exit code 0");
    expect(log).toEqual([]);
  });

  test("a slot that goes takes the process with it that was to fill it", async () => {
    const { pool, process, started } = poolOf();
    await started(2);
    const renewed = pool.renew(true, 60_000);
    await until("new processes", 1000, () => pool.members.length === 4);
    pool.resize(1, 60_000);
    expect([process(3).alive, process(4).alive]).toEqual([true, false]);
    await expect(renewed).rejects.toThrow("worker 2 ended (signal SIGKILL) before it was ready");
  });

  test("a renewal that fails leaves no slot empty whose process has died meanwhile", async () => {
    const { pool, process, processes, log, started, unserved } = poolOf();
    await started(1);
    const renewed = pool.renew(true, 60_000);
    await until("a new process", 1000, () => pool.members.length === 2);
    process(1).end("signal SIGSEGV");
    process(2).end("exit code 1");
    await expect(renewed).rejects.toThrow(MemberError);
    expect([unserved(), log.at(-1)]).toEqual([
      1,
      "no worker is left: requests get 503 until one has started",
    ]);
    await until("another", 1000, () => processes.length === 3);
  });

  test("what was about to be started again is not, when the end comes", async () => {
    const { pool, process, processes, started } = poolOf();
    await started(1);
    process(1).end("exit code 1");
    await pool.stop(0);
    await Bun.sleep(20);
    expect(processes).toHaveLength(1);
  });

  test("a recycling that waits for its next try ends with the process", async () => {
    const { pool, process, started } = poolOf();
    await started(1);
    const recycled = pool.recycle(process(1), "it is old", 60_000);
    await until("a new process", 1000, () => pool.members.length === 2);
    process(2).end("exit code 1");
    await until("its end", 1000, () => pool.members.length === 1);
    process(1).end("exit code 0");
    await inTime("the end of the recycling", 500, recycled);
  });

  test("what waits for its turn when the end comes starts no process any more", async () => {
    const { pool, process, processes, log, started } = poolOf();
    await started(2);
    const first = pool.renew(true, 60_000);
    const next = [pool.recycle(process(1), "it is old", 60_000), pool.renew(false, 60_000)];
    next[1]?.catch(() => {});
    first.catch(() => {});
    await until("new processes", 1000, () => pool.members.length === 4);
    const stopped = pool.stop(0);
    for (const one of processes) one.end("exit code 0");
    await stopped;
    await Promise.allSettled([first, ...next]);
    await expect(next[1]).rejects.toThrow(new MemberError("workers are being stopped"));
    expect(processes).toHaveLength(4);
    expect(log).toEqual([]);
  });

  test("what was killed for good is not started again", async () => {
    const { pool, processes, log, started } = poolOf();
    await started(2);
    pool.kill();
    await pool.stop(60_000);
    expect(processes).toHaveLength(2);
    expect(log).toEqual([]);
  });

  test("one that does not finish in time is asked to leave, and one that has finished is not", async () => {
    const { pool, process, log, started } = poolOf();
    await started(2);
    const renewed = pool.renew(true, 50);
    await until("new processes", 1000, () => pool.members.length === 4);
    for (const pid of [3, 4]) process(pid).told.ready();
    await renewed;
    process(1).end("exit code 0");
    await until("the end of its time", 1000, () => process(2).leavesWithin === 0);
    expect([process(1).leavesWithin, log]).toEqual([
      null,
      ["worker 2 (2) has not finished within 50 ms: it is ended"],
    ]);
    process(2).end("exit code 0");
  });
});

describe("a pool, by its timers", () => {
  beforeEach(() => {
    jest.useFakeTimers();
  });
  afterEach(() => {
    jest.useRealTimers();
  });

  /** What follows without time. */
  async function settle(): Promise<void> {
    for (let i = 0; i < 20; i++) await Promise.resolve();
  }
  /** What promises and timers bring until so many milliseconds later. */
  async function after(milliseconds: number): Promise<void> {
    await settle();
    jest.advanceTimersByTime(milliseconds);
    await settle();
  }

  test("says after ten seconds what is waited for, and leaves no timer behind what is ready or has left", async () => {
    const { pool, process, log } = poolOf();
    const serving = pool.start(1);
    await after(9999);
    expect(log).toEqual([]);
    await after(1);
    expect(log).toEqual(["worker 1 (1) is not ready after 10 s: it loads"]);
    process(1).told.ready();
    await serving;
    const more = pool.start(1);
    process(2).told.ready();
    await more;
    expect(jest.getTimerCount()).toBe(0);
    const stopped = pool.stop(1000);
    for (const pid of [1, 2]) process(pid).end("exit code 0");
    await stopped;
    expect(jest.getTimerCount()).toBe(0);
  });

  test("that is stopped gives time to what serves alone, kills what takes more, and starts nothing", async () => {
    const { pool, process, processes, log, started } = poolOf();
    await started(2);
    process(2).end("exit code 1");
    await after(0);
    expect(processes.length).toBe(3);
    const stopped = pool.stop(1000);
    expect([process(1).leavesWithin, process(3).leavesWithin]).toEqual([1000, 0]);
    process(3).end("exit code 0");
    pool.resize(5, 0);
    await expect(pool.start(1)).rejects.toThrow(new MemberError("workers are being stopped"));
    await after(3999);
    expect([processes.length, process(1).alive]).toEqual([3, true]);
    await after(1);
    await stopped;
    expect([processes.length, log.slice(1)]).toEqual([
      3,
      ["worker 1 (1) has not left in time: it is killed"],
    ]);
  });

  test("that is stopped says nothing of a recycling, whether its turn has come or not", async () => {
    for (const isUnderWay of [true, false]) {
      const { pool, process, log, started } = poolOf();
      await started(1);
      const renewed = isUnderWay ? null : pool.renew(true, 60_000);
      renewed?.catch(() => {});
      const recycled = pool.recycle(process(1), "it is old", 60_000);
      await settle();
      const stopped = pool.stop(0);
      process(2).end("exit code 0");
      await settle();
      process(1).end("exit code 0");
      await Promise.all([recycled, stopped]);
      expect(log).toEqual(isUnderWay ? ["worker 1 is replaced: it is old"] : []);
    }
  });

  test("gives up a renewal whose process is not ready in time", async () => {
    const { pool, process, started } = poolOf();
    await started(1);
    const renewed = pool.renew(true, 500);
    await after(499);
    expect(process(2).alive).toBe(true);
    jest.advanceTimersByTime(1);
    await expect(renewed).rejects.toThrow(new MemberError("a new worker is not ready within 500 ms"));
    expect([process(1).alive, process(2).alive]).toEqual([true, false]);
  });

  test("renews no slot that has gone meanwhile, and starts none in it again", async () => {
    const { pool, process, processes, started } = poolOf();
    await started(2);
    const renewed = pool.renew(false, 60_000);
    await settle();
    pool.resize(1, 60_000);
    process(3).told.ready();
    await renewed;
    expect([processes.length, pool.slots.length]).toEqual([3, 1]);
    const failed = pool.renew(true, 60_000);
    pool.resize(2, 60_000);
    process(4).told.ready();
    await settle();
    const [next, last] = processes.slice(4);
    pool.resize(1, 60_000);
    process(4).end("exit code 0");
    next?.end("exit code 1");
    last?.end("exit code 1");
    await expect(failed).rejects.toThrow(MemberError);
    await after(60_000);
    expect(processes.length).toBe(6);
  });

  test("has one process for a slot that is renewed while another one starts in it, however late that one ends", async () => {
    const { pool, process, processes, started } = poolOf();
    await started(1);
    process(1).end("exit code 1");
    await after(0);
    const kill = spyOn(process(2), "kill").mockImplementation(() => {});
    const renewed = pool.renew(true, 60_000);
    await settle();
    expect([kill.mock.calls.length, processes.length]).toEqual([1, 3]);
    process(2).end("signal SIGKILL", true);
    process(3).told.ready();
    await renewed;
    await after(60_000);
    expect([pool.serving.map(({ pid }) => pid), processes.length, pool.slots[0]?.restarts]).toEqual([
      [3],
      3,
      1,
    ]);
  });

  test("that has nobody left says so once, and again only when the reason is another, or there was one meanwhile", async () => {
    const { processes, log, started, unserved } = poolOf();
    /** The newest ends, and another is started. */
    const fails = async (reason: string) => {
      processes.at(-1)?.told.failed(reason);
      processes.at(-1)?.end("exit code 1");
      await after(5000);
    };
    const told = (text: string) => log.filter((line) => line.includes(text)).length;
    await started(1);
    for (let i = 0; i < 3; i++) await fails("no database");
    expect([unserved(), told("no worker is left"), told("no database")]).toEqual([1, 1, 1]);
    await fails("no disk");
    expect([unserved(), told("no worker is left"), told("no disk")]).toEqual([1, 1, 1]);
    processes.at(-1)?.told.ready();
    expect(log.at(-1)).toBe("worker 1 serves again");
    for (let i = 0; i < 2; i++) await fails("no disk");
    expect([unserved(), told("no worker is left"), told("no disk")]).toEqual([2, 2, 2]);
  });

  test("that has nobody left for a kill, or others that serve, says nothing of that", async () => {
    const { process, processes, log, started, unserved } = poolOf();
    await started(2);
    for (let i = 0; i < 2; i++) {
      processes.at(-1)?.end("exit code 1");
      await after(5000);
    }
    for (const one of [process(1), processes.at(-1)]) one?.end("signal SIGKILL", true);
    expect([unserved(), log.filter((line) => line.startsWith("no worker is left"))]).toEqual([0, []]);
  });

  test("tries a recycling whose new process fails again, later and later, and leaves the old one", async () => {
    const { pool, process, processes, log, started, switches } = poolOf();
    await started(1);
    const recycled = pool.recycle(process(1), "it is old", 60_000);
    // It is under way.
    await pool.recycle(process(1), "it is old", 60_000);
    await settle();
    for (const [count, wait] of [1000, 2000].entries()) {
      process(count + 2).end("exit code 1");
      await after(wait - 1);
      expect([processes.length, pool.serving.map(({ pid }) => pid)]).toEqual([count + 2, [1]]);
      await after(1);
    }
    process(4).told.ready();
    await recycled;
    expect(switches.at(-1)).toBe("4/1");
    const failed = "worker 1 stays: worker 1 ended (exit code 1) before it was ready; the next one starts in";
    expect(log).toEqual(["worker 1 is replaced: it is old", `${failed} 1 s`, `${failed} 2 s`]);
  });
});
