/** status, reload and stop, by the control socket: of servers that there are, and that there are not. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { constants } from "node:os";
import { join } from "node:path";
import { bindTcp } from "../../src/listeners/ports.ts";
import { ControlServer, type ServerStatus } from "../../src/manager/control.ts";
import { type Outcome, runDirectoryIn, tercet } from "../support/cli.ts";
import { HTTP2 } from "../support/clients.ts";
import { ControlConnection } from "../support/control-connection.ts";
import { inTime, until } from "../support/poll.ts";
import { commandLine, descendantsOf, growthDuring, isAlive, keyOf } from "../support/processes.ts";
import { fixture, ROOT, runCli, Scratch, startCli, startFixture, TestServer } from "../support/server.ts";
import { untilInFlight } from "../support/stats.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

/** A server whose code is what `load` says; in a script, without `tercet serve`. */
async function startVersions(): Promise<{ server: TestServer; load: (version: string) => void }> {
  const scratch = await Scratch.make();
  const file = scratch.file("version");
  writeFileSync(file, "1");
  const server = await startFixture("versions.ts", {
    scratch,
    options: { workers: 2 },
    env: { TERCET_TEST_VERSION: file },
  });
  return { server, load: (version) => writeFileSync(file, version) };
}

async function textOf(server: TestServer, path: string): Promise<string> {
  await using client = await HTTP2.open(server);
  return await (await client.request({ path })).body.text();
}

/** One line, without the name of the program. */
function lineOf(text: string): string {
  const [, line] = /^tercet: (.*)\n$/.exec(text) ?? [];
  if (line === undefined) throw new Error(`not one line of the command line's: ${text}`);
  return line;
}

/** Asks a server that takes it, and from then on answers nobody, as one that was stopped (SIGSTOP). */
async function askHalting(scratch: Scratch, command: "reload" | "stop") {
  const directory = scratch.file(`halts-${command}`);
  mkdirSync(directory, { mode: 0o700 });
  const path = join(directory, "control.sock");
  const forever = new Promise<never>(() => {});
  let isHalted = false;
  const halt = () => {
    isHalted = true;
    return forever;
  };
  const server = await ControlServer.listen(path, {
    status: () => (isHalted ? forever : Promise.resolve({} as ServerStatus)),
    reload: halt,
    stop: halt,
  });
  try {
    const outcome = await tercet(scratch, [command, "--run-dir", directory]);
    return { path, isHalted, ...outcome };
  } finally {
    server.close();
  }
}

/**
 * Has the commands ask servers that let them wait: one that takes connections and says nothing, as one that was stopped
 * (SIGSTOP) does; and one that takes longer over what it does than its clients may.
 */
async function askSlow(scratch: Scratch) {
  const directories = ["silent", "slow"].map((name) => scratch.file(name)) as [string, string];
  for (const directory of directories) mkdirSync(directory, { mode: 0o700 });
  const [ofSilent, ofSlow] = directories.map((directory) => join(directory, "control.sock")) as [
    string,
    string,
  ];
  const silent = createServer(() => {});
  await new Promise<void>((resolve) => {
    silent.listen(ofSilent, resolve);
  });
  const reloaded = Promise.withResolvers<void>();
  let isOver = false;
  const slow = await ControlServer.listen(ofSlow, {
    status: async () => ({}) as ServerStatus,
    reload: () => Bun.sleep(12_000).then(reloaded.resolve),
    stop: () => {
      void reloaded.promise.then(() => {
        setImmediate(() => {
          isOver = true;
          slow.close();
        });
      });
    },
  });
  const ask = (directory: string, ...names: string[]) =>
    Promise.all(names.map((name) => tercet(scratch, [name, "--run-dir", directory])));
  return {
    ofSilent: ask(directories[0], "status", "reload", "stop").finally(() => silent.close()),
    ofSlow: Promise.all([
      tercet(scratch, ["reload", "--run-dir", directories[1]]),
      tercet(scratch, ["stop", "--run-dir", directories[1]]).then((outcome) => ({ ...outcome, isOver })),
    ]),
    ofHalting: Promise.all((["reload", "stop"] as const).map((command) => askHalting(scratch, command))),
    /** The control socket of the first. */
    path: ofSilent,
  };
}

describe("a running server", () => {
  let server: TestServer;
  let slow: Awaited<ReturnType<typeof askSlow>>;
  let load: (version: string) => void;
  let directory: string;
  const command = (...args: string[]) => tercet(server.scratch, [...args, "--run-dir", directory]);
  const status = async () => {
    const { code, stdout } = await command("status", "--json");
    expect(code).toBe(0);
    return JSON.parse(stdout);
  };

  beforeAll(async () => {
    ({ server, load } = await startVersions());
    directory = runDirectoryIn(server.scratch);
    slow = await askSlow(server.scratch);
  });
  afterAll(async () => {
    await Promise.allSettled([slow.ofSilent, slow.ofSlow, slow.ofHalting]);
    await server[Symbol.asyncDispose]();
  });

  test("has a run directory that is its user's alone, and a process id in it", () => {
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(statSync(join(directory, "control.sock")).mode & 0o777).toBe(0o600);
  });

  test("status --json tells of every process, and counts by protocol", async () => {
    const before = await status();
    await textOf(server, "/hello");
    const after = await status();
    expect(after).toMatchObject({
      version: "0.1.0",
      state: "serving",
      host: "127.0.0.1",
      port: server.port,
      protocols: ["HTTP/1.1", "HTTP/2", "HTTP/3"],
      runDirectory: directory,
      manager: { pid: server.pid },
      inFlight: 0,
      workers: [
        { id: 1, state: "ready", restarts: 0 },
        { id: 2, state: "ready", restarts: 0 },
      ],
    });
    expect(after.totals["HTTP/2"].completed).toBe(before.totals["HTTP/2"].completed + 1);
    expect(after.reactors[0].protocols).toEqual(after.totals);
    expect(after.reactors[0]).not.toHaveProperty("exchanges");
    const pids = [...after.reactors, ...after.workers].map(({ pid }: { pid: number }) => pid);
    expect(pids.every((pid) => pid !== server.pid && keyOf(pid) !== null)).toBe(true);
    for (const each of [after.manager, ...after.reactors, ...after.workers]) {
      expect(each.uptime).toBeGreaterThan(0);
      expect(each.rss).toBeGreaterThan(10_000_000);
      expect(each.cpu).toBeGreaterThanOrEqual(0);
    }
  });

  test("status is a table of 80 columns", async () => {
    const { code, stdout } = await command("status");
    const { workers } = await status();
    expect(code).toBe(0);
    const lines = stdout.split("\n");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(lines[0]).toBe(`tercet 0.1.0, serving on port ${server.port} (HTTP/1.1, HTTP/2, HTTP/3)`);
    for (const [name, pid] of [
      ["manager", server.pid],
      ["worker 1", workers[0].pid],
      ["worker 2", workers[1].pid],
    ]) {
      expect(stdout).toMatch(
        new RegExp(`^${name} +${pid} +(ready|serving) +\\d+s .*\\d+M +\\d+% +[-0]$`, "m"),
      );
    }
    expect(stdout).toMatch(/^HTTP\/2 +0 +\d+ +0 +0 +0$/m);
  });

  test("status --watch draws over what it drew, and gives the terminal back on Ctrl-C", async () => {
    let screen = "";
    const child = Bun.spawn(
      [process.execPath, join(ROOT, "src/cli/main.ts"), "status", "--watch", "--run-dir", directory],
      {
        env: { ...server.scratch.environment(), TERM: "xterm" },
        terminal: {
          cols: 80,
          rows: 8,
          data: (_terminal, bytes) => {
            screen += Buffer.from(bytes).toString();
          },
        },
      },
    );
    try {
      const drawings = () => screen.split("\x1b[H").slice(1);
      await until("two drawings", 10_000, () => drawings().length >= 2);
      // A screen of its own, without a cursor; never an empty one, and no line more than it has.
      expect(screen).toStartWith("\x1b[?1049h\x1b[?25l\x1b[H");
      expect(screen).not.toContain("\x1b[2J");
      expect(drawings()[1]?.split("\r\n").length).toBeLessThanOrEqual(8);
      expect(drawings()[1]).toContain("worker 1");
      child.terminal?.write("\x03");
      await child.exited;
      expect(child.exitCode).toBe(0);
      await until("the terminal back", 1_000, () => screen.endsWith("\x1b[?25h\x1b[?1049l"));
    } finally {
      child.kill("SIGKILL");
      child.terminal?.close();
    }
  });

  test("status --watch ends when nobody reads it any more, and one that cannot be written says so", async () => {
    const command = `set -o pipefail; "$0" "$1" status --json --watch --run-dir "$2"`;
    const main = join(ROOT, "src/cli/main.ts");
    const run = async (rest: string) => {
      const child = Bun.spawn(["bash", "-c", `${command} ${rest}`, process.execPath, main, directory], {
        env: server.scratch.environment(),
        stdout: "pipe",
        stderr: "pipe",
      });
      try {
        const said = Promise.all([child.exited, child.stdout.text(), child.stderr.text()]);
        return await inTime("its end", 5_000, said);
      } finally {
        child.kill("SIGKILL");
      }
    };
    const [seen, full] = await Promise.all([run("| head -c 1"), run("> /dev/full")]);
    expect(seen).toEqual([0, "{", ""]);
    expect(full).toEqual([
      1,
      "",
      expect.stringMatching(/^tercet: the status cannot be written: ENOSPC.*\n$/),
    ]);
  });

  test("reload says in one line that the new code serves", async () => {
    load("2");
    const { code, stdout } = await command("reload");
    expect([code, lineOf(stdout)]).toEqual([0, expect.stringMatching(/^reloaded in \d+\.\d s$/)]);
    expect(await textOf(server, "/version")).toBe("2");
    await server.logs(/ tercet manager: reloaded$/m);
  });

  test("a reload of code that does not load says why, and exits with 1", async () => {
    load("broken");
    const { code, stdout, stderr } = await command("reload");
    load("2");
    expect([code, stdout]).toEqual([1, ""]);
    expect(lineOf(stderr)).toMatch(/before it was ready|this version does not load/);
    expect(await textOf(server, "/version")).toBe("2");
    await server.logs(/reload failed, the old code still serves: /);
  });

  test("a signal to reload to all of its processes costs none of them", async () => {
    const before = await status();
    load("signalled");
    for (const { pid } of [...before.reactors, ...before.workers]) {
      process.kill(pid, "SIGUSR1");
      process.kill(pid, "SIGUSR2");
    }
    server.kill("SIGUSR1");
    await until("the new version", 10_000, async () => (await textOf(server, "/version")) === "signalled");
    const { manager, reactors, workers } = await status();
    expect(manager.pid).toBe(before.manager.pid);
    expect(reactors[0].pid).toBe(before.reactors[0].pid);
    expect(workers[0].restarts).toBe(0);
  });

  test("a signal to its processes reloads it, too", async () => {
    load("3");
    server.kill("SIGHUP");
    await until("the new version", 10_000, async () => (await textOf(server, "/version")) === "3");
  });

  describe("what is no control message", () => {
    const NO_MESSAGES: [name: string, bytes: string | Uint8Array, error: RegExp][] = [
      ["no JSON", "status\n", /a line such as/],
      ["null", "null\n", /a line such as/],
      ["a list", "[1]\n", /a line such as/],
      ["another command", '{"command":"restart"}\n', /there are status, reload, stop/],
      ["a command that every object has", '{"command":"constructor"}\n', /there are status, reload, stop/],
      ["an empty line", "\n", /a line such as/],
      ["random bytes", crypto.getRandomValues(new Uint8Array(65_536)), /a control message/],
    ];

    for (const [name, bytes, error] of NO_MESSAGES) {
      test(`${name}: an error, and the end of the connection`, async () => {
        using connection = await ControlConnection.open(directory);
        connection.send(bytes);
        expect(await connection.answer()).toEqual({ ok: false, error: expect.stringMatching(error) });
        await connection.untilClosed();
      });
    }

    test("without an end: an error when it is over", async () => {
      using connection = await ControlConnection.open(directory);
      connection.send('{"command":"status"}');
      connection.end();
      expect(await connection.answer()).toEqual({ ok: false, error: expect.stringContaining("newline") });
      await connection.untilClosed();
    });

    test("a line of 100 MB: an error, and no memory for it", async () => {
      using connection = await ControlConnection.open(directory);
      const grown = await growthDuring(server.pid, async () => {
        const piece = Buffer.alloc(1_000_000, "a");
        // It goes on behind the answer, until it is cut off.
        for (let sent = 0; sent < 100 && !connection.isCutOff; sent++) {
          connection.send(piece);
          await until("room, or the end", 5_000, () => connection.isCutOff || connection.unsent < 2_000_000);
        }
        await connection.untilClosed();
      });
      expect(connection.received).toContain("at most 4096 bytes");
      expect(grown).toBeLessThan(20_000_000);
    });

    test("leaves the server as it was", async () => {
      expect((await status()).state).toBe("serving");
      expect(await textOf(server, "/version")).toBe("3");
    });
  });

  test("a client that ends its side first is answered", async () => {
    using connection = await ControlConnection.open(directory);
    connection.send('{"command":"status"}\n{"command":"status"}\n');
    connection.end();
    expect((await connection.answer()).ok).toBe(true);
    expect((await connection.answer()).ok).toBe(true);
    await connection.untilClosed();
  });

  test("a client that asks and never reads, and those that vanish, cost nothing", async () => {
    using silent = await ControlConnection.open(directory);
    silent.pause();
    const grown = await growthDuring(server.pid, async () => {
      for (let i = 0; i < 20; i++) silent.send('{"command":"status"}\n'.repeat(50_000));
      for (let i = 0; i < 200; i++) {
        using vanishing = await ControlConnection.open(directory);
        vanishing.send(i % 2 === 0 ? '{"command":"status"}\n' : '{"comm');
      }
      expect((await status()).state).toBe("serving");
      let unsent = -1;
      await until("nothing more to be taken", 10_000, async () => {
        const before = unsent;
        unsent = silent.unsent;
        await Bun.sleep(200);
        return unsent === before;
      });
    });
    expect(silent.unsent).toBeGreaterThan(10_000_000);
    expect(grown).toBeLessThan(30_000_000);
  });

  test("more than 32 clients at a time are told so, and the rest are served", async () => {
    const connections: ControlConnection[] = [];
    try {
      for (let i = 0; i < 33; i++) connections.push(await ControlConnection.open(directory));
      expect(await connections.at(-1)?.answer()).toEqual({
        ok: false,
        error: expect.stringContaining("too many"),
      });
      connections[0]?.send('{"command":"status"}\n');
      expect((await connections[0]?.answer())?.ok).toBe(true);
    } finally {
      for (const connection of connections) connection[Symbol.dispose]();
    }
    await until("room for another", 5_000, async () => (await command("status")).code === 0);
  });

  test("another server with its run directory is refused, and it goes on", async () => {
    const flags = { "run-dir": directory };
    await using second = await runCli(fixture("app.ts"), { flags });
    expect(await second.ended()).toBe(1);
    expect(lineOf(second.stderr)).toContain(`run directory ${directory} is running, process ${server.pid};`);
    expect(await textOf(server, "/version")).toBe("3");
    expect((await status()).manager.pid).toBe(server.pid);
  });

  test("that says nothing for ten seconds is waited for no longer", async () => {
    const stderr = `tercet: no answer on ${slow.path} within 10000 ms\n`;
    const outcome = { code: 1, stdout: "", stderr };
    expect(await slow.ofSilent).toEqual([outcome, outcome, outcome]);
  });

  test("that says nothing any more while it reloads, or ends, is waited for no longer", async () => {
    for (const { path, ...outcome } of await slow.ofHalting) {
      const stderr = `tercet: no answer on ${path} within 10000 ms\n`;
      expect(outcome).toEqual({ isHalted: true, code: 1, stdout: "", stderr });
    }
  });

  test("that takes its time over a reload, or its end, is waited for", async () => {
    const [reloaded, stopped] = await slow.ofSlow;
    expect(reloaded).toEqual({
      code: 0,
      stdout: expect.stringMatching(/ reloaded in 1\d\.\d s\n$/),
      stderr: "",
    });
    expect(stopped).toEqual({ code: 0, stdout: "tercet: stopped\n", stderr: "", isOver: true });
  });

  test("stop finishes what is in flight, and returns when all is over", async () => {
    await using client = await HTTP2.open(server);
    const waited = client.request({ path: "/wait?ms=1500" });
    await untilInFlight(client, 1);
    using observer = await ControlConnection.open(directory);
    let isAnswered = false;
    const stopping = command("stop").finally(() => {
      isAnswered = true;
    });
    await until("its beginning", 5_000, async () => {
      observer.send('{"command":"status"}\n');
      return ((await observer.answer()).value as { state: string }).state === "stopping";
    });
    expect((await waited).status).toBe(200);
    expect(isAnswered).toBe(false);
    const { code, stdout } = await stopping;
    expect([code, lineOf(stdout)]).toEqual([0, "stopped"]);
    expect(await server.ended(1_000)).toBe(0);
    await server.leavesNothing();
    for (const name of ["status", "reload", "stop"]) {
      const { code, stdout, stderr } = await command(name);
      expect([name, code, stdout]).toEqual([name, 1, ""]);
      expect(lineOf(stderr)).toStartWith(`no server is running with the run directory ${directory}`);
    }
  });
});

describe("a server on a port", () => {
  async function freePort(): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
    const { port } = listener;
    listener.stop(true);
    bindTcp("127.0.0.1", port).then(() => resolve(port), reject);
    return promise;
  }

  test("is found by it; a second one is refused by name; kill -9 of the launcher leaves none that cannot be stopped", async () => {
    const port = await freePort();
    await using server = await startCli(fixture("app.ts"), { flags: { port } });
    const { scratch } = server;
    const on = String(port);
    const shown = JSON.parse((await tercet(scratch, ["status", "--json", "--port", on])).stdout);
    expect(shown.runDirectory).toBe(runDirectoryIn(scratch));
    expect(shown.port).toBe(port);

    const again = await tercet(scratch, ["serve", fixture("app.ts"), "--host", "127.0.0.1", "--port", on]);
    expect([again.code, again.stdout]).toEqual([1, ""]);
    expect(again.stderr).toContain(`is running, process ${shown.manager.pid};`);
    const { code, stderr } = await tercet(scratch, ["status", "--port", "1"]);
    expect(code).toBe(1);
    expect(lineOf(stderr)).toMatch(/^no server is running on port 1 .*; there is --run-dir /);
    const unnamed = await tercet(scratch, ["status", "--port", "0"]);
    expect(lineOf(unnamed.stderr)).toMatch(
      /^no server is running on port 0 \(one that was started with it is found by --run-dir\); there is --run-dir /,
    );
    const [unset, wrong] = (await Promise.all(
      [
        ["stop", "--run-dir", ""],
        ["stop", "--port", "http"],
      ].map((args) => tercet(scratch, args)),
    )) as [Outcome, Outcome];
    expect([wrong.code, wrong.stdout]).toEqual([1, ""]);
    expect(lineOf(wrong.stderr)).toStartWith('option "port" is "http"; it must be a whole number');
    expect([unset.code, unset.stdout]).toEqual([1, ""]);
    expect(lineOf(unset.stderr)).toBe('option "run-dir" is ""; it must be a path to a folder');

    const examined = await tercet(scratch, ["doctor", "--host", "127.0.0.1", "--port", on]);
    expect(examined.stdout).toContain(`that of the running server, process ${shown.manager.pid}`);
    expect(examined.code).toBe(0);

    const manager = keyOf(shown.manager.pid);
    server.kill("SIGKILL");
    await server.ended();
    if (shown.manager.pid !== server.pid) {
      // Node could not become Bun: the server is a process of its own, and lives.
      expect(manager !== null && isAlive(manager)).toBe(true);
      const { code, stdout } = await tercet(scratch, ["stop", "--port", on]);
      expect([code, lineOf(stdout)]).toEqual([0, "stopped"]);
    }
    await until("the end of every process", 5_000, () => server.remaining().length === 0);
  });

  test("is not the debugger's: each worker of a server that is debugged has a port of its own for that", async () => {
    const scratch = await Scratch.make();
    const command = [
      process.execPath,
      `--inspect=127.0.0.1:${await freePort()}`,
      join(ROOT, "src/cli/main.ts"),
    ];
    const flags = ["--host", "127.0.0.1", "--port", "0", "--workers", "2", "--no-tls"];
    const serve = [...command, "serve", fixture("app.ts"), ...flags];
    await using server = await new TestServer(scratch, serve).ready();
    await until("three addresses", 5_000, () => {
      const ports = server.transcript().matchAll(/ws:\/\/127\.0\.0\.1:(\d+)/g);
      return new Set(Array.from(ports, ([, port]) => port)).size === 3;
    });
  });

  test("is not taken from the debugger of an editor, who has the manager alone", async () => {
    const env = { BUN_INSPECT: `ws://127.0.0.1:${await freePort()}/editor` };
    await using server = await startCli(fixture("app.ts"), { env });
    expect(await textOf(server, "/hello")).toBe("Hello from fetch!");
  });

  test("that something else has is a problem to the doctor, and so is a certificate that is not there", async () => {
    using scratch = await Scratch.make();
    using listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
    const flags = ["--host", "127.0.0.1", "--port", String(listener.port)];
    const files = ["--cert", scratch.file("none.pem"), "--key", scratch.key];
    const { code, stdout } = await tercet(scratch, ["doctor", ...flags, ...files]);
    expect(code).toBe(1);
    expect(stdout).toMatch(
      new RegExp(`^problem +TCP port +${listener.port} on 127\\.0\\.0\\.1 is in use\\n +→ .*ss -lnpt`, "m"),
    );
    expect(stdout).toMatch(/^problem +certificate +the certificate\s+\S*none\.pem/m);
    expect(stdout).toMatch(/\n2 problems, \d+ warnings?\n$/);
    expect(await tercet(scratch, ["doctor", ...flags, "--http3", "of"])).toEqual({
      code: 1,
      stdout: "",
      stderr: 'tercet: option "http3" is "of"; it must be "native", "quic" or "off"\n',
    });
    const plain = await tercet(scratch, ["doctor", ...flags, ...files, "--no-tls"]);
    expect([plain.code, plain.stdout]).toEqual([1, ""]);
    expect(lineOf(plain.stderr)).toStartWith('option "cert" does not go with --no-tls');
  });
});

test("a server in a terminal that is closed does not stay: SIGHUP is no reload then", async () => {
  using scratch = await Scratch.make();
  const flags = [
    "--host",
    "127.0.0.1",
    "--port",
    "0",
    "--workers",
    "1",
    "--cert",
    scratch.cert,
    "--key",
    scratch.key,
  ];
  let screen = "";
  const child = Bun.spawn(
    [process.execPath, join(ROOT, "src/cli/main.ts"), "serve", fixture("app.ts"), ...flags],
    {
      env: scratch.environment(),
      terminal: {
        data: (_terminal, bytes) => {
          screen += Buffer.from(bytes).toString();
        },
      },
    },
  );
  try {
    await until("the ready line", 20_000, () => screen.includes("tercet: ready on"));
    const processes = descendantsOf(child.pid);
    expect(processes.length).toBe(2);
    child.terminal?.close();
    await until("every process to end", 10_000, () => child.exitCode !== null && !processes.some(isAlive));
    expect(child.exitCode).toBe(0);
    expect(readdirSync(scratch.run)).toEqual([]);
  } finally {
    child.kill("SIGKILL");
  }
});

describe("the launcher", () => {
  test("hands on SIGHUP, SIGUSR1 and SIGUSR2, and ends as the server does", async () => {
    await using server = await startCli(fixture("app.ts"));
    for (const [count, signal] of (["SIGHUP", "SIGUSR1", "SIGUSR2"] as const).entries()) {
      server.kill(signal);
      await until("a reload", 10_000, () => server.stderr.match(/reloaded/g)?.length === count + 1);
    }
    const status = JSON.parse(
      (await tercet(server.scratch, ["status", "--json", "--run-dir", runDirectoryIn(server.scratch)]))
        .stdout,
    );
    process.kill(status.manager.pid, "SIGKILL");
    expect(await server.ended()).toBe("SIGKILL");
    await until("the end of every process", 5_000, () => server.remaining().length === 0);
  });

  test("says what to do where Bun has not been put in its place", async () => {
    using scratch = await Scratch.make();
    const [folder, launcher] = [scratch.file("node_modules/bun"), scratch.file("bin/tercet.js")];
    for (const path of [folder, scratch.file("bin")]) mkdirSync(path, { recursive: true });
    writeFileSync(join(folder, "package.json"), "{}");
    copyFileSync(join(ROOT, "bin/tercet.js"), launcher);
    writeFileSync(scratch.file("package.json"), '{ "type": "module" }');
    const { exitCode, stderr } = Bun.spawnSync(["node", launcher, "status"]);
    expect([exitCode, lineOf(stderr.toString())]).toEqual([
      1,
      expect.stringMatching(
        /^cannot start bun \(.*ENOENT.*\); .*: node \S+\/node_modules\/bun\/install\.js$/,
      ),
    ]);
  });

  test("as the first process of a container, where it cannot end by a signal of its own, ends with its number", async () => {
    const container = ["unshare", "--pid", "--fork", "--kill-child"];
    // There may be no right to that.
    if (!Bun.spawnSync([...container, "true"]).success) return;
    const scratch = await Scratch.make();
    const serve = ["node", join(ROOT, "bin/tercet.js"), "serve", fixture("app.ts")];
    const flags = ["--host", "127.0.0.1", "--port", "0", "--workers", "1", "--no-tls"];
    await using server = await new TestServer(scratch, [...container, ...serve, ...flags]).ready();
    const ofBun = descendantsOf(server.pid).filter(({ pid }) => commandLine(pid).includes("src/cli/main.ts"));
    const manager = ofBun.find(({ pid }) => descendantsOf(pid).length === 2);
    process.kill(manager?.pid ?? 0, "SIGKILL");
    // The second where Node could become Bun, which is the first process then.
    expect([128 + constants.signals.SIGKILL, "SIGKILL"]).toContain(await server.ended());
  });
});
