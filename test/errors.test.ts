/** Bad input of every kind: from handlers, from whoever starts the server, and from clients. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { createSocket } from "node:dgram";
import { appendFileSync, chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { OTHER_CERTIFICATE } from "./support/certificate.ts";
import type { Client } from "./support/client.ts";
import { ALL_CLIENTS, HTTP2 } from "./support/clients.ts";
import { until } from "./support/poll.ts";
import {
  type CliSettings,
  fixture,
  MODE,
  type Program,
  ROOT,
  runCli,
  runFixture,
  Scratch,
  startCli,
  startFixture,
} from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { expectCutShort } from "./support/short.ts";
import { untilIdle } from "./support/stats.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

async function answerTo(client: Client, path: string): Promise<[status: number, text: string]> {
  const response = await client.request({ path });
  return [response.status, await response.body.text()];
}

test("what nobody catches in the manager is in the log, and the server goes on", async () => {
  await using server = await startFixture("throws-in-manager.ts");
  for (const what of ["Error: of the manager's timer", "TaskError: defer: there is nobody to run it"])
    await server.logs(`tercet manager: error that nobody has caught: ${what}`);
  await using client = await HTTP2.open(server);
  expect(await answerTo(client, "/")).toEqual([200, "served"]);
  await server.stop();
});

describe("a handler that throws", () => {
  const shared = sharedServer(() => startFixture("server.ts"));

  for (const kind of ALL_CLIENTS) {
    for (const path of ["/throw", "/throw-async"]) {
      test(`${kind.name}, ${path}: 500 without detail, and a log with all of it`, async () => {
        const { server } = shared;
        await using client = await kind.open(server);
        const before = server.stderr.length;
        const mark = `${path}?by=${encodeURIComponent(kind.name)}`;
        const [status, text] = await answerTo(client, mark);
        expect(status).toBe(500);
        expect(text).not.toMatch(/secret|routes|Error:/);
        await untilIdle(client);
        await server.logs(mark);
        const log = server.stderr.slice(before);
        expect(log).toContain("a secret of the");
        expect(log).toMatch(/at .*routes\.ts:\d+/);
        expect(log).not.toContain(join(ROOT, "src"));
        const line = log.split("\n").find((each) => each.includes(mark)) ?? "";
        expect(line).toContain(`GET ${mark}`);
        expect(line).toMatch(/ \S+:\S+: /);
      });
    }

    test(`${kind.name}: what cannot be shown is a 500 as well`, async () => {
      const { server } = shared;
      await using client = await kind.open(server);
      for (const path of ["/throw-odd", "/throw-cycle"]) {
        const mark = `${path}?by=${encodeURIComponent(kind.name)}`;
        expect((await answerTo(client, mark))[0]).toBe(500);
        await server.logs(`error in GET ${mark}`);
      }
      expect((await answerTo(client, "/hello"))[0]).toBe(200);
    });

    test(`${kind.name}: what nobody catches is in the log, and its worker goes on`, async () => {
      const { server } = shared;
      await using client = await kind.open(server);
      const before = server.stderr.length;
      const first = await answerTo(client, "/throw-elsewhere");
      for (const what of ["timer", "promise"]) {
        const line = `tercet worker 1: error that nobody has caught: Error: a secret of the ${what}\n    at `;
        await until("the line", 5_000, () => expect(server.stderr.slice(before)).toContain(line) ?? true);
      }
      expect(await answerTo(client, "/throw-elsewhere")).toEqual(first);
      expect(first[0]).toBe(200);
    });

    test(`${kind.name}: after the response has begun, it is cut short`, async () => {
      await using client = await kind.open(shared.server);
      const response = await client.request({ path: "/throw-late" });
      expect(response.status).toBe(200);
      await expectCutShort(kind.protocol, response.body, () => {});
      expect((await answerTo(client, "/hello"))[0]).toBe(200);
      await untilIdle(client);
    });
  }

  test.skipIf(MODE === "base")(
    "a header section that is too large for the way to a reactor: its own failure, and nobody else's",
    async () => {
      await using client = await HTTP2.open(shared.server);
      const pid = await answerTo(client, "/pid");
      expect((await answerTo(client, "/fields?count=260&bytes=65000"))[0]).toBe(500);
      await shared.server.logs("a header or trailer section of 16");
      expect(await answerTo(client, "/pid")).toEqual(pid);
    },
  );
});

/** The start failed: one clear line, exit code 1, nothing left. */
async function failedStart(program: Program): Promise<string> {
  expect(await program.ended(20_000)).toBe(1);
  await program.leavesNothing();
  expect(program.stdout).toBe("");
  const lines = program.stderr.trim().split("\n");
  expect(lines).toEqual([expect.stringMatching(/^tercet: /)]);
  return lines[0] ?? "";
}

describe("wrong options", () => {
  const WRONG: [flags: NonNullable<CliSettings["flags"]>, option: string, value: string, allowed: RegExp][] =
    [
      [{ port: 70_000 }, "port", "70000", /0 to 65535/],
      [{ port: "http" }, "port", "http", /0 to 65535/],
      [{ workers: 0 }, "workers", "0", /1 to/],
      [{ workers: "many" }, "workers", "many", /1 to/],
      [{ reactors: 1.5 }, "reactors", "1.5", /whole number/],
      [{ mode: "thread" }, "mode", "thread", /process/],
      [{ http3: "maybe" }, "http3", "maybe", /native.*off/],
      [{ "max-header-bytes": 10 }, "max-?header-?bytes", "10", /1024 to/i],
      [{ "max-body-bytes": -1 }, "max-?body-?bytes", "-1", /0 to/i],
      [{ "request-timeout": "soon" }, "request-?timeout", "soon", /milliseconds/],
      [{ "keep-alive-timeout": 1 }, "keep-?alive-?timeout", "1", /milliseconds/],
      [{ "max-exchanges": 0 }, "max-?exchanges", "0", /1 to/],
      [{ "max-queue": "x" }, "max-?queue", "x", /0 to/],
      [{ "shutdown-timeout": -5 }, "shutdown-?timeout", "-5", /milliseconds/],
      [{ "trust-proxy": "10.0.0.0/8, proxy" }, "trustProxy.1", '"proxy"', /address/],
      [{ host: "" }, "host", '""', /address/],
    ];

  for (const [flags, option, value, allowed] of WRONG) {
    test(`${JSON.stringify(flags)} on the command line`, async () => {
      await using program = await runCli(fixture("app.ts"), { flags });
      const line = await failedStart(program);
      expect(line).toMatch(new RegExp(option, "i"));
      expect(line).toContain(value);
      expect(line).toMatch(allowed);
    });
  }

  test("an unknown option on the command line", async () => {
    await using program = await runCli(fixture("app.ts"), { flags: { wrokers: 3 } });
    expect(await failedStart(program)).toBe("tercet: unknown option '--wrokers' (Did you mean --workers?)");
  });

  test("a certificate for no TLS on the command line", async () => {
    await using program = await runCli(fixture("app.ts"), { flags: { "no-tls": true } });
    expect(await failedStart(program)).toMatch(/"cert" does not go with --no-tls/);
  });

  const IN_CODE: [options: Record<string, unknown>, option: string, value: string, allowed: RegExp][] = [
    [{ workers: -1 }, "workers", "-1", /1 to/],
    [{ maxBodyBytes: "10MB" }, "maxBodyBytes", "10MB", /bytes/],
    [{ http3: "quick" }, "http3", "quick", /native/],
    [{ tls: true }, "tls", "true", /cert/],
    [{ requestTimeOut: 5 }, "requestTimeOut", "requestTimeOut", /requestTimeout/],
    [{ mode: "threads" }, "mode", "threads", /process/],
  ];

  for (const [options, option, value, allowed] of IN_CODE) {
    test(`${JSON.stringify(options)} in code`, async () => {
      await using program = await runFixture("server.ts", { options });
      expect(await program.ended()).toBe(1);
      expect(program.stdout).toBe("");
      expect(program.stderr).toContain(option);
      expect(program.stderr).toContain(value);
      expect(program.stderr).toMatch(allowed);
    });
  }
});

describe("a start that cannot be", () => {
  test("a TCP port in use", async () => {
    await using first = await startCli(fixture("app.ts"));
    for (const http3 of ["native", "off"]) {
      await using second = await runCli(fixture("app.ts"), { flags: { port: first.port, http3 } });
      const line = await failedStart(second);
      expect(line).toContain(String(first.port));
      expect(line).toMatch(/in use/);
    }
    await using client = await HTTP2.open(first);
    expect((await answerTo(client, "/hello"))[0]).toBe(200);
  });

  test("a UDP port in use", async () => {
    const socket = createSocket("udp4");
    const bound = Promise.withResolvers<void>();
    socket.bind(0, "127.0.0.1", () => bound.resolve());
    await bound.promise;
    try {
      const { port } = socket.address();
      for (const http3 of ["native", "quic"]) {
        await using program = await runCli(fixture("app.ts"), { flags: { port, http3 } });
        const line = await failedStart(program);
        expect(line).toContain(String(port));
        expect(line).toMatch(/in use/);
      }
    } finally {
      socket.close();
    }
  });

  test("a host that is not of this machine", async () => {
    await using program = await runCli(fixture("app.ts"), { flags: { host: "192.0.2.1", port: 50_123 } });
    expect(await failedStart(program)).toContain("192.0.2.1");
  });

  test("a host of which there is no address", async () => {
    await using program = await runCli(fixture("app.ts"), { flags: { host: "no-such-host.invalid" } });
    expect(await failedStart(program)).toContain("no-such-host.invalid is no address of this machine");
  });

  const CERTIFICATES: [name: string, change: (scratch: Scratch) => Promise<void>, message: RegExp][] = [
    ["missing", async (scratch) => chmodSync(scratch.key, 0o600), /cert/],
    ["no PEM at all", async (scratch) => writeFileSync(scratch.cert, "not a certificate"), /cert\.pem/],
    ["a key that is no PEM", async (scratch) => writeFileSync(scratch.key, "not a key"), /key\.pem/],
    [
      "an encrypted key",
      async ({ key }) => {
        const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
        const cipher = { cipher: "aes-256-cbc", passphrase: "secret" };
        writeFileSync(key, privateKey.export({ type: "pkcs8", format: "pem", ...cipher }));
      },
      /the key \S+key\.pem is encrypted, and must have no passphrase/,
    ],
    [
      "a broken one behind the first",
      async (scratch) =>
        appendFileSync(scratch.cert, "\n-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"),
      /the certificate \S+cert\.pem cannot be used/,
    ],
    [
      "a key of another certificate",
      async (scratch) => writeFileSync(scratch.key, (await OTHER_CERTIFICATE).key),
      /key\.pem.*cert\.pem/,
    ],
  ];

  for (const [name, change, message] of CERTIFICATES) {
    test(`a certificate: ${name}`, async () => {
      const scratch = await Scratch.make();
      await change(scratch);
      const flags = name === "missing" ? { cert: scratch.file("none.pem") } : {};
      await using program = await runCli(fixture("app.ts"), { scratch, flags });
      const line = await failedStart(program);
      expect(line).toMatch(message);
      if (name === "missing") expect(line).toContain(scratch.file("none.pem"));
    });
  }

  test("no certificate, and no folder to keep one in", async () => {
    const scratch = await Scratch.make();
    writeFileSync(scratch.file("no-folder"), "");
    const env = { XDG_CACHE_HOME: scratch.file("no-folder") };
    await using program = await runCli(fixture("app.ts"), {
      scratch,
      env,
      flags: { cert: false, key: false },
    });
    expect(await failedStart(program)).toContain(scratch.file("no-folder/tercet"));
  });

  test("a certificate without its key", async () => {
    await using program = await runCli(fixture("app.ts"), { flags: { key: false } });
    expect(await failedStart(program)).toMatch(/key/);
  });

  const loadsOf = (scratch: Scratch) =>
    readFileSync(scratch.file("loads"), "latin1").trim().split("\n").length;

  test("a handler module that throws while it loads: no restart loop", async () => {
    const scratch = await Scratch.make();
    await using program = await runCli(fixture("fails-to-load.ts"), {
      scratch,
      flags: { workers: 2 },
      env: { TERCET_TEST_LOADS: scratch.file("loads") },
    });
    const line = await failedStart(program);
    expect(line).toContain("fails-to-load.ts");
    expect(line).toContain("this app does not load");
    expect(loadsOf(scratch)).toBeLessThanOrEqual(3);
  });

  test("a handler module that is not there", async () => {
    await using program = await runCli(fixture("does-not-exist.ts"));
    expect(await failedStart(program)).toContain("does-not-exist.ts");
  });

  test("a handler module without a name, or that is a folder", async () => {
    await using unnamed = await runCli("");
    expect(await failedStart(unnamed)).toBe('tercet: there is no file ""');
    await using folder = await runCli(fixture(""));
    expect(await failedStart(folder)).toMatch(/^tercet: \S+ is a folder: /);
  });

  test("a handler module that throws what is no error: what it looks like", async () => {
    const scratch = await Scratch.make();
    const path = scratch.file("throws.ts");
    writeFileSync(path, 'throw { code: 5, why: "no database" };\n');
    await using program = await runCli(path, { scratch });
    expect(await failedStart(program)).toEndWith("does not load: { code: 5, why: 'no database' }");
  });

  const THROWN: [what: string, told: RegExp][] = [
    ["null", /null$/],
    ['{ code: 5, why: "no database" }', /\{ code: 5, why: 'no database' \}$/],
    ['new TypeError("no database")', /TypeError: no database \(.*lifecycle\.ts:\d+:\d+\)$/],
  ];

  for (const [what, told] of THROWN) {
    test(`a workerStart listener that throws ${what}`, async () => {
      await using program = await runFixture("lifecycle.ts", {
        env: { TERCET_TEST_CASE: "workerStart throws", TERCET_TEST_THROWN: what },
      });
      expect(await program.ended()).toBe(0);
      const [line = ""] = program.stdout.split("\n");
      expect(line).toStartWith("start: StartError: a workerStart listener failed: ");
      expect(line).toMatch(told);
    });
  }

  test("a handler module that does not parse", async () => {
    const scratch = await Scratch.make();
    const path = scratch.file("broken.ts");
    writeFileSync(path, "export default { fetch( => }\n");
    await using program = await runCli(path, { scratch });
    expect(await failedStart(program)).toContain("broken.ts");
  });

  test("a handler module with several faults: the first, and where it is", async () => {
    const scratch = await Scratch.make();
    const path = scratch.file("broken.ts");
    writeFileSync(path, "export default { fetch( }\n");
    await using program = await runCli(path, { scratch });
    expect(await failedStart(program)).toMatch(/does not load: BuildMessage: Expected .*broken\.ts:1:\d+\)$/);
  });

  test("a handler module that never finishes loading: the log says so once, and it is waited for", async () => {
    const scratch = await Scratch.make();
    const path = scratch.file("endless.ts");
    writeFileSync(path, "await new Promise(() => {});\nexport default { fetch() {}, task() {} };\n");
    await using program = await runCli(path, { scratch, flags: { workers: 2, "task-workers": 1 } });
    const told = / (task worker|worker) (\d) \(\d+\) is not ready after 10 s: (.*)$/gm;
    const lines = () =>
      [...program.stderr.matchAll(told)].map(([, kind, id, what]) => `${kind} ${id}: ${what}`);
    const why = `${path} has not finished loading`;
    // In the mode base the first worker finds the port, and the others wait for it.
    const waiting = MODE === "base" ? ["worker 1"] : ["task worker 1", "worker 1", "worker 2"];
    await until("what is awaited", 15_000, () => lines().length === waiting.length);
    expect(lines().toSorted()).toEqual(waiting.map((name) => `${name}: ${why}`));
    expect(program.hasExited).toBe(false);
    await program.stop();
    expect(lines()).toHaveLength(waiting.length);
  });

  test("a handler module without a fetch function", async () => {
    await using program = await runCli(fixture("no-handler.ts"));
    const line = await failedStart(program);
    expect(line).toContain("no-handler.ts");
    expect(line).toContain("fetch");
  });

  test("a script that starts a server itself, in place of a handler module", async () => {
    await using program = await runCli(fixture("events.ts"));
    expect(await failedStart(program)).toMatch(/is run by: npx bun \S+events\.ts \(/);
  });
});
