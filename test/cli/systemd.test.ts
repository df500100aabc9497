/** What systemd is told of a service: when it is ready and not before, of reloads, of its end, and that it lives. */
import { describe, expect, jest, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { now } from "../../src/clock.ts";
import { Libc } from "../../src/manager/libc.ts";
import type { Manager } from "../../src/manager/manager.ts";
import { Operator } from "../../src/manager/operator.ts";
import type { RunDirectory } from "../../src/manager/run-directory.ts";
import { tercet } from "../support/cli.ts";
import { HTTP2 } from "../support/clients.ts";
import { NotifySocket } from "../support/notify-socket.ts";
import { until } from "../support/poll.ts";
import { commandLine, descendantsOf, type ProcessKey } from "../support/processes.ts";
import { fixture, runCli, Scratch, startCli, startFixture } from "../support/server.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

/** Loads when a file is there; tells what it sees of systemd's variables. */
const GATED = `import { existsSync } from "node:fs";
while (!existsSync(process.env.GATE)) await Bun.sleep(10);
const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, TERCET_LAUNCHER } = process.env;
export default { fetch: () => Response.json({ NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, TERCET_LAUNCHER }) };
`;

function monotonicTime(): bigint {
  const libc = Libc.open();
  if (libc === null) throw new Error("there is no C library");
  return libc.monotonicTime();
}

describe("a service", () => {
  test("is ready when its workers are; its reloads and its end are told; its code knows nothing of systemd", async () => {
    using scratch = await Scratch.make();
    const app = scratch.file("app.ts");
    writeFileSync(app, GATED);
    using socket = new NotifySocket(scratch.file("notify"));
    // As systemd makes it with RuntimeDirectory= and RuntimeDirectoryMode=0700.
    const directory = join(scratch.run, "unit");
    mkdirSync(directory, { mode: 0o700 });
    const env = {
      GATE: scratch.file("gate"),
      NOTIFY_SOCKET: socket.address,
      RUNTIME_DIRECTORY: `${directory}:/run/another`,
    };
    await using program = await runCli(app, { env });
    const state = async () => {
      const { code, stdout } = await tercet(scratch, ["status", "--json"], { RUNTIME_DIRECTORY: directory });
      return code === 0 ? JSON.parse(stdout).state : null;
    };
    await until("its control socket", 10_000, async () => (await state()) === "starting");
    const early = await tercet(scratch, ["reload", "--run-dir", directory]);
    expect([early.code, early.stderr]).toEqual([1, "tercet: the server has not started yet\n"]);
    expect(socket.receive()).toEqual([]);

    const becomesReady = socket.next("READY");
    writeFileSync(scratch.file("gate"), "");
    const { MAINPID, ...ready } = await becomesReady;
    expect(ready).toEqual({
      READY: "1",
      STATUS: expect.stringMatching(/^Serving HTTP\/1\.1, HTTP\/2, HTTP\/3 on port \d+ with 1 worker$/),
    });
    // The launcher, or what it has become: systemd learns how a process ended of its own children alone.
    expect(Number(MAINPID)).toBe(program.pid);
    await until("the ready line", 5_000, () => program.stdout.includes("ready"));
    const [, port] = /:(\d+) \(/.exec(program.stdout) ?? [];
    await using client = await HTTP2.open({ port: Number(port), scheme: "https" });
    expect(await (await client.request({ path: "/" })).body.text()).toBe("{}");

    const began = monotonicTime();
    const reloads = socket.next("RELOADING");
    expect((await tercet(scratch, ["reload", "--run-dir", directory])).code).toBe(0);
    const reloading = await reloads;
    expect(reloading.RELOADING).toBe("1");
    expect(BigInt(reloading.MONOTONIC_USEC ?? "")).toBeGreaterThan(began);
    expect(BigInt(reloading.MONOTONIC_USEC ?? "")).toBeLessThan(monotonicTime());
    writeFileSync(app, "throw new Error('no\\nmore');\n");
    expect((await tercet(scratch, ["reload", "--run-dir", directory])).code).toBe(1);
    expect((await tercet(scratch, ["stop", "--run-dir", directory])).code).toBe(0);
    const names = socket.receive().map((message) => Object.keys(message)[0]);
    expect(names).toEqual(["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]);
    expect(socket.messages.at(-2)?.STATUS).toMatch(/^reload failed, the old code still serves: .*no more/);
    expect(await program.ended()).toBe(0);
  });

  test("gives signs of life twice in its time, as long as some reactor does, or did lately, or a worker of the mode base; the socket may be in no file system", async () => {
    using socket = new NotifySocket(`@tercet-test-${crypto.randomUUID()}`);
    const env = { NOTIFY_SOCKET: socket.address, WATCHDOG_USEC: "400000" };
    await using server = await startFixture("server.ts", { env, options: { mode: "process" } });
    using ofBase = new NotifySocket(`@tercet-test-${crypto.randomUUID()}`);
    await using _base = await startFixture("server.ts", {
      env: { ...env, NOTIFY_SOCKET: ofBase.address },
      options: { mode: "base" },
    });
    const beats = () => socket.receive().filter(({ WATCHDOG }) => WATCHDOG === "1").length;
    const began = performance.now();
    const before = beats();
    await until("ten signs of life", 10_000, () => beats() >= before + 10);
    const each = (performance.now() - began) / 10;
    expect(each).toBeGreaterThan(150);
    expect(each).toBeLessThan(400);
    const reactors = () =>
      descendantsOf(server.pid).filter(({ pid }) => commandLine(pid).includes("reactor/main.ts"));
    const [first, ...others] = reactors() as [ProcessKey, ...ProcessKey[]];
    expect(others).toEqual([]);
    process.kill(first.pid, "SIGSTOP");
    try {
      await until("silence", 15_000, async () => {
        const count = beats();
        await Bun.sleep(1_000);
        return beats() === count;
      });
    } finally {
      process.kill(first.pid, "SIGCONT");
    }
    await socket.next("WATCHDOG");

    process.kill(first.pid, "SIGKILL");
    const next = await until("another reactor", 5_000, () => reactors().find(({ pid }) => pid !== first.pid));
    // It does not get to listen meanwhile.
    process.kill(next.pid, "SIGSTOP");
    try {
      await socket.next("WATCHDOG", 2_000);
    } finally {
      process.kill(next.pid, "SIGCONT");
    }
    await ofBase.next("WATCHDOG", 2_000);
  });

  test("is alive for three seconds, or the watchdog's time, after a reactor was heard; always while it starts and ends", () => {
    using socket = new NotifySocket(`@tercet-test-${crypto.randomUUID()}`);
    jest.useFakeTimers();
    /** Whether it gives a sign of life so many milliseconds after a reactor was heard. @param watchdog milliseconds */
    const isAlive = (watchdog: number, state: Manager["state"], silence: number) => {
      process.env.NOTIFY_SOCKET = socket.address;
      process.env.WATCHDOG_USEC = String(1000 * watchdog);
      const beat = watchdog / 2;
      const manager = { state, heardAt: now() + beat - silence, address: null, workerCount: 1 };
      const operator = new Operator(
        { host: "::", shutdown: async () => {} },
        manager as unknown as Manager,
        { path: "", release: () => {} } as unknown as RunDirectory,
        () => {},
      );
      if (state !== "starting") operator.ready();
      const before = socket.receive().length;
      jest.advanceTimersByTime(beat);
      operator.close();
      return socket.receive().length > before;
    };
    try {
      expect([2900, 3100].map((silence) => isAlive(1000, "serving", silence))).toEqual([true, false]);
      expect([9900, 10_100].map((silence) => isAlive(10_000, "serving", silence))).toEqual([true, false]);
      expect(isAlive(1000, "reloading", 3100)).toBe(false);
      expect((["starting", "stopping"] as const).map((state) => isAlive(1000, state, 60_000))).toEqual([
        true,
        true,
      ]);
    } finally {
      jest.useRealTimers();
    }
  });

  test("gives none where another process is watched; is its own main process behind what is no launcher", async () => {
    using socket = new NotifySocket(`@tercet-test-${crypto.randomUUID()}`);
    const env = {
      NOTIFY_SOCKET: socket.address,
      WATCHDOG_USEC: "100000",
      WATCHDOG_PID: "1",
      // Of one that has left it behind.
      TERCET_LAUNCHER: "1",
    };
    await using server = await startFixture("server.ts", { env });
    expect(socket.receive()[0]?.MAINPID).toBe(String(server.pid));
    await server.stop();
    expect(socket.receive().map((message) => Object.keys(message)[0])).toEqual(["READY", "STOPPING"]);
  });

  test("serves all the same where nobody hears it", async () => {
    using scratch = await Scratch.make();
    const env = { NOTIFY_SOCKET: scratch.file("nobody") };
    await using server = await startCli(fixture("app.ts"), { env });
    await using client = await HTTP2.open(server);
    expect((await client.request({ path: "/hello" })).status).toBe(200);
    await server.logs(/systemd was not told READY=1/);
  });
});
