/** Who may have a run directory, and what becomes of one that was left behind. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { basename, join } from "node:path";
import { FileLock } from "../../src/manager/file-lock.ts";
import { Libc } from "../../src/manager/libc.ts";
import { PidFile, pidIn } from "../../src/manager/pid-file.ts";
import { RunDirectory } from "../../src/manager/run-directory.ts";
import { StartError } from "../../src/manager/start-error.ts";
import { Deadline } from "../../src/tasks/deadline.ts";
import { tercet } from "../support/cli.ts";
import { HTTP1 } from "../support/clients.ts";
import { failureOf, until } from "../support/poll.ts";
import { fixture, runCli, Scratch, startCli, startFixture } from "../support/server.ts";
import { SmallDisk } from "../support/small-disk.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const IS_ROOT = process.getuid?.() === 0;
const NOBODY = 65_534;

/** A folder in the scratch one with something in it, as if somebody else had been first. */
function made(scratch: Scratch, mode = 0o700): string {
  const path = scratch.file("taken");
  mkdirSync(path);
  chmodSync(path, mode);
  return path;
}

describe("a run directory is refused", () => {
  const REFUSED: [why: string, prepare: (scratch: Scratch) => string, reason: RegExp][] = [
    [
      "that everybody may enter",
      (scratch) => made(scratch, 0o755),
      /has the mode 0755, .*chmod 700 .*RuntimeDirectoryMode/,
    ],
    [
      "that everybody may write, and that has other files: nobody is told to close it",
      (scratch) => {
        const path = made(scratch, 0o1777);
        writeFileSync(join(path, "another"), "");
        return path;
      },
      /has the mode 0777, .* other files in it: name a new folder in it, \S+\/taken\/tercet$/,
    ],
    [
      "that is a symbolic link",
      (scratch) => {
        symlinkSync(made(scratch), scratch.file("link"));
        return scratch.file("link");
      },
      /is a symbolic link/,
    ],
    [
      "that is no folder",
      (scratch) => {
        writeFileSync(scratch.file("file"), "");
        return scratch.file("file");
      },
      /is no folder/,
    ],
    ["without a parent", (scratch) => scratch.file("none/there"), /its parent is not there/],
    [
      "that is another user's",
      (scratch) => {
        // Who is not root finds one that is root's.
        if (!IS_ROOT) return "/";
        const path = made(scratch);
        chownSync(path, NOBODY, NOBODY);
        return path;
      },
      IS_ROOT ? /belongs to user 65534, and this is user 0/ : /belongs to user 0, and this is user/,
    ],
  ];

  for (const [why, prepare, reason] of REFUSED) {
    test(why, async () => {
      using scratch = await Scratch.make();
      const path = prepare(scratch);
      const spec = { path, port: 0, pidFile: null, identity: null };
      const error = await failureOf(
        "a refusal",
        5_000,
        RunDirectory.take(spec, () => {}),
      );
      expect(error).toBeInstanceOf(StartError);
      expect(error.message).toMatch(reason);
      expect(error.message).toContain(path);
    });
  }

  test("in one line, and nothing of it is changed; so is one whose socket would have too long a path", async () => {
    using scratch = await Scratch.make();
    const taken = made(scratch, 0o755);
    const long = scratch.file("a".repeat(100));
    const certificate = ["--cert", scratch.cert, "--key", scratch.key];
    const command = (path: string) => [
      "serve",
      fixture("app.ts"),
      "--port",
      "0",
      ...certificate,
      "--run-dir",
      path,
    ];
    expect(await tercet(scratch, command(taken))).toEqual({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/^tercet: the run directory \S+ has the mode 0755, and .*\n$/),
    });
    expect([statSync(taken).mode & 0o777, readdirSync(taken)]).toEqual([0o755, []]);
    const refused = await tercet(scratch, command(long));
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(/tercet: .*a{100}.*\n$/)]);
    expect(existsSync(long)).toBe(false);
  });
});

test.skipIf(!IS_ROOT)(
  "a full disk is no place for a run directory, nor for a pid file: a line says so",
  async () => {
    using scratch = await Scratch.make();
    const full = scratch.file("full");
    using disk = SmallDisk.mount(full, "4k");
    if (disk === null) return;
    writeFileSync(join(full, "data"), Buffer.alloc(4096));
    const spec = { path: scratch.file("place"), port: 0, pidFile: null, identity: null };
    for (const change of [{ path: join(full, "run") }, { pidFile: join(full, "pid") }]) {
      const take = RunDirectory.take({ ...spec, ...change }, () => {});
      const error = await failureOf("a refusal", 5_000, take);
      expect(error).toBeInstanceOf(StartError);
      expect(error.message).toMatch(/ cannot be written: ENOSPC/);
    }
    expect(existsSync(join(full, "run"))).toBe(false);
  },
);

test.skipIf(!IS_ROOT)("a full disk keeps no worker and no task worker from starting", async () => {
  using scratch = await Scratch.make();
  const full = scratch.file("full");
  using disk = SmallDisk.mount(full, "64k");
  if (disk === null) return;
  const options = { mode: "process", runDirectory: join(full, "run") };
  await using server = await startFixture("server.ts", { options });
  await using client = await HTTP1.open(server);
  const pid = await (await client.request({ path: "/pid" })).body.text();
  expect(() => writeFileSync(join(full, "data"), Buffer.alloc(65_536))).toThrow("ENOSPC");
  process.kill(Number(pid), "SIGKILL");
  await server.logs(/worker 1: what it runs is not noted: \S+ cannot be written: ENOSPC/);
  const answer = await client.request({ path: "/hello" });
  expect(await answer.body.text()).toBe("Hello from HTTP/1.1!");
  const lines: string[] = [];
  expect(Deadline.open(full, true, (line) => lines.push(line))).toBeNull();
  expect(lines).toEqual([expect.stringMatching(/its deadline is not noted: \S+ cannot be written: ENOSPC/)]);
  await server.stop();
});

test.skipIf(!IS_ROOT)(
  "a disk that has become read-only costs the server no process but the one that died",
  async () => {
    using scratch = await Scratch.make();
    const folder = scratch.file("disk");
    using disk = SmallDisk.mount(folder, "1m");
    if (disk === null) return;
    const options = { mode: "process", runDirectory: join(folder, "run"), pidFile: join(folder, "pid") };
    await using server = await startFixture("server.ts", { options });
    await using client = await HTTP1.open(server);
    const pid = await (await client.request({ path: "/pid" })).body.text();
    expect(disk.makeReadOnly()).toBe(true);
    process.kill(Number(pid), "SIGKILL");
    await server.logs(/worker 1: what it runs is not noted: \S+ cannot be written: EROFS/);
    await server.logs(/\S+ is not removed: EROFS/);
    const answer = await client.request({ path: "/hello" });
    expect(await answer.body.text()).toBe("Hello from HTTP/1.1!");
    await server.stop();
  },
);

describe("a run directory that was left behind", () => {
  test("by a server that was killed is taken over, and removed at the end", async () => {
    using place = await Scratch.make();
    const directory = join(place.run, "tercet");
    const flags = { "run-dir": directory };
    await using first = await startCli(fixture("app.ts"), { flags });
    const pid = Number(readFileSync(join(directory, "tercet.pid"), "latin1"));
    process.kill(pid, "SIGKILL");
    await first.ended();
    await until("every process to end", 5_000, () => first.remaining().length === 0);
    expect(readdirSync(directory)).toContain("control.sock");
    const status = await tercet(place, ["status", "--run-dir", directory]);
    expect(status.code).toBe(1);
    // Behind it stand the servers that others have on this machine.
    expect(status.stderr).toStartWith(`tercet: no server is running with the run directory ${directory}`);
    await using second = await startCli(fixture("app.ts"), { flags });
    const told = await tercet(place, ["status", "--json", "--run-dir", directory]);
    expect(JSON.parse(told.stdout).port).toBe(second.port);
    await second.stop();
    expect(existsSync(directory)).toBe(false);
  });

  test("with the id of a process that lives by now, and files of ours in it: what is somebody else's stays", async () => {
    const scratch = await Scratch.make();
    const directory = join(scratch.run, "tercet");
    mkdirSync(join(directory, "tercet-a1B2c3"), { recursive: true, mode: 0o700 });
    chmodSync(directory, 0o700);
    writeFileSync(join(directory, "tercet-a1B2c3", "reactor-1.sock"), "");
    writeFileSync(join(directory, "tercet.pid"), `${process.pid}\n`);
    writeFileSync(join(directory, "control.sock"), "");
    writeFileSync(join(directory, "of-another"), "");
    await using server = await startCli(fixture("app.ts"), { scratch, flags: { "run-dir": directory } });
    expect(readdirSync(directory)).not.toContain("tercet-a1B2c3");
    expect((await tercet(scratch, ["stop", "--run-dir", directory])).code).toBe(0);
    expect(await server.ended()).toBe(0);
    expect(readdirSync(directory)).toEqual(["of-another"]);
  });
});

test("one that somebody has removed meanwhile does not keep its server from a good end", async () => {
  await using server = await startCli(fixture("app.ts"));
  for (const name of readdirSync(server.scratch.run)) {
    rmSync(join(server.scratch.run, name), { recursive: true });
  }
  await server.stop();
});

test("one whose sockets somebody has removed keeps its workers: a reload fails, and they serve on", async () => {
  const scratch = await Scratch.make();
  const directory = scratch.file("place");
  const options = { mode: "process", runDirectory: directory };
  await using server = await startFixture("server.ts", { scratch, options });
  await using client = await HTTP1.open(server);
  const pid = async () => await (await client.request({ path: "/pid" })).body.text();
  const before = await pid();
  for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true });
  server.kill("SIGHUP");
  await server.logs(
    /reload failed, the old code still serves: no reactor can be reached: connect ENOENT \S+reactor-1\.sock/,
  );
  expect(await pid()).toBe(before);
});

test("one in whose place somebody has put something else does not either, and what that is stays", async () => {
  const scratch = await Scratch.make();
  const directory = scratch.file("place");
  await using server = await startCli(fixture("app.ts"), { scratch, flags: { "run-dir": directory } });
  rmSync(directory, { recursive: true });
  writeFileSync(directory, "something else");
  server.kill("SIGTERM");
  expect(await server.ended()).toBe(0);
  expect(readFileSync(directory, "latin1")).toBe("something else");
});

test("one in whose place is another server's by then is left to that, and so is a pid file", async () => {
  using scratch = await Scratch.make();
  const [path, pidFile] = [scratch.file("place"), scratch.file("pid")];
  const spec = { path, port: 0, pidFile, identity: null };
  const first = await RunDirectory.take(spec, () => {});
  rmSync(path, { recursive: true });
  rmSync(pidFile);
  const second = await RunDirectory.take(spec, () => {});
  const before = readdirSync(path).sort();
  expect(before).toEqual(["tercet.pid", basename(second.meeting)].sort());
  first.release();
  expect([readdirSync(path).sort(), existsSync(pidFile)]).toEqual([before, true]);
  second.release();
  expect([existsSync(path), existsSync(pidFile)]).toEqual([false, false]);
});

test.skipIf(!IS_ROOT)(
  "where the processes of another user meet is locked too, so that nobody clears it out",
  async () => {
    using scratch = await Scratch.make();
    const identity = { uid: NOBODY, gid: NOBODY, name: null, home: null };
    const spec = { path: scratch.file("place"), port: 0, pidFile: null, identity };
    const directory = await RunDirectory.take(spec, () => {});
    const { uid, mode } = statSync(directory.meeting);
    expect([uid, mode & 0o777]).toEqual([NOBODY, 0o700]);
    const flags = constants.O_RDONLY | constants.O_DIRECTORY;
    const locked = [directory.path, directory.meeting].map((path) => FileLock.take(path, flags, Libc.open()));
    directory.release();
    expect([locked, existsSync(directory.meeting)]).toEqual([[null, null], false]);
  },
);

describe("a pid file", () => {
  const taken = (path: string) => PidFile.take(path, Libc.open());

  test("that was left behind has the new id alone, and is that of a running server then", async () => {
    using scratch = await Scratch.make();
    const path = scratch.file("pid");
    writeFileSync(path, "123456789012\n");
    const file = await taken(path);
    expect(readFileSync(path, "latin1")).toBe(`${process.pid}\n`);
    await expect(taken(path)).rejects.toThrow(
      `the pid file ${path} is that of a running server, process ${process.pid}`,
    );
    file.release(() => {});
    expect(existsSync(path)).toBe(false);
  });

  test("whose server has not written it yet is waited for", async () => {
    using scratch = await Scratch.make();
    const path = scratch.file("pid");
    writeFileSync(path, "");
    const pid = pidIn(path);
    writeFileSync(path, "123\n");
    expect(await pid).toBe("123");
  });

  const REFUSED: [why: string, prepare: (scratch: Scratch, path: string) => void, reason: string][] = [
    ["a folder", (_, path) => mkdirSync(path), "it is a folder"],
    [
      "a symbolic link",
      (scratch, path) => {
        writeFileSync(scratch.file("linked"), "1\n");
        symlinkSync(scratch.file("linked"), path);
      },
      "it is a symbolic link",
    ],
    ["a named pipe", (_, path) => execFileSync("mkfifo", [path]), "is no pid file"],
    ["a long number", (_, path) => writeFileSync(path, "1".repeat(17)), "is no pid file"],
  ];

  for (const [what, prepare, reason] of REFUSED) {
    test(`is refused where there is ${what}, which stays`, async () => {
      using scratch = await Scratch.make();
      const path = scratch.file("pid");
      prepare(scratch, path);
      const { size } = statSync(path);
      await expect(taken(path)).rejects.toThrow(reason);
      expect(statSync(path).size).toBe(size);
    });
  }
});

test("a file that is replaced while it is being locked is locked where it is by then", async () => {
  using scratch = await Scratch.make();
  const path = scratch.file("locked");
  const libc = Libc.open() as Libc;
  let attempts = 0;
  const late: Pick<Libc, "lock"> = {
    lock: (descriptor) => {
      // Who had it has removed it and let go, and another has made it anew.
      if (++attempts === 1) renameSync(scratch.file("anew"), path);
      return libc.lock(descriptor);
    },
  };
  for (const name of ["locked", "anew"]) writeFileSync(scratch.file(name), name);
  using lock = FileLock.take(path, constants.O_RDWR, late as Libc);
  expect([attempts, lock && readFileSync(lock.descriptor, "latin1")]).toEqual([2, "anew"]);
  expect(FileLock.take(path, constants.O_RDWR, libc)).toBeNull();
});

test.skipIf(!IS_ROOT)("what another user has put where a server would be found is not asked", async () => {
  using scratch = await Scratch.make();
  const directory = join(scratch.run, `tercet-${process.geteuid?.()}-1`);
  mkdirSync(directory);
  let asked = 0;
  const trap = createServer((socket) => {
    asked++;
    socket.end('{"ok":true,"value":null}\n');
  });
  await new Promise<void>((resolve) => {
    trap.listen(join(directory, "control.sock"), resolve);
  });
  try {
    chownSync(directory, NOBODY, NOBODY);
    const { code, stderr } = await tercet(scratch, ["stop", "--port", "1"]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^tercet: no server is running on port 1 /)]);
    expect(stderr).not.toContain(`there is --run-dir ${directory}`);
    expect(asked).toBe(0);
    const foreign = join(scratch.run, `tercet-${NOBODY}-2`);
    mkdirSync(foreign);
    expect((await tercet(scratch, ["stop", "--port", "2"])).stderr).toContain(
      `; another user may have one: --run-dir ${foreign}`,
    );
    // Named, it is the user's own choice.
    expect((await tercet(scratch, ["stop", "--run-dir", directory])).code).toBe(0);
    expect(asked).toBe(1);
  } finally {
    trap.close();
  }
});

test("of two servers that start at one moment one has it, and one is told whose it is", async () => {
  using place = await Scratch.make();
  const settings = { flags: { "run-dir": join(place.run, "tercet") } };
  await using one = await runCli(fixture("app.ts"), settings);
  await using other = await runCli(fixture("app.ts"), settings);
  const loser = await until("one to end", 20_000, () => [one, other].find(({ hasExited }) => hasExited));
  const winner = loser === one ? other : one;
  expect(await loser.ended()).toBe(1);
  await until("the other to be ready", 20_000, () => winner.stdout.includes("ready"));
  const { manager } = JSON.parse(
    (await tercet(place, ["status", "--json", "--run-dir", settings.flags["run-dir"]])).stdout,
  );
  expect(loser.stderr).toContain(`is running, process ${manager.pid};`);
  await winner.stop();
});
