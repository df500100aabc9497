/** A server in the background: whoever started it knows that it is ready, or why it is not. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, readlinkSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Daemons } from "../support/cli.ts";
import { HTTP2 } from "../support/clients.ts";
import { inTime, until } from "../support/poll.ts";
import { commandLine, descendantsOf } from "../support/processes.ts";
import { fixture, ROOT, Scratch, startCli, TestServer } from "../support/server.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

async function daemonsIn(): Promise<Daemons> {
  return new Daemons(await Scratch.make());
}

function flagsOf({ cert, key }: Scratch, ...more: readonly string[]): string[] {
  return ["--host", "127.0.0.1", "--port", "0", "--workers", "1", "--cert", cert, "--key", key, ...more];
}

describe("a daemon", () => {
  test("is ready when its command returns; it has its own session, a log and a pid file, and is stopped", async () => {
    await using daemons = await daemonsIn();
    const { scratch } = daemons;
    const files = ["--log-file", scratch.file("log"), "--pid-file", scratch.file("pid")];
    // One that was left behind, of a process that lives by now.
    writeFileSync(scratch.file("pid"), `${process.pid}\n`);
    const flags = flagsOf(scratch, "--daemon", ...files);
    const { code, stdout, stderr } = await daemons.run("serve", fixture("app.ts"), ...flags);
    expect([code, stderr]).toEqual([0, ""]);
    const [, port] = /^tercet: ready on https:\/\/127\.0\.0\.1:(\d+) /.exec(stdout) ?? [];
    const [, pid, directory] = /^tercet: process (\d+), run directory (\S+), log (\S+)$/m.exec(stdout) ?? [];
    expect(stdout).toContain(`log ${scratch.file("log")}\n`);

    await using client = await HTTP2.open({ port: Number(port), scheme: "https" });
    expect((await client.request({ path: "/hello" })).status).toBe(200);
    // proc_pid_stat(5): state, parent, group, session, terminal.
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const [, , , session, terminal] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    expect([session, terminal]).toEqual([pid as string, "0"]);
    expect(readlinkSync(`/proc/${pid}/fd/0`)).toBe("/dev/null");
    expect(readlinkSync(`/proc/${pid}/fd/2`)).toBe(scratch.file("log"));
    expect(readFileSync(scratch.file("log"), "utf8")).toContain("tercet: ready on ");
    expect(statSync(scratch.file("log")).mode & 0o777).toBe(0o600);
    expect(readFileSync(scratch.file("pid"), "utf8")).toBe(`${pid}\n`);
    // A server that its code starts is none.
    for (const worker of descendantsOf(Number(pid)))
      expect(readFileSync(`/proc/${worker.pid}/environ`, "latin1")).not.toContain("TERCET_DAEMON");

    const again = await daemons.run("serve", fixture("app.ts"), ...flags);
    expect([again.code, again.stdout]).toEqual([1, ""]);
    expect(again.stderr).toBe(
      `tercet: the pid file ${scratch.file("pid")} is that of a running server, process ${pid}\n`,
    );
    expect((await client.request({ path: "/hello" })).status).toBe(200);

    expect((await daemons.run("stop", "--run-dir", directory as string)).stdout).toBe("tercet: stopped\n");
    await until("the end of every process", 2_000, () => daemons.remaining().length === 0);
    expect([existsSync(scratch.file("pid")), existsSync(directory as string)]).toEqual([false, false]);
  });

  test("that fails to start: its command says why in one line, and exits with 1; the log is where it says", async () => {
    await using daemons = await daemonsIn();
    const { scratch } = daemons;
    const app =
      "console.log('tercet: something that is not why'); throw new Error('there is no database');\n";
    writeFileSync(scratch.file("app.ts"), app);
    // As it is after years: more than could be read.
    writeFileSync(scratch.file("long.log"), "");
    truncateSync(scratch.file("long.log"), 5 * 2 ** 30);
    for (const logFile of [[], ["--log-file", scratch.file("long.log")]]) {
      const flags = flagsOf(scratch, "--daemon", ...logFile);
      const { code, stdout, stderr } = await daemons.run("serve", scratch.file("app.ts"), ...flags);
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toMatch(
        /^tercet: \S+\/app\.ts does not load: Error: there is no database .*app\.ts:1:\d+\)\n$/,
      );
    }
    expect(readFileSync(scratch.file("state/tercet/0.log"), "utf8")).toContain("there is no database");
    expect(statSync(scratch.file("state/tercet")).mode & 0o777).toBe(0o700);
    expect(statSync(scratch.file("long.log")).size).toBeGreaterThan(5 * 2 ** 30);
    expect(daemons.remaining()).toEqual([]);
  });

  test("that is given up while it starts ends, too; it is started by what its command was", async () => {
    await using daemons = await daemonsIn();
    const { scratch } = daemons;
    writeFileSync(scratch.file("app.ts"), "console.log('it loads');\nawait new Promise(() => {});\n");
    const flags = flagsOf(scratch, "--daemon", "--log-file", scratch.file("log"));
    const cli = [process.execPath, "--smol", join(ROOT, "src/cli/main.ts"), "serve", scratch.file("app.ts")];
    const command = Bun.spawn([...cli, ...flags], {
      env: { ...scratch.environment(), ...daemons.environment },
      stderr: "pipe",
    });
    await until("its code", 20_000, () => readFileSync(scratch.file("log"), "utf8").includes("it loads"));
    const started = descendantsOf(command.pid).map(({ pid }) => commandLine(pid));
    const ofCommand = started.filter((line) => line.includes("src/cli/main.ts"));
    expect([ofCommand.length, ofCommand.every((line) => line.includes("--smol"))]).toEqual([2, true]);
    command.kill("SIGTERM");
    expect(await inTime("its end", 10_000, command.exited)).toBe(1);
    expect(await command.stderr.text()).toBe(
      `tercet: the server ended (exit code 0) before it was ready; its log is ${scratch.file("log")}\n`,
    );
    expect(daemons.remaining()).toEqual([]);
  });

  test("that dies without a word: its command says how, and where its log is", async () => {
    await using daemons = await daemonsIn();
    const { scratch } = daemons;
    writeFileSync(
      scratch.file("app.ts"),
      "process.kill(process.ppid, 'SIGKILL');\nawait new Promise(() => {});\n",
    );
    const flags = flagsOf(scratch, "--daemon", "--log-file", scratch.file("log"));
    const { code, stderr } = await daemons.run("serve", scratch.file("app.ts"), ...flags);
    expect(code).toBe(1);
    expect(stderr).toBe(
      `tercet: the server ended (signal SIGKILL) before it was ready; its log is ${scratch.file("log")}\n`,
    );
  });

  test("that fails to start, with a log that cannot be read: its command says so, and ends", async () => {
    await using daemons = await daemonsIn();
    const { scratch } = daemons;
    writeFileSync(scratch.file("app.ts"), "throw new Error('there is no database');\n");
    // It gives bytes for ever (full(4)).
    const flags = flagsOf(scratch, "--daemon", "--log-file", "/dev/full");
    const { code, stderr } = await daemons.run("serve", scratch.file("app.ts"), ...flags);
    expect(code).toBe(1);
    expect(stderr).toBe("tercet: the server ended (exit code 1) before it was ready; its log is /dev/full\n");
    expect(daemons.remaining()).toEqual([]);
  });

  test("is not started with a log that cannot be written, nor with --watch", async () => {
    await using daemons = await daemonsIn();
    const { scratch } = daemons;
    writeFileSync(scratch.file("file"), "");
    const wrong: [flags: string[], reason: RegExp][] = [
      [
        ["--daemon", "--log-file", scratch.file("file/log")],
        /^tercet: the log file .*file\/log cannot be written: /,
      ],
      [["--daemon", "--watch"], /^tercet: .*--daemon\n$/],
      [["--log-file", scratch.file("log")], /^tercet: option "log-file" needs --daemon\n$/],
    ];
    for (const [flags, reason] of wrong) {
      const { code, stdout, stderr } = await daemons.run(
        "serve",
        fixture("app.ts"),
        ...flagsOf(scratch, ...flags),
      );
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toMatch(reason);
    }
    expect(daemons.remaining()).toEqual([]);
  });
});

test("a server whose log cannot be written goes on without it", async () => {
  const scratch = await Scratch.make();
  const app = scratch.file("app.ts");
  writeFileSync(app, 'export default { fetch: () => { throw new Error("for the log"); } };\n');
  const serve = [process.execPath, join(ROOT, "src/cli/main.ts"), "serve", app, ...flagsOf(scratch)];
  // The device is a disk that is full (full(4)).
  const command = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", ...serve];
  await using server = await new TestServer(scratch, command).ready();
  await using client = await HTTP2.open(server);
  const status = async () => (await client.request({ path: "/" })).status;
  expect(await status()).toBe(500);
  writeFileSync(app, 'export default { fetch: () => new Response("new code", { status: 201 }) };\n');
  server.kill("SIGHUP");
  await until("the new code", 10_000, async () => (await status()) === 201);
  await server.stop();
});

test("a pid file is not written over what is none, and is removed at the end", async () => {
  await using daemons = await daemonsIn();
  const { scratch } = daemons;
  writeFileSync(scratch.file("app.ts"), "export default {};\n");
  const flags = flagsOf(scratch, "--pid-file", scratch.file("app.ts"));
  const { code, stderr } = await daemons.run("serve", fixture("app.ts"), ...flags);
  expect([code, stderr]).toEqual([
    1,
    expect.stringContaining("app.ts is no pid file: it has something else in it"),
  ]);
  expect(readFileSync(scratch.file("app.ts"), "utf8")).toBe("export default {};\n");

  await using server = await startCli(fixture("app.ts"), { flags: { "pid-file": scratch.file("pid") } });
  expect(readFileSync(scratch.file("pid"), "utf8")).toMatch(/^\d+\n$/);
  await server.stop();
  expect(existsSync(scratch.file("pid"))).toBe(false);
});
