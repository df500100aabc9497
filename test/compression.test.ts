/** Compressed responses in both forms of a handler, over every protocol. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import https from "node:https";
import {
  brotliDecompressSync,
  createBrotliDecompress,
  createGunzip,
  createZstdDecompress,
  gunzipSync,
  zstdDecompressSync,
} from "node:zlib";
import { pathOf, textOf } from "./fixtures/compression-routes.ts";
import { type Client, type ClientResponse, header, type ResponseBody } from "./support/client.ts";
import {
  ALL_CLIENTS,
  type ClientKind,
  HTTP1,
  QUINN,
  RESETTING_CLIENTS,
  SLOW_CLIENTS,
} from "./support/clients.ts";
import { isCutShort } from "./support/http3-quinn-client.ts";
import { inTime, until } from "./support/poll.ts";
import { residentBytes } from "./support/processes.ts";
import { fixture, startCli, startFixture } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import { readStats, untilIdle } from "./support/stats.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const MIB = 1_048_576;
const WHOLE = { zstd: zstdDecompressSync, br: brotliDecompressSync, gzip: gunzipSync } as const;
const STREAMED = { zstd: createZstdDecompress, br: createBrotliDecompress, gzip: createGunzip } as const;
type Coding = keyof typeof WHOLE;
const CODINGS = Object.keys(WHOLE) as Coding[];

const event = sharedServer(() => startFixture("compression.ts"));
const fetch = sharedServer(() => startCli(fixture("compression-fetch.ts")));
const FORMS = { event, fetch };

/** The body as it was before its coding. `quinn` decodes by itself, and leaves the header as it came. */
async function decoded(kind: ClientKind, response: ClientResponse): Promise<string> {
  const bytes = await response.body.bytes();
  const coding = header(response, "content-encoding") as Coding | undefined;
  if (coding === undefined || kind === QUINN) return Buffer.from(bytes).toString();
  return WHOLE[coding](bytes).toString();
}

/** A streamed body as a text, read as far as a pattern. */
class Reader {
  #text = "";
  readonly #chunks: AsyncIterator<Uint8Array>;

  constructor(kind: ClientKind, coding: Coding, body: ResponseBody) {
    this.#chunks = kind === QUINN ? body[Symbol.asyncIterator]() : decodedChunks(coding, body);
  }

  async until(pattern: RegExp): Promise<string> {
    const read = async () => {
      while (!pattern.test(this.#text)) {
        const { done, value } = await this.#chunks.next();
        if (done) throw new Error(`the body ended with ${JSON.stringify(this.#text)}`);
        this.#text += Buffer.from(value).toString();
      }
      return this.#text;
    };
    return inTime(`${pattern} to be received`, 5_000, read());
  }
}

async function* decodedChunks(coding: Coding, body: ResponseBody): AsyncGenerator<Uint8Array> {
  const decoder = STREAMED[coding]();
  const pieces: Uint8Array[] = [];
  decoder.on("data", (piece: Uint8Array) => pieces.push(piece));
  for (let chunk = await body.read(); chunk !== null; chunk = await body.read()) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    decoder.once("error", reject);
    decoder.write(chunk, () => resolve());
    await promise;
    decoder.off("error", reject);
    // What the decoder has made of the chunk is told in a later turn.
    await new Promise(setImmediate);
    yield Buffer.concat(pieces.splice(0));
  }
}

for (const kind of ALL_CLIENTS) {
  for (const [form, shared] of Object.entries(FORMS)) {
    describe(`${kind.name}, ${form} form`, () => {
      const ask = async (
        client: Client,
        made: Parameters<typeof pathOf>[0],
        coding: string,
        method = "GET",
      ) => client.request({ path: pathOf(made), method, headers: { "accept-encoding": coding } });

      test("a whole body comes in the coding that was asked for, with the length of what is sent", async () => {
        await using client = await kind.open(shared.server);
        for (const coding of CODINGS) {
          const response = await ask(client, { bytes: 20_000 }, coding);
          expect(header(response, "content-encoding")).toBe(coding);
          expect(header(response, "vary")).toBe("accept-encoding");
          expect(Number(header(response, "content-length"))).toBeLessThan(10_000);
          expect(await decoded(kind, response)).toBe(textOf(20_000));
        }
      });

      test("a large body and a body in pieces come whole, without a length", async () => {
        await using client = await kind.open(shared.server);
        for (const coding of CODINGS) {
          for (const made of [
            { bytes: 2 * MIB },
            { bytes: 700_000, pieces: 7 },
            { bytes: 2 * MIB, pieces: 2 },
          ]) {
            const response = await ask(client, made, coding);
            expect(header(response, "content-encoding")).toBe(coding);
            expect(header(response, "content-length")).toBeUndefined();
            const text = await decoded(kind, response);
            expect(text.length).toBe(made.bytes);
            expect(text === textOf(made.bytes)).toBe(true);
          }
        }
      });

      test("HEAD says what GET would, but for the length", async () => {
        await using client = await kind.open(shared.server);
        const response = await ask(client, { bytes: 20_000 }, "br", "HEAD");
        expect(await response.body.text()).toBe("");
        expect(header(response, "content-encoding")).toBe("br");
        expect(header(response, "vary")).toBe("accept-encoding");
        expect(header(response, "content-length")).toBeUndefined();
      });

      test("what is small, or switched off, goes out as it is, and does not vary", async () => {
        await using client = await kind.open(shared.server);
        for (const made of [{ bytes: 1023 }, { compress: false }, { compress: false, pieces: 3 }]) {
          const response = await ask(client, made, "zstd");
          expect(header(response, "content-encoding")).toBeUndefined();
          expect(header(response, "vary")).toBeUndefined();
          expect(await response.body.text()).toBe(textOf(made.bytes ?? 20_000));
        }
      });
    });
  }

  describe(kind.name, () => {
    for (const coding of CODINGS) {
      test(`each event and each write arrives at once: ${coding}`, async () => {
        await using client = await kind.open(event.server);
        await using other = await HTTP1.open(event.server);
        for (const path of ["events", "written"]) {
          const name = `${kind.name}-${coding}-${path}`.replaceAll(/\W/g, "");
          const headers = { "accept-encoding": coding };
          const response = await client.request({ path: `/${path}?${name}`, headers });
          expect(header(response, "content-encoding")).toBe(coding);
          const reader = new Reader(kind, coding, response.body);
          if (path === "written") await reader.until(/begun/);
          for (let i = 0; i < 5; i++) {
            await (await other.request({ path: `/send?${name}&number${i}` })).body.bytes();
            await reader.until(new RegExp(`number${i}`));
          }
          await (await other.request({ path: `/close?${name}` })).body.bytes();
          response.body.cancel();
        }
      });
    }
  });
}

test("a file by sendfile goes out as it is, to HEAD as to GET", async () => {
  await using client = await HTTP1.open(event.server);
  const path = `/file?${encodeURIComponent(fixture("compression.ts"))}`;
  for (const method of ["GET", "HEAD"]) {
    const response = await client.request({ path, method, headers: { "accept-encoding": "br" } });
    expect([response.status, header(response, "content-encoding")]).toEqual([200, undefined]);
    expect(Number(header(response, "content-length"))).toBeGreaterThan(1024);
  }
});

test("trailers follow a compressed body", async () => {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const target = { host: "127.0.0.1", port: event.server.port, path: "/trailers", rejectUnauthorized: false };
  https.get({ ...target, headers: { "accept-encoding": "zstd" } }, resolve).on("error", reject);
  const response = await inTime("a response", 5_000, promise);
  const chunks: Uint8Array[] = [];
  for await (const chunk of response) chunks.push(chunk);
  expect(response.headers["content-encoding"]).toBe("zstd");
  expect(zstdDecompressSync(Buffer.concat(chunks))).toHaveLength(300_000);
  expect(response.trailers).toEqual({ "x-sum": "abc" });
});

describe("a client that leaves", () => {
  for (const kind of RESETTING_CLIENTS) {
    test(`frees what its compressed stream held: ${kind.name}`, async () => {
      await using other = await HTTP1.open(event.server);
      const look = async () =>
        (await other.request({ path: "/left" })).body.json<{ left: number; memory: number }>();
      const leave = async (count: number) => {
        for (let done = 0; done < count; done += 20) {
          await using client = await kind.open(event.server);
          const hold = async () => {
            const response = await client.request({ path: "/held", headers: { "accept-encoding": "br" } });
            expect(header(response, "content-encoding")).toBe("br");
            await response.body.read();
            response.body.cancel();
          };
          await Promise.all(Array.from({ length: 20 }, hold));
        }
      };
      const { left } = await look();
      await leave(60);
      const before = await until("those who came first to leave", 5_000, async () => {
        const now = await look();
        return now.left === left + 60 && now;
      });
      await leave(300);
      const after = await until("all to leave", 5_000, async () => {
        const now = await look();
        return now.left === left + 360 && now;
      });
      // A context of half a megabyte each would be 150 MiB.
      expect(after.memory - before.memory).toBeLessThan(48 * MIB);
      await untilIdle(other);
    });

    test(`before the response breaks nothing: ${kind.name}`, async () => {
      await using other = await HTTP1.open(event.server);
      const before = event.server.stdout.length;
      const client = await kind.open(event.server);
      const leaving = new AbortController();
      const asked = client.request({
        path: "/late",
        headers: { "accept-encoding": "gzip" },
        signal: leaving.signal,
      });
      asked.catch(() => {});
      await until("the request to arrive", 5_000, async () => {
        const { reactors } = await readStats(other);
        return reactors.some(({ exchanges }) => exchanges.some(({ path }) => path === "/late"));
      });
      leaving.abort();
      await client.close();
      await until("its answer", 5_000, () => event.server.stdout.slice(before).includes("answered nobody"));
      await untilIdle(other);
      expect(event.server.stderr).not.toMatch(/error/i);
    });
  }
});

/** Has a response read slowly, with the memory of reactor and worker held to a bound. */
async function readSlowly(kind: ClientKind): Promise<void> {
  await using server = await startFixture("compression.ts");
  await using client = await kind.open(server);
  await using other = await HTTP1.open(server);
  for (let i = 0; i < 20; i++) {
    const path = pathOf({ bytes: 400_000, pieces: 4 });
    await (await other.request({ path, headers: { "accept-encoding": "zstd" } })).body.bytes();
  }
  const stats = await readStats(other);
  const pids = [stats.reactors[0]?.pid ?? 0, stats.workers[0]?.pid ?? 0];
  const before = pids.map(residentBytes);
  const grown = [0, 0];
  // quinn takes zstd for cut short far more often, twice in some thirty.
  const coding = kind === QUINN ? "gzip" : "zstd";
  const headers = { "accept-encoding": coding };
  const response = await client.request({ path: `/digits?${128 * MIB}`, headers });
  expect(header(response, "content-encoding")).toBe(coding);
  const decoder = createZstdDecompress();
  const hash = createHash("sha256");
  const hashed = kind === QUINN ? null : decoder.on("data", (piece: Uint8Array) => hash.update(piece));
  const began = performance.now();
  let bytes = 0;
  for await (const chunk of response.body) {
    bytes += chunk.length;
    if (hashed === null) hash.update(chunk);
    else if (!decoder.write(chunk)) await new Promise((resolve) => decoder.once("drain", resolve));
    for (const [i, pid] of pids.entries())
      grown[i] = Math.max(grown[i] ?? 0, residentBytes(pid) - (before[i] ?? 0));
    // What this client decodes by itself counts as what came: half of it.
    const received = kind === QUINN ? bytes / 2 : bytes;
    const early = began + received / 20_000 - performance.now();
    if (early > 0) await Bun.sleep(early);
  }
  if (hashed !== null) await new Promise((resolve) => decoder.once("end", resolve).end());
  await server.prints(`sent ${hash.digest("hex")}`);
  expect(kind === QUINN ? bytes / 2 : bytes).toBeWithin(60 * MIB, 80 * MIB);
  expect(Math.max(...grown)).toBeLessThan(48 * MIB);
  expect(server.stderr).not.toMatch(/error/i);
}

describe("128 MiB, compressed to half, at 20 MB/s", () => {
  for (const kind of SLOW_CLIENTS) {
    test.concurrent(`neither reactor nor worker grows: ${kind.name}`, () =>
      readSlowly(kind).catch((error: unknown) => {
        if (kind !== QUINN || !isCutShort(error)) throw error;
        return readSlowly(kind);
      }));
  }
});

describe("options", () => {
  const headers = { "accept-encoding": "gzip, br, zstd" };

  test("codings in the server's order, a size, types and levels", async () => {
    const compression = {
      codings: ["br", "gzip"],
      minBytes: 1000,
      types: ["application/*+x"],
      levels: { br: 0 },
    };
    await using server = await startFixture("compression.ts", { options: { compression } });
    await using client = await HTTP1.open(server);
    const ask = async (type: string, bytes: number, accepted = "gzip, br, zstd") => {
      const path = pathOf({ bytes, fields: [["content-type", type]] });
      return client.request({ path, headers: { "accept-encoding": accepted } });
    };
    const own = await ask("Application/vnd.a+X; v=1", 20_000);
    expect(header(own, "content-encoding")).toBe("br");
    const fast = (await own.body.bytes()).length;
    await using thorough = await startFixture("compression.ts", {
      options: { compression: { ...compression, levels: { br: 9 } } },
    });
    await using another = await HTTP1.open(thorough);
    const path = pathOf({ fields: [["content-type", "application/vnd.a+x"]] });
    const slow = (await (await another.request({ path, headers })).body.bytes()).length;
    expect(slow).toBeLessThan(fast);
    expect(header(await ask("application/a+x", 1000), "content-encoding")).toBe("br");
    expect(header(await ask("application/a+x", 999), "content-encoding")).toBeUndefined();
    expect(header(await ask("text/plain", 20_000), "content-encoding")).toBeUndefined();
    expect(header(await ask("application/a+x", 20_000, "zstd"), "content-encoding")).toBeUndefined();
  });

  test("false: nothing is compressed, and nothing varies", async () => {
    await using server = await startCli(fixture("compression-fetch.ts"), {
      flags: { "no-compression": true },
    });
    await using client = await HTTP1.open(server);
    const response = await client.request({ path: pathOf({}), headers });
    expect(header(response, "content-encoding")).toBeUndefined();
    expect(header(response, "vary")).toBeUndefined();
    expect(await response.body.text()).toBe(textOf(20_000));
  });
});
