/**
 * A server that root starts, and that is root no more where it matters. Who is not root can start none: then what can be
 * seen is that it is told so.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bindTcp, bindUdp } from "../../src/listeners/ports.ts";
import { identityOf } from "../../src/manager/identity.ts";
import { runDirectoryIn, tercet } from "../support/cli.ts";
import { HTTP1, HTTP2, QUICHE } from "../support/clients.ts";
import { file, MULTIPART, multipart } from "../support/multipart.ts";
import { until } from "../support/poll.ts";
import { commandLine, descendantsOf, type ProcessKey } from "../support/processes.ts";
import { OPTIONS_VARIABLE, Program, ROOT, Scratch, TestServer } from "../support/server.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const IS_ROOT = process.getuid?.() === 0;
/** Every system has them; the group is not that user's own. */
const USER = "nobody";
const GROUP = "daemon";

describe("a user is looked up", () => {
  test("by name or id, with its group, or another", () => {
    const [, , uid = "", gid = "", , home] = execFileSync("getent", ["passwd", USER], { encoding: "utf8" })
      .trim()
      .split(":");
    const [, , other = ""] = execFileSync("getent", ["group", GROUP], { encoding: "utf8" }).split(":");
    const expected = { uid: Number(uid), gid: Number(gid), name: USER, home: home as string };
    const found = (user: string, group: string | null) => () => identityOf(user, group);
    if (IS_ROOT) {
      expect(found(USER, null)()).toEqual(expected);
      expect(found(uid, null)()).toEqual(expected);
      expect(found(USER, GROUP)()).toEqual({ ...expected, gid: Number(other) });
      expect(found("4000000", other)()).toEqual({
        uid: 4_000_000,
        gid: Number(other),
        name: null,
        home: null,
      });
      expect(found("root", null)).toThrow('option "user" is "root", which is root: it must be another');
    } else {
      for (const user of [USER, uid, "root"]) expect(found(user, null)).toThrow("only root may say it");
    }
    expect(identityOf(null, null)).toBeNull();
  });

  test("in the files themselves, on a system without getent", () => {
    const { PATH } = process.env;
    const found = (user: string, group: string | null) => () => identityOf(user, group);
    try {
      process.env.PATH = "/nowhere";
      if (IS_ROOT) expect(found(USER, GROUP)()).toMatchObject({ name: USER, home: expect.any(String) });
      else expect(found(USER, GROUP)).toThrow("only root may say it");
      expect(found("no-such-user", null)).toThrow("there is no such user");
    } finally {
      process.env.PATH = PATH;
    }
  });

  const WRONG: [user: string | null, group: string | null, message: string][] = [
    ["no-such-user", null, 'option "user" is "no-such-user": there is no such user'],
    [USER, "no-such-group", 'option "group" is "no-such-group": there is no such group'],
    ["4000000", null, 'option "user" is 4000000, an id without a name: option "group" must say its group'],
    [null, GROUP, 'option "group" is "daemon": it needs option "user"'],
  ];

  for (const [user, group, message] of WRONG) {
    test(message, () => {
      expect(() => identityOf(user, group)).toThrow(message);
    });
  }
});

let project = ROOT;
beforeAll(() => {
  project = projectForAll();
});
afterAll(() => {
  if (project !== ROOT) rmSync(project, { recursive: true, force: true });
});

/** Runs the command line as an id of no user on this system. */
function asStranger(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return spawnSync(process.execPath, [join(project, "bin/tercet.js"), ...args], {
    uid: 54_321,
    gid: 54_321,
    cwd: "/",
    encoding: "utf8",
    env: { PATH: process.env.PATH, ...env },
  });
}

test.skipIf(!IS_ROOT)(
  "who has no home directory is told so where something would be kept in it, in one line",
  () => {
    const serve = ["serve", join(project, "test/fixtures/app.ts"), "--port", "0"];
    for (const [flags, reason] of [
      [[], /^tercet: no self-signed certificate can be kept, for this user has no home directory; .*\n$/],
      [["--daemon"], /^tercet: there is no place for a log, for this user has no home directory: .*\n$/],
    ] as const) {
      const { status, stdout, stderr } = asStranger([...serve, ...flags]);
      expect([status, stdout, stderr]).toEqual([1, "", expect.stringMatching(reason)]);
    }
  },
);

test.skipIf(!IS_ROOT)(
  "who may not enter the temporary folder that is named to him is told what that means, in one line",
  () => {
    const closed = mkdtempSync(join(tmpdir(), "tercet-closed-"));
    try {
      const run = (command: string) => asStranger([command, "--port", "1"], { TMPDIR: closed });
      const asked = run("stop");
      expect([asked.status, asked.stdout]).toEqual([1, ""]);
      expect(asked.stderr).toMatch(
        /^tercet: no server is running on port 1 \(its run directory would be .*\n$/,
      );
      const named = asStranger(["stop", "--run-dir", closed]);
      expect([named.status, named.stderr]).toEqual([
        1,
        expect.stringMatching(
          /^tercet: the control socket \S+: only the user whose server it is, and root, may open it\n$/,
        ),
      ]);
      const { status, stdout } = run("doctor");
      expect(status).toBe(1);
      expect(stdout).toMatch(
        /^problem +run directory +\S+tercet-54321-1\s+cannot\s+be\s+looked\s+at\s+\(EACCES\)/m,
      );
    } finally {
      rmSync(closed, { recursive: true });
    }
  },
);

test("who is not root is told that only root may say it, in one line", () => {
  const command = [
    join(project, "bin/tercet.js"),
    "serve",
    join(project, "test/fixtures/app.ts"),
    "--user",
    GROUP,
  ];
  const { status, stdout, stderr } = spawnSync(process.execPath, [...command, "--port", "0"], {
    cwd: "/",
    encoding: "utf8",
    env: { PATH: process.env.PATH },
    ...(IS_ROOT && { uid: idOf(USER), gid: idOf(USER) }),
  });
  expect([status, stdout]).toEqual([1, ""]);
  expect(stderr).toMatch(/^tercet: option "user" is "daemon": only root may say it, and this is user \d+\n$/);
});

test.skipIf(!IS_ROOT)("a process whose system would give root back to it does not go on", () => {
  // Its capabilities stay when it becomes another user (capabilities(7)).
  const keeping = ["--securebits", "+no_setuid_fixup"];
  // There may be no such program.
  if (spawnSync("setpriv", [...keeping, "true"]).status !== 0) return;
  const script = join(project, "src/manager/privileges.ts");
  const identity = { uid: idOf(USER), gid: idOf(USER), name: null, home: null };
  const drops = `import { dropPrivileges } from ${JSON.stringify(script)};
    try { dropPrivileges(${JSON.stringify(identity)}); console.log("dropped"); } catch ({ message }) { console.log(message); }`;
  const run = (command: string, ...args: string[]) =>
    spawnSync(command, [...args, "-e", drops], { cwd: "/", encoding: "utf8" }).stdout;
  expect([run(process.execPath), run("setpriv", ...keeping, process.execPath)]).toEqual([
    "dropped\n",
    "root's privileges come back\n",
  ]);
});

/** There may be no such program, or root may itself be without what it takes. */
const CAN_DROP = IS_ROOT && spawnSync("setpriv", ["--bounding-set", "-kill", "true"]).status === 0;

test.skipIf(!CAN_DROP)("root without a capability that it takes is told which, as in a container", () => {
  const script = join(project, "src/manager/identity.ts");
  const looks = `import { identityOf } from ${JSON.stringify(script)};
    try { console.log(identityOf(${JSON.stringify(USER)}, null).name); } catch ({ message }) { console.log(message); }`;
  const said = (dropped: string) =>
    spawnSync("setpriv", ["--bounding-set", dropped, process.execPath, "-e", looks], {
      cwd: "/",
      encoding: "utf8",
    }).stdout;
  expect([said("-net_raw"), said("-chown,-kill"), said("-setuid,-setgid")]).toEqual([
    `${USER}\n`,
    expect.stringMatching(/^option "user" is "nobody": root has not .* the capabilities CHOWN, KILL\n$/),
    expect.stringMatching(/ the capabilities SETGID, SETUID\n$/),
  ]);
});

if (IS_ROOT) {
  describe("a server that root starts for another user", () => {
    let server: TestServer;
    let port: number;

    beforeAll(async () => {
      port = await privilegedPort();
      const scratch = await openScratch();
      const files = scratch.file("files");
      mkdirSync(files, { mode: 0o755 });
      writeFileSync(join(files, "public.txt"), "for all");
      writeFileSync(join(files, "secret.txt"), "for root", { mode: 0o600 });
      const options = { user: USER, group: GROUP, reactors: 2, static: { root: files, prefix: "/files" } };
      server = await new TestServer(scratch, command(), environment(scratch, options, port)).ready();
    });
    afterAll(() => server[Symbol.asyncDispose]());

    function reactors(): ProcessKey[] {
      return descendantsOf(server.pid).filter(({ pid }) => commandLine(pid).includes("reactor/main.ts"));
    }

    /** Of each process but the manager, with each of its threads: user, group, other groups, capabilities. */
    function identities(): string[] {
      const seen = descendantsOf(server.pid).flatMap(({ pid }) => {
        const what = commandLine(pid).includes("reactor/main.ts") ? "reactor" : "worker";
        return readdirSync(`/proc/${pid}/task`).map((thread) => {
          const status = readFileSync(`/proc/${pid}/task/${thread}/status`, "latin1");
          const lines = status.match(/^(?:Uid|Gid|Groups|CapEff|CapPrm|CapAmb):.*$/gm) ?? [];
          return `${what} ${lines.map((line) => line.replaceAll(/\s+/g, " ").trim()).join(", ")}`;
        });
      });
      return [...new Set(seen)].sort();
    }

    /** With which the user is root no more, whatever thread it is. */
    function expected(): string[] {
      const [uid, gid] = [
        idOf(USER),
        Number(execFileSync("getent", ["group", GROUP], { encoding: "utf8" }).split(":")[2]),
      ];
      const groups = new Set([gid, ...otherGroups(uid)]);
      const ids = `Uid: ${`${uid} `.repeat(4).trim()}, Gid: ${`${gid} `.repeat(4).trim()}`;
      const none = "0000000000000000";
      const rest = `Groups: ${[...groups].sort((a, b) => a - b).join(" ")}, CapPrm: ${none}, CapEff: ${none}, CapAmb: ${none}`;
      return [`reactor ${ids}, ${rest}`, `worker ${ids}, ${rest}`];
    }

    test("has its port below 1024, and serves every protocol on it", async () => {
      expect(port).toBeLessThan(1024);
      for (const kind of [HTTP1, HTTP2, QUICHE]) {
        await using client = await kind.open(server);
        expect((await client.request({ path: "/" })).status).toBe(200);
      }
    });

    test("is root in the manager alone", () => {
      expect(readFileSync(`/proc/${server.pid}/status`, "latin1")).toMatch(/^Uid:\t0\t0\t0\t0$/m);
      expect(identities()).toEqual(expected());
    });

    test("loads code as that user, which cannot get back what it had", async () => {
      await using client = await HTTP2.open(server);
      const told = await (await client.request({ path: "/" })).body.json();
      const [, , , , , home = ""] = execFileSync("getent", ["passwd", USER], { encoding: "utf8" }).split(":");
      expect(told).toEqual({
        loadedAs: idOf(USER),
        runsAs: idOf(USER),
        setuid: "EPERM",
        setgid: "EPERM",
        readKey: "EACCES",
        env: { HOME: home, USER, LOGNAME: USER },
      });
    });

    test("lets no worker look into a reactor, which has the private key", async () => {
      await using client = await HTTP2.open(server);
      const [{ pid } = { pid: 0 }] = reactors();
      const peeked = await client.request({ path: `/peek?pid=${pid}` });
      expect(await peeked.body.json<unknown>()).toEqual(["EACCES", "EACCES", "EACCES"]);
    });

    test("serves what that user may read, and keeps uploads as its files", async () => {
      await using client = await HTTP2.open(server);
      const ask = async (path: string) => {
        const response = await client.request({ path });
        return [response.status, await response.body.text()];
      };
      expect(await ask("/files/public.txt")).toEqual([200, "for all"]);
      expect(await ask("/files/secret.txt")).toEqual([403, expect.stringMatching(/^403 Forbidden/)]);
      const response = await client.request({
        path: "/form",
        headers: { "content-type": MULTIPART },
        body: multipart([file("a", "a.txt", "something")]),
      });
      expect(await response.body.json<unknown>()).toEqual([{ path: expect.any(String), uid: idOf(USER) }]);
    });

    test("has the same of what takes the place of a reactor that died, and of a reload", async () => {
      expect(reactors().length).toBe(2);
      for (const { pid } of reactors()) process.kill(pid, "SIGKILL");
      await until("an answer", 10_000, async () => {
        await using client = await HTTP1.open(server);
        return (await client.request({ path: "/" })).status === 200;
      });
      const directory = runDirectoryIn(server.scratch);
      expect((await tercet(server.scratch, ["reload", "--run-dir", directory])).code).toBe(0);
      await until("the same identities", 5_000, () => identities().join() === expected().join());
    });

    test("has workers that listen as that user, in the mode base, with nothing of root's where it has no name", async () => {
      const scratch = await openScratch();
      const env = environment(scratch, { user: "54321", group: "54321", mode: "base" }, 0);
      await using other = await new TestServer(scratch, command(), env).ready();
      await using client = await HTTP2.open(other);
      const told = await (await client.request({ path: "/" })).body.json();
      expect(told).toMatchObject({ loadedAs: 54_321, runsAs: 54_321 });
      expect((told as { env: unknown }).env).toEqual({});
      other.kill("SIGKILL");
      await other.ended();
      await until("their folder to go", 5_000, () =>
        readdirSync(scratch.run).every((name) => name.startsWith("tercet-0-")),
      );
    });

    test("leaves nothing, also where its manager is killed", async () => {
      const scratch = await openScratch();
      await using other = await new TestServer(
        scratch,
        command(),
        environment(scratch, { user: USER }, 0),
      ).ready();
      other.kill("SIGKILL");
      await other.ended();
      // What is the manager's own stays for the next one; where the processes met is theirs.
      await until("every process to end", 5_000, () => other.remaining().length === 0);
      await until("their folder to go", 5_000, () =>
        readdirSync(scratch.run).every((name) => name.startsWith("tercet-0-")),
      );
      await server.stop();
    });
  });

  describe("a start for another user fails, in one line,", () => {
    const FAILING: [why: string, options: (scratch: Scratch) => Record<string, unknown>, reason: RegExp][] = [
      [
        "with files that this user cannot read",
        ({ run }) => ({ static: { root: closedFolder(run) } }),
        /option "static" has the root ".*closed", which cannot be read \(EACCES\)/,
      ],
      [
        "with a folder of uploads that it cannot write",
        ({ run }) => ({ upload: { directory: closedFolder(run) } }),
        /option "upload\.directory" is ".*closed", which cannot be written \(EACCES\)/,
      ],
      [
        "with a folder of qlog that it cannot write",
        ({ run }) => ({ http3: { engine: "quic", qlog: closedFolder(run) } }),
        /option "http3\.qlog" is ".*closed", which cannot be written \(EACCES\)/,
      ],
      [
        "with a temporary folder that it cannot enter",
        ({ run }) => {
          chmodSync(run, 0o700);
          return {};
        },
        /unix socket .*cannot be opened/,
      ],
    ];

    for (const [why, options, reason] of FAILING) {
      test(why, async () => {
        const scratch = await openScratch();
        const env = environment(scratch, { user: USER, ...options(scratch) }, 0);
        await using program = new Program(scratch, command(), env);
        expect(await program.ended()).toBe(1);
        expect(program.stderr).toMatch(reason);
        rmSync(join(scratch.run, "closed"), { recursive: true, force: true });
        await program.leavesNothing();
      });
    }

    test("with code that it cannot read", async () => {
      const scratch = await openScratch();
      const app = join(closedFolder(scratch.path), "app.ts");
      writeFileSync(app, "export default { fetch: () => new Response() };");
      const [bun = ""] = command();
      const serve = [bun, join(project, "src/cli/main.ts"), "serve", app, "--port", "0", "--user", USER];
      await using program = new Program(scratch, serve);
      expect(await program.ended()).toBe(1);
      expect(program.stderr).toContain(
        `tercet: option "user": that user may not read ${app}, which workers load;`,
      );
      await program.leavesNothing();
    });
  });
}

function idOf(user: string): number {
  return Number(execFileSync("id", ["-u", user], { encoding: "utf8" }));
}

/** Those that a user is in beside its own. */
function otherGroups(uid: number): number[] {
  const [own, ...all] = ["-g", "-G"].flatMap((what) =>
    execFileSync("id", [what, String(uid)], { encoding: "utf8" })
      .trim()
      .split(" "),
  );
  return all.filter((group) => group !== own).map(Number);
}

function closedFolder(parent: string): string {
  const path = join(parent, "closed");
  mkdirSync(path, { mode: 0o700 });
  return path;
}

/** One that every user may enter, as /tmp is. */
async function openScratch(): Promise<Scratch> {
  const scratch = await Scratch.make();
  chmodSync(scratch.path, 0o711);
  chmodSync(scratch.run, 0o1777);
  return scratch;
}

function command(): string[] {
  return [join(project, "node_modules/bun/bin/bun.exe"), join(project, "test/fixtures/privileges.ts")];
}

function environment(
  scratch: Scratch,
  options: Record<string, unknown>,
  port: number,
): Record<string, string> {
  const all = { mode: "process", tls: { cert: scratch.cert, key: scratch.key }, workers: 1, ...options };
  return {
    [OPTIONS_VARIABLE]: JSON.stringify(all),
    TERCET_TEST_PORT: String(port),
    TERCET_TEST_KEY: scratch.key,
  };
}

async function privilegedPort(): Promise<number> {
  for (let port = 1023; port > 512; port--) {
    try {
      await bindTcp("127.0.0.1", port);
      await bindUdp("127.0.0.1", port);
      return port;
    } catch {
      // Something has it.
    }
  }
  throw new Error("no port below 1024 is free");
}

/** The project, where every user may read it; else a copy of it. */
function projectForAll(): string {
  if (!IS_ROOT) return ROOT;
  const reads = `require("node:fs").readFileSync(${JSON.stringify(join(ROOT, "src/cli/main.ts"))})`;
  const identity = { uid: idOf(USER), gid: idOf(USER), cwd: "/", env: {} };
  if (spawnSync(process.execPath, ["-e", reads], identity).status === 0) return ROOT;
  const copy = mkdtempSync(join(tmpdir(), "tercet-test-project-"));
  chmodSync(copy, 0o755);
  for (const name of ["package.json", "tsconfig.json", "bin", "src", "test", "node_modules"]) {
    cpSync(join(ROOT, name), join(copy, name), { recursive: true, verbatimSymlinks: true });
  }
  return copy;
}
