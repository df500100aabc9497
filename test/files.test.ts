/**
 * `response.sendfile` and the static handler: every part of a file to every client, nothing from outside the root, and
 * nothing left open behind it.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { execFileSync } from "node:child_process";
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import tls from "node:tls";
import { type Client, header, type Protocol } from "./support/client.ts";
import { ALL_CLIENTS, HTTP1, HTTP2, QUICHE, QUINN } from "./support/clients.ts";
import { inTime, until } from "./support/poll.ts";
import { residentBytes } from "./support/processes.ts";
import { RawConnection } from "./support/raw-connection.ts";
import { MODE, runCli, runFixture, Scratch, startCli, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { expectCutShort } from "./support/short.ts";
import { IS_SOAK } from "./support/soak.ts";
import { countsOf, othersInFlight, readStats, untilIdle, untilInFlight } from "./support/stats.ts";

setDefaultTimeout(60_000);

const MIB = 1_048_576;
const GIB = 1024 * MIB;
const OLD = new Date("2020-02-02T02:02:02Z");

const scratch = await Scratch.make();
const root = scratch.file("public");
const outside = scratch.file("outside");
const bytes = Buffer.from(Array.from({ length: MIB }, (_, i) => (i * 31 + (i >> 8)) & 0xff));

for (const folder of [root, outside, `${root}/folder`, `${root}/bare`, `${root}/.hidden`, `${root}/page.d`])
  mkdirSync(folder);
// What stands for an index is no file.
mkdirSync(`${root}/bare/below/index.html`, { recursive: true });
const put = (path: string, content: string | Uint8Array) => {
  writeFileSync(path, content);
  utimesSync(path, OLD, OLD);
};
put(`${root}/mib.bin`, bytes);
put(`${root}/index.html`, "the index");
put(`${root}/folder/index.html`, "the folder's index");
put(`${root}/folder/a file ü.txt`, "a name to encode");
put(`${root}/bare/file.txt`, "a file");
put(`${root}/.env`, "a secret");
put(`${root}/.hidden/file.txt`, "a secret");
put(`${root}/Case.txt`, "case");
put(`${root}/caf\u00e9.txt`, "composed");
put(`${root}/aux.txt`, "no device here");
put(`${root}/a:b.txt`, "a colon");
put(`${root}/empty.txt`, "");
put(`${outside}/secret.txt`, "a secret");
put(scratch.file("public-secret.txt"), "a secret");
put(`${root}/back\\slash.txt`, "a secret");
symlinkSync(`${outside}/secret.txt`, `${root}/link-out.txt`);
symlinkSync(outside, `${root}/folder-out`);
symlinkSync("../outside/secret.txt", `${root}/relative-out.txt`);
symlinkSync("../public-secret.txt", `${root}/beside-out.txt`);
symlinkSync("folder/index.html", `${root}/link-in.html`);
symlinkSync("circle", `${root}/circle`);
symlinkSync(`${outside}/secret.txt`, `${root}/index.html.br`);
mkdirSync(`${root}/index.html.gz`);
linkSync(`${root}/Case.txt`, `${root}/hard.txt`);
execFileSync("mkfifo", [`${root}/pipe`]);
put(`${root}/huge.bin`, "");
truncateSync(`${root}/huge.bin`, 2 * GIB);
put(`${root}/large.bin`, "");
truncateSync(`${root}/large.bin`, GIB / 2);

const shared = sharedServer(() =>
  startFixture("files.ts", { scratch, options: { static: { root, maxAge: 60, immutable: true } } }),
);
afterAll(() => scratch[Symbol.dispose]());

const send = (name: string, query = "") => `/send?path=${encodeURIComponent(`${root}/${name}`)}${query}`;

/** Files of the public folder that the reactor has open. */
function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/${pid}/fd/${fd}`);
      return path.startsWith(root) ? [path] : [];
    } catch {
      // Closed since it was listed.
      return [];
    }
  });
}

/** Soon: what was forgotten is closed too, when the garbage is collected. */
async function untilNothingOpen(client: Client): Promise<void> {
  const stats = await untilIdle(client);
  await until("no file to be open", 500, () => openFiles(stats.reactors[0]?.pid ?? 0).length === 0);
}

for (const kind of ALL_CLIENTS) {
  describe(`sendfile, ${kind.name}`, () => {
    test("a whole file, with what describes it", async () => {
      await using client = await kind.open(shared.server);
      for (const path of [send("mib.bin"), "/mib.bin"]) {
        const response = await client.request({ path });
        expect(response.status).toBe(200);
        expect(header(response, "content-length")).toBe(String(MIB));
        expect(header(response, "content-type")).toBe("application/octet-stream");
        expect(header(response, "content-disposition")).toBeUndefined();
        expect(bytes.equals(await response.body.bytes())).toBe(true);
      }
    });

    test("a part by offset and length: with status 200, whatever Range or conditions say", async () => {
      await using client = await kind.open(shared.server);
      const parts = [
        [0, 10],
        [0, undefined],
        [5, 200_000],
        [MIB - 1, undefined],
        [MIB, undefined],
        [7, 0],
        [undefined, 70_000],
      ] as const;
      for (const [offset, length] of parts) {
        const query = `${offset === undefined ? "" : `&offset=${offset}`}${length === undefined ? "" : `&length=${length}`}`;
        const headers = { range: "bytes=1-2", "if-none-match": "*" };
        const response = await client.request({ path: send("mib.bin", query), headers });
        expect(response.status).toBe(200);
        expect(header(response, "etag")).toBeUndefined();
        const from = offset ?? 0;
        const expected = bytes.subarray(from, from + (length ?? MIB));
        expect(expected.equals(await response.body.bytes())).toBe(true);
      }
    });

    test("the handler's status and headers hold", async () => {
      await using client = await kind.open(shared.server);
      const query = "&status=404&x-content-type=text/x-own&x-etag=%22own%22&x-cache-control=no-store";
      for (const name of ["mib.bin", "bare/file.txt"]) {
        const response = await client.request({ path: send(name, query), headers: { range: "bytes=1-2" } });
        expect(response.status).toBe(404);
        expect(header(response, "content-type")).toBe("text/x-own");
        expect(header(response, "cache-control")).toBe("no-store");
        expect((await response.body.bytes()).length).toBe(name === "mib.bin" ? MIB : 6);
      }
      const own = { path: send("mib.bin", "&x-etag=%22own%22"), headers: { "if-none-match": '"own"' } };
      expect((await client.request(own)).status).toBe(304);
    });

    test("what cannot be sent rejects before anything is sent", async () => {
      await using client = await kind.open(shared.server);
      const failures = {
        [send("none")]: "ENOENT",
        [send("mib.bin/none")]: "ENOTDIR",
        [send("folder")]: "EISDIR",
        [send("pipe")]: "EINVAL",
        [send("circle")]: "ELOOP",
        [send("n".repeat(300))]: "ENAMETOOLONG",
        "/send?path=a%00b": "EINVAL",
        "/send?path=/dev/zero": "EINVAL",
        [send("mib.bin", `&offset=${MIB + 1}`)]: "RangeError",
        [send("mib.bin", `&offset=10&length=${MIB}`)]: "RangeError",
        [send("mib.bin", "&offset=-1")]: "RangeError",
        [send("mib.bin", "&length=0.5")]: "RangeError",
      };
      for (const [path, code] of Object.entries(failures)) {
        const response = await client.request({ path });
        expect(response.status).toBe(404);
        expect(await response.body.json<unknown>()).toMatchObject({ code, headSent: false });
      }
    });

    test("a small file and an empty one", async () => {
      await using client = await kind.open(shared.server);
      for (const [name, text] of [
        ["bare/file.txt", "a file"],
        ["empty.txt", ""],
      ]) {
        for (const path of [send(name as string), `/${name}`]) {
          const response = await client.request({ path });
          // The native HTTP/3 engine leaves a length of 0 out.
          const length = header(response, "content-length") ?? (kind.protocol === "HTTP/3" ? "0" : undefined);
          expect(length).toBe(String(text?.length));
          expect(await response.body.text()).toBe(text as string);
        }
      }
    });

    test("a client that leaves: counted as such, and its file is closed", async () => {
      await using client = await kind.open(shared.server);
      await using other = await HTTP1.open(shared.server);
      const before = countsOf(await untilIdle(other), kind.protocol).aborted;
      for (const path of [send("huge.bin"), "/huge.bin", send("huge.bin", "&offset=1")]) {
        const response = await client.request({ path });
        await response.body.read();
        await untilInFlight(other, 1, ({ state }) => state === "responding");
        expect(openFiles((await readStats(other)).reactors[0]?.pid ?? 0)).toEqual([`${root}/huge.bin`]);
        response.body.cancel();
        await untilNothingOpen(other);
      }
      expect(countsOf(await readStats(other), kind.protocol).aborted - before).toBe(3);
    });
  });

  describe(`a file that changes, ${kind.name}`, () => {
    test("made shorter while it is sent: the response is cut short, not padded", async () => {
      await using client = await kind.open(shared.server);
      await using other = await HTTP1.open(shared.server);
      const path = `${root}/shrinks-${ALL_CLIENTS.indexOf(kind)}.bin`;
      writeFileSync(path, "");
      truncateSync(path, GIB);
      const response = await client.request({ path: `/send?path=${path}&offset=1` });
      await response.body.read();
      await expectCutShort(kind.protocol, response.body, () => truncateSync(path, MIB));
      await untilNothingOpen(other);
    });

    test("replaced: what was begun ends as it began, and the next is the new one", async () => {
      await using client = await kind.open(shared.server);
      const name = `replaced-${ALL_CLIENTS.indexOf(kind)}.bin`;
      put(`${root}/${name}`, bytes);
      const first = await client.request({ path: `/${name}` });
      put(`${root}/new`, "new");
      renameSync(`${root}/new`, `${root}/${name}`);
      expect(bytes.equals(await first.body.bytes())).toBe(true);
      const second = await client.request({ path: `/${name}` });
      expect(await second.body.text()).toBe("new");
      expect(header(second, "etag")).not.toBe(header(first, "etag"));
    });
  });
}

describe("the static handler", () => {
  const ask = async (path: string, method = "GET") => {
    await using client = await HTTP1.open(shared.server);
    const response = await client.request({ path, method });
    return { response, status: response.status, text: await response.body.text() };
  };

  test("an index stands for its folder", async () => {
    expect((await ask("/")).text).toBe("the index");
    expect((await ask("/folder/")).text).toBe("the folder's index");
    expect((await ask("/folder/?query=1")).text).toBe("the folder's index");
    expect((await ask("/link-in.html")).text).toBe("the folder's index");
  });

  test("a folder without its slash is redirected to it, with the query (RFC 9110 §15.4.9)", async () => {
    const { response, status } = await ask("/folder?a=b");
    expect(status).toBe(308);
    expect(header(response, "location")).toBe("/folder/?a=b");
  });

  test("names are decoded as UTF-8, octet by octet the file's own", async () => {
    expect((await ask("/folder/a%20file%20%C3%BC.txt")).text).toBe("a name to encode");
    expect((await ask("/c%61se.txt".replace("c", "C"))).text).toBe("case");
    expect((await ask("/caf%C3%A9.txt")).text).toBe("composed");
    expect((await ask("/aux.txt")).text).toBe("no device here");
    expect((await ask("/a:b.txt")).text).toBe("a colon");
    expect((await ask("/hard.txt")).text).toBe("case");
  });

  test("Cache-Control as the options say", async () => {
    const { response } = await ask("/mib.bin", "HEAD");
    expect(header(response, "cache-control")).toBe("max-age=60, immutable");
  });

  test("a sibling that leads outside, or is a folder, is no form of the file", async () => {
    await using client = await HTTP1.open(shared.server);
    const response = await client.request({
      path: "/index.html",
      headers: { "accept-encoding": "br, gzip" },
    });
    expect(header(response, "content-encoding")).toBeUndefined();
    expect(await response.body.text()).toBe("the index");
  });

  /** Sent as they are: a client would normalize them. */
  const ELSEWHERE = [
    "/../outside/secret.txt",
    "/folder/../../outside/secret.txt",
    "/./../outside/secret.txt",
    "/folder/..",
    "/..",
    "/.",
    "/%2e%2e/outside/secret.txt",
    "/%2E%2E%2Foutside%2Fsecret.txt",
    "/..%2foutside/secret.txt",
    "/folder%2findex.html",
    "/folder%2Findex.html",
    "/..%5coutside%5csecret.txt",
    "/folder%5cindex.html",
    "/folder\\index.html",
    "/..\\outside\\secret.txt",
    "/%252e%252e/outside/secret.txt",
    "/%c0%ae%c0%ae/outside/secret.txt",
    "/%uff0e%uff0e/outside/secret.txt",
    "/index.html%00",
    "/index.html%00.txt",
    "/%00",
    "/%",
    "/%zz",
    "/index.html%ff",
    "//outside/secret.txt",
    "//index.html",
    "/folder//index.html",
    "//evil.example/..",
    "/link-out.txt",
    "/relative-out.txt",
    "/beside-out.txt",
    "/back%5Cslash.txt",
    "/folder-out/secret.txt",
    "/folder-out",
    "/circle",
    "/pipe",
    "/.env",
    "/.hidden/file.txt",
    "/%2eenv",
    "/bare",
    "/bare/",
    "/bare/below",
    "/bare/below/",
    "/index.html/",
    "/index.html/x",
    "/case.txt",
    "/CASE.TXT",
    "/cafe%CC%81.txt",
    "/Case.txt.",
    "/Case.txt%20",
    "/Case.txt::$DATA",
    "/Case.txt:stream",
    "/CON",
    "/-secret.txt",
    `/${"n".repeat(256)}`,
    `/${"n/".repeat(3000)}n`,
    `/${"%C3%BC".repeat(128)}`,
  ];
  for (const path of ELSEWHERE) {
    test(`${path.slice(0, 60)} is no file: it goes to the handler`, async () => {
      using raw = await RawConnection.open(shared.server.port);
      raw.send(`GET ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
      const received = await raw.untilClosed();
      expect(received).toStartWith("HTTP/1.1 404 ");
      expect(received).toContain("x-handler: yes");
      expect(received).not.toContain("secret\r\n");
      expect(received).not.toContain("a secret");
    });
  }

  for (const kind of ALL_CLIENTS) {
    test(`the same attacks by ${kind.name} reach nothing outside`, async () => {
      await using client = await kind.open(shared.server);
      for (const path of ELSEWHERE) {
        // What a client refuses to send, or sends as something else, reaches no secret either.
        const response = await client.request({ path }).catch(() => null);
        if (response !== null) expect(await response.body.text()).not.toContain("a secret");
      }
    });
  }
});

for (const mode of ["process", "base"]) {
  test(`bodies that come with requests for static files are read away, in the mode ${mode}`, async () => {
    const options = { mode, static: { root, prefix: "/public" } };
    await using server = await startFixture("files.ts", { options });
    const socket = tls.connect({ port: server.port, rejectUnauthorized: false }).setEncoding("latin1");
    try {
      // It reads nothing until it has sent all it has.
      const send = async (head: string, body = "") => {
        const sent = Promise.withResolvers<void>();
        socket.pause();
        socket.write(`${head} HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`, () =>
          sent.resolve(),
        );
        await inTime(head, 20_000, sent.promise);
        socket.resume();
      };
      let received = 0;
      const answers: string[] = [];
      socket.on("data", (text: string) => {
        received += text.length;
        answers.push(...(text.match(/HTTP\/1\.1 \d+/g) ?? []));
      });
      const body = "x".repeat(16 * MIB);
      await send("POST /public/Case.txt", body);
      await send("GET /public/large.bin", body);
      await until("a part of it", 20_000, () => received > 8 * MIB);
      expect(answers).toEqual(["HTTP/1.1 405", "HTTP/1.1 200"]);
    } finally {
      socket.destroy();
    }
  });
}

describe("options of the static handler", () => {
  test("several roots in their order, prefixes, dot files, and no index", async () => {
    const second = scratch.file("second");
    mkdirSync(second);
    put(`${second}/index.html`, "second");
    put(`${second}/.well-known`, "known");
    const site = scratch.file("site");
    mkdirSync(`${site}/.well-known`, { recursive: true });
    for (const name of [".env", ".well-known/security.txt", ".well-known/.env"]) put(`${site}/${name}`, name);
    const roots = [
      { root: second, prefix: "/a/b/", dotfiles: "allow" },
      { root, prefix: "/a", index: false, dotfiles: "deny" },
      { root: site, prefix: "/site" },
      { root: site },
    ];
    await using server = await startFixture("files.ts", { options: { static: roots } });
    await using client = await HTTP2.open(server);
    const ask = async (path: string) => {
      const response = await client.request({ path });
      return [response.status, await response.body.text()];
    };
    expect(await ask("/a/b/")).toEqual([200, "second"]);
    expect(await ask("/a/b/.well-known")).toEqual([200, "known"]);
    expect(await ask("/a/b/./index.html")).toEqual([404, "the handler: GET"]);
    expect(await ask("/a/b/x/%2e%2e/index.html")).toEqual([404, "the handler: GET"]);
    expect(await ask("/a/b/Case.txt")).toEqual([404, "the handler: GET"]);
    expect(await ask("/a/Case.txt")).toEqual([200, "case"]);
    expect(await ask("/a/.env")).toEqual([403, "403 Forbidden\n"]);
    expect(await ask("/a/.none")).toEqual([403, "403 Forbidden\n"]);
    expect(await ask("/a/folder")).toEqual([404, "the handler: GET"]);
    expect(await ask("/a/")).toEqual([404, "the handler: GET"]);
    expect(await ask("/.well-known/security.txt")).toEqual([200, ".well-known/security.txt"]);
    for (const hidden of ["/.env", "/.well-known/.env", "/site/.well-known/security.txt"])
      expect(await ask(hidden)).toEqual([404, "the handler: GET"]);
    expect(await ask("/ab/Case.txt")).toEqual([404, "the handler: GET"]);
    expect(await ask("/Case.txt")).toEqual([404, "the handler: GET"]);
    const stats = await untilIdle(client);
    expect(countsOf(stats, "HTTP/2").failed).toBe(0);
  });

  test("a root that is a switched link follows it at once", async () => {
    const releases = ["one", "two"].map((name) => {
      mkdirSync(scratch.file(name));
      put(`${scratch.file(name)}/index.html`, name);
      return scratch.file(name);
    });
    const current = scratch.file("current");
    symlinkSync(releases[0] as string, current);
    await using server = await startFixture("files.ts", { options: { static: { root: current } } });
    await using client = await HTTP1.open(server);
    expect(await (await client.request({ path: "/" })).body.text()).toBe("one");
    symlinkSync(releases[1] as string, scratch.file("next"));
    renameSync(scratch.file("next"), current);
    expect(await (await client.request({ path: "/" })).body.text()).toBe("two");
  });

  test("a root that is not there, or is no folder, ends the start with one line", async () => {
    for (const [wrong, why] of [
      ["/no/such/folder", "which is not there"],
      [`${root}/Case.txt`, "which is no folder"],
    ]) {
      await using program = await runFixture("files.ts", { options: { static: { root: wrong } } });
      expect(await program.ended()).not.toBe(0);
      expect(program.stderr).toContain(`option "static" has the root "${wrong}", ${why}`);
    }
    await using program = await runCli("test/fixtures/app.ts", { flags: { static: "/no/such/folder" } });
    expect(await program.ended()).toBe(1);
    expect(program.stderr.trim().split("\n")).toHaveLength(1);
  });

  if (MODE === "process") {
    test("without a descriptor left: 503 with Retry-After, and all is well when there are some again", async () => {
      await using server = await startFixture("files.ts", {
        options: { static: { root, prefix: "/static" } },
      });
      await using client = await HTTP2.open(server);
      const pid = String((await untilIdle(client)).reactors[0]?.pid);
      const get = async (path: string) => {
        const response = await client.request({ path });
        await response.body.bytes();
        return [response.status, header(response, "retry-after")];
      };
      const paths = ["/static/mib.bin", send("mib.bin")];
      const [, soft, hard] =
        /^Max open files +(\d+) +(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, "utf8")) ?? [];
      execFileSync("prlimit", ["--pid", pid, `--nofile=3:${hard}`]);
      for (const path of paths) expect(await get(path)).toEqual([503, "1"]);
      execFileSync("prlimit", ["--pid", pid, `--nofile=${soft}:${hard}`]);
      for (const path of paths) expect(await get(path)).toEqual([200, undefined]);
      expect(countsOf(await untilIdle(client), "HTTP/2").failed).toBe(2);
    });
  }

  test("a file that is replaced all the time: never a head with another file's content, and never 404", async () => {
    let made = 0;
    const replace = () => {
      made++;
      put(`${root}/next`, Buffer.alloc(100_000 + (made % 50) * 1_000, made % 251));
      utimesSync(`${root}/next`, made, made);
      renameSync(`${root}/next`, `${root}/restless.bin`);
    };
    replace();
    await using client = await HTTP2.open(shared.server);
    const until = performance.now() + 1_500;
    const statuses = new Set<number>();
    const read = async (path: string) => {
      while (performance.now() < until) {
        const response = await client.request({ path });
        const body = await response.body.bytes();
        statuses.add(response.status);
        if (response.status !== 200) continue;
        const version = Date.parse(header(response, "last-modified") ?? "") / 1_000;
        expect([body.length, body[0], body.at(-1)]).toEqual([
          100_000 + (version % 50) * 1_000,
          version % 251,
          version % 251,
        ]);
      }
    };
    const readers = ["/restless.bin", send("restless.bin")]
      .flatMap((path) => [path, path, path, path])
      .map(read);
    while (performance.now() < until) {
      replace();
      await Bun.sleep(1);
    }
    await Promise.all(readers);
    expect(statuses.has(200)).toBe(true);
    for (const status of statuses) expect([200, 503]).toContain(status);
  });

  test("--static of the command line", async () => {
    await using server = await startCli("test/fixtures/app.ts", { flags: { static: root } });
    await using client = await QUICHE.open(server);
    expect(await (await client.request({ path: "/folder/" })).body.text()).toBe("the folder's index");
  });
});

describe("a large file by sendfile", () => {
  /** Of what is sent a fifth at the most: a reactor's own heap grows by 35 to 50 MiB at its first gigabytes. */
  const MAY_GROW = 96 * MIB;
  /** Quick clients: quinn by impit takes two minutes, and quiche stalls where its reader pauses, with any server. */
  const byFetch = (protocol: "http1.1" | "http3") => async (path: string) => {
    const tls = { rejectUnauthorized: false };
    const url = `https://127.0.0.1:${shared.server.port}${path}`;
    const response = await fetch(url, { protocol, tls } as RequestInit);
    return response.body as AsyncIterable<Uint8Array>;
  };
  const clients = {
    "HTTP/1.1 by Bun's fetch": byFetch("http1.1"),
    "HTTP/2 by node:http2": async function* (path: string): AsyncGenerator<Uint8Array> {
      await using client = await HTTP2.open(shared.server);
      yield* (await client.request({ path })).body;
    },
    "HTTP/3 by Bun's fetch": byFetch("http3"),
  };
  for (const [name, get] of Object.entries(clients)) {
    // The 2 GiB of one are enough to meet a length that does not fit 31 bits; they take long.
    const [file, size] =
      name.startsWith("HTTP/1.1") || IS_SOAK ? ["huge.bin", 2 * GIB] : ["large.bin", GIB / 2];
    test(`${size / MIB} MiB with flat memory, ${name}`, async () => {
      await using other = await HTTP1.open(shared.server);
      const stats = await untilIdle(other);
      const pids = [stats.reactors[0]?.pid ?? 0, stats.workers[0]?.pid ?? 0];
      const before = pids.map(residentBytes);
      const protocol = name.slice(0, name.indexOf(" ")) as Protocol;
      const completed = countsOf(stats, protocol).completed;
      let length = 0;
      let peak = [0, 0];
      let sampled = 0;
      for await (const chunk of await get(send(file))) {
        length += chunk.length;
        if (length < sampled) continue;
        sampled += 64 * MIB;
        peak = pids.map((pid, i) => Math.max(peak[i] as number, residentBytes(pid) - (before[i] as number)));
      }
      expect(length).toBe(size);
      expect(peak[0]).toBeLessThan(MAY_GROW);
      expect(peak[1]).toBeLessThan(MAY_GROW);
      await untilNothingOpen(other);
      const after = countsOf(await readStats(other), protocol).completed;
      expect(after).toBeGreaterThan(completed);
    });
  }
});

test("nothing was logged as an error, and nothing is in flight", async () => {
  await using client = await QUINN.open(shared.server);
  const stats = await untilIdle(client);
  expect(othersInFlight(stats)).toEqual([]);
  expect(shared.server.stderr).not.toMatch(/\berror in|TypeError/);
});
