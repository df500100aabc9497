/** Options: what they default to, and what is said of a wrong one. */
import { describe, expect, test } from "bun:test";
import { resolve } from "node:path";
import { checkAddress, OptionError, resolveOptions, type ServerOptions } from "../../src/options.ts";
import { Server } from "../../src/server.ts";

describe("options", () => {
  test("fills in the defaults that the documentation states", () => {
    const { workers, ...rest } = resolveOptions({});
    expect(workers.min).toBeGreaterThan(0);
    expect(workers.max).toBe(workers.min);
    expect(rest).toEqual({
      mode: "process",
      workerIdleTimeout: 60_000,
      dispatch: "least-busy",
      concurrency: 0,
      reactors: 1,
      http3: "native",
      quic: null,
      tls: null,
      maxHeaderBytes: 65_536,
      maxBodyBytes: 67_108_864,
      requestTimeout: 0,
      maxRequests: 0,
      maxMemory: 0,
      reloadStrategy: "all-at-once",
      reloadTimeout: 30_000,
      maxConnections: 0,
      maxConnectionsPerAddress: 0,
      maxRequestsPerConnection: 0,
      keepAliveTimeout: 60_000,
      maxExchanges: 10_000,
      maxQueue: 10_000,
      queueTarget: 500,
      shutdownTimeout: 30_000,
      static: [],
      upload: {
        directory: null,
        maxFiles: 20,
        maxFileBytes: Number.MAX_SAFE_INTEGER,
        maxFields: 1000,
        maxFieldBytes: 1_048_576,
      },
      tasks: null,
      trustProxy: [],
      runDirectory: null,
      pidFile: null,
      user: null,
      group: null,
      compression: {
        codings: ["zstd", "br", "gzip"],
        minBytes: 1024,
        types: expect.arrayContaining(["text/*", "application/json"]),
        levels: { zstd: 3, br: 3, gzip: 4 },
      },
    });
  });

  test("fills in those of tasks, where there are any", () => {
    expect(resolveOptions({ tasks: { durable: "tasks.db" } }).tasks).toEqual({
      workers: 1,
      concurrency: 1,
      maxQueue: 10_000,
      timeout: 0,
      attempts: 5,
      backoff: 1000,
      maxTasks: 0,
      durable: resolve("tasks.db"),
    });
  });

  test("takes true and false for http3", () => {
    expect(resolveOptions({ http3: true }).http3).toBe("native");
    expect(resolveOptions({ http3: false }).http3).toBe("off");
  });

  test("fills in the defaults of the engine quic", () => {
    const { http3, quic } = resolveOptions({ http3: "quic" });
    expect(http3).toBe("quic");
    expect(quic).toEqual({
      maxFieldSectionSize: null,
      qpackMaxTableCapacity: 4096,
      qpackBlockedStreams: 100,
      maxConcurrentStreams: 100,
      streamWindow: 1_048_576,
      connectionWindow: 4_194_304,
      idleTimeout: 255_000,
      handshakeTimeout: 10_000,
      congestionControl: "cubic",
      maxDatagramSize: 65_527,
      retry: "never",
      connectionRate: 0,
      handshakeRate: 0,
      maxConnectionsPerAddress: 0,
      allow: null,
      block: [],
      earlyData: false,
      sni: {},
      keylog: null,
      qlog: null,
    });
    expect(resolveOptions({ http3: { engine: "quic", earlyData: true } }).quic?.earlyData).toBe(true);
    const paths = resolveOptions({ http3: { engine: "quic", keylog: "keys.log", qlog: "." } }).quic;
    expect(paths).toMatchObject({ keylog: resolve("keys.log"), qlog: resolve(".") });
    expect(resolveOptions({ http3: { engine: "off" } })).toMatchObject({ http3: "off", quic: null });
  });

  test("one process is alone on a port with the engine quic in the mode base", () => {
    expect(resolveOptions({ http3: "quic", mode: "base" }).workers).toEqual({ min: 1, max: 1 });
  });

  test("takes Swoole's names of three of them", () => {
    const { quic } = resolveOptions({
      http3: { engine: "quic", maxConcurrentStreams: 7 },
      http3_max_field_section_size: 2048,
      http3_qpack_max_table_capacity: 0,
      http3_qpack_blocked_streams: 5,
    });
    expect(quic).toMatchObject({
      maxConcurrentStreams: 7,
      maxFieldSectionSize: 2048,
      qpackMaxTableCapacity: 0,
      qpackBlockedStreams: 5,
    });
    // Left out, as any other option may be.
    const nothing: object = { http3_qpack_blocked_streams: undefined };
    for (const http3 of ["quic", "native"] as const)
      expect(resolveOptions({ http3, ...nothing })).toEqual(resolveOptions({ http3 }));
  });

  const wrong: [unknown, string][] = [
    [null, "the options are null; they must be an object, such as { workers: 4 }"],
    ["quic", 'the options are "quic"; they must be an object, such as { workers: 4 }'],
    [[], "the options are a list of 0; they must be an object, such as { workers: 4 }"],
    [
      { tls: `-----BEGIN PRIVATE KEY-----${"\nx".repeat(60)}` },
      'option "tls" is a text of 147 characters; it must be { cert, key }, each a path',
    ],
    [
      { http3: null, http3_qpack_blocked_streams: 5 },
      'option "http3_qpack_blocked_streams" is for the HTTP/3 engine "quic", and "http3" is another',
    ],
    [{ workers: 0 }, 'option "workers" is 0; it must be a whole number of processes from 1 to 1024'],
    [{ workers: "4" }, 'option "workers" is "4"; it must be a whole number of processes from 1 to 1024'],
    [
      { workers: "8-2" },
      'option "workers" is "8-2"; it must be a whole number of processes from 1 to 1024, or { min, max } of them (2-8',
    ],
    [{ workers: 2.5 }, 'option "workers" is 2.5; it must be a whole number of processes from 1 to 1024'],
    [
      { workers: { min: 2 } },
      'option "workers" is { min: 2 }; it must be a whole number of processes from 1',
    ],
    [{ workers: { min: 0, max: 2 } }, 'option "workers.min" is 0; it must be a whole number of processes'],
    [
      { workers: { min: 3, max: 2 } },
      'option "workers" is { min: 3, max: 2 }; it must be a whole number of processes',
    ],
    [
      { concurrency: -1 },
      'option "concurrency" is -1; it must be a whole number of requests from 1 to 1000000, or 0',
    ],
    [
      { tasks: true },
      'option "tasks" is true; it must be { workers, concurrency, maxQueue, timeout, attempts,',
    ],
    [{ tasks: [] }, 'option "tasks" is a list of 0; it must be { workers, concurrency, maxQueue, timeout,'],
    [
      { tasks: { workers: 0 } },
      'option "tasks.workers" is 0; it must be a whole number of processes from 1 to 256',
    ],
    [
      { tasks: { workrs: 1 } },
      'option "tasks" is { workrs: 1 }; it must be { workers, concurrency, maxQueue,',
    ],
    [{ tasks: { durable: "" } }, 'option "tasks.durable" is ""; it must be a path to a file'],
    [
      { tasks: { attempts: 1001 } },
      'option "tasks.attempts" is 1001; it must be a whole number of attempts from 1',
    ],
    [{ maxMemory: 1000 }, 'option "maxMemory" is 1000; it must be a whole number of bytes from 1048576 to'],
    [
      { dispatch: "random" },
      'option "dispatch" is "random"; it must be "least-busy", "round-robin", "connection"',
    ],
    [
      { reloadStrategy: "now" },
      'option "reloadStrategy" is "now"; it must be "all-at-once" or "one-at-a-time"',
    ],
    [
      { reactors: Number.NaN },
      'option "reactors" is NaN; it must be a whole number of processes from 1 to 256',
    ],
    [
      { workers: { min: 2, max: 8 }, mode: "base" },
      'option "workers" is { min: 2, max: 8 }; it must be one number in the mode "base"',
    ],
    [{ mode: "threads" }, 'option "mode" is "threads"; it must be "process" or "base"'],
    [{ http3: "quick" }, 'option "http3" is "quick"; it must be "native", "quic" or "off"'],
    [{ http3: 3 }, 'option "http3" is 3; it must be "native", "quic", "off", true, false, or { engine }'],
    [
      { http3: { engine: "native", idleTimeout: 1 } },
      'option "http3" is { engine, idleTimeout: 1 }; it must be',
    ],
    [
      { http3: { engine: "quic", idleTime: 1 } },
      'option "http3" is { engine, idleTime: 1 }; it must be { engine: "quic" } and, each if wanted, maxFieldSectionSize, qpack',
    ],
    [
      { http3: { engine: "quic", idleTimeout: 10 } },
      'option "http3.idleTimeout" is 10; it must be a whole number of milliseconds from 1000 to 600000',
    ],
    [
      { http3: { engine: "quic", handshakeTimeout: 16_778 } },
      'option "http3.handshakeTimeout" is 16778; it must be a whole number of milliseconds from 100 to 16777',
    ],
    [
      { http3: { engine: "quic", maxDatagramSize: 1000 } },
      'option "http3.maxDatagramSize" is 1000; it must be a whole number of bytes from 1200 to 65527',
    ],
    [
      { http3: { engine: "quic", congestionControl: "vegas" } },
      'option "http3.congestionControl" is "vegas"; it must be "adaptive", "cubic" or "bbr"',
    ],
    [
      { http3: { engine: "quic", retry: "always" } },
      'option "http3.retry" is "always"; it must be "never": node:quic in Bun sends no Retry packets',
    ],
    [
      { http3: { engine: "quic", ticketKeys: ["a"] } },
      'option "http3.ticketKeys" is a list of 1; it must be left out: node:quic in Bun takes no session-ticket keys',
    ],
    [
      { http3: { engine: "quic", block: ["10.0.0.0/40"] } },
      'option "http3.block.0" is "10.0.0.0/40"; it must be an address',
    ],
    [
      { http3: { engine: "quic", sni: { "a.example": { cert: "c" } } } },
      'option "http3.sni.a.example" is { cert }; it must be { "name": { cert, key } }',
    ],
    [
      { http3: { engine: "quic", sni: [] } },
      'option "http3.sni" is a list of 0; it must be { "name": { cert, key } }',
    ],
    [
      { http3: { engine: "quic", allow: [] } },
      'option "http3.allow" is a list of 0; it must be a list of addresses',
    ],
    [
      { http3: { engine: "quic", sni: { "a b": { cert: "c", key: "k" } } } },
      'it must be { "name": { cert, key } }, with names such as "a.example"',
    ],
    [
      { http3: { engine: "quic", sni: { "127.0.0.1": { cert: "c", key: "k" } } } },
      'option "http3.sni.127.0.0.1" is "127.0.0.1"; it must be { "name": { cert, key } }',
    ],
    [
      {
        http3: {
          engine: "quic",
          sni: { "a.example": { cert: "c", key: "k" }, "A.example": { cert: "c", key: "k" } },
        },
      },
      'option "http3.sni" is { a.example, A.example }; it must be { "name": { cert, key } }',
    ],
    [
      { http3: { engine: "quic", sni: { constructor: { cert: "c", key: "k" } } } },
      'option "http3.sni" is { constructor }; it must be { "name": { cert, key } }',
    ],
    [
      { http3: "quic", reactors: 2 },
      'option "reactors" is 2; it must be 1 with the HTTP/3 engine "quic", which cannot share a port',
    ],
    [
      { http3: "quic", mode: "base", workers: 1, maxRequests: 5 },
      'option "maxRequests" is 5; it must be 0 in the mode "base" with the HTTP/3 engine "quic"',
    ],
    [
      { http3_qpack_blocked_streams: 1 },
      'option "http3_qpack_blocked_streams" is for the HTTP/3 engine "quic", and "http3" is another',
    ],
    [
      { http3: "quic", http3_qpack_blocked_streams: -1 },
      'option "http3.qpackBlockedStreams" is -1; it must be a whole number of streams from 0 to 65535',
    ],
    [{ tls: true }, 'option "tls" is true; it must be { cert, key }, each a path'],
    [
      { tls: { cert: "a", key: 7 } },
      'option "tls" is { cert, key: 7 }; it must be { cert, key }, each a path to a PEM file',
    ],
    [
      { maxHeaderBytes: 10 },
      'option "maxHeaderBytes" is 10; it must be a whole number of bytes from 1024 to 1048576',
    ],
    [{ maxBodyBytes: -1 }, 'option "maxBodyBytes" is -1; it must be a whole number of bytes from 0 to'],
    [
      { requestTimeout: Number.POSITIVE_INFINITY },
      'option "requestTimeout" is Infinity; it must be a whole number',
    ],
    [
      { keepAliveTimeout: 500 },
      'option "keepAliveTimeout" is 500; it must be a whole number of milliseconds from 1000',
    ],
    [{ maxExchanges: null }, 'option "maxExchanges" is null; it must be'],
    [{ static: "public" }, 'option "static" is "public"; it must be { root }, and perhaps prefix, index'],
    [{ static: [{ root: "" }] }, 'option "static.0.root" is ""; it must be a path to a folder'],
    [
      { http3: { engine: "quick" } },
      'option "http3.engine" is "quick"; it must be "native", "quic" or "off"',
    ],
    [{ static: { rot: "a" } }, 'option "static" is { rot }; it must be { root }, and perhaps'],
    [
      { static: { root: "a", size: 1 } },
      'option "static" is { root, size: 1 }; it must be { root }, and perhaps',
    ],
    [{ static: { root: "" } }, 'option "static.root" is ""; it must be a path to a folder'],
    [
      { static: [{ root: "a" }, { root: "b", prefix: "b" }] },
      'option "static.1.prefix" is "b"; it must be a path such as "/" or "/assets"',
    ],
    [{ static: { root: "a", prefix: "/a/../b" } }, 'option "static.prefix" is "/a/../b"; it must be a path'],
    [
      { static: { root: "a", index: "a/b" } },
      'option "static.index" is "a/b"; it must be the name of a file',
    ],
    [
      { static: { root: "a", maxAge: -1 } },
      'option "static.maxAge" is -1; it must be a whole number of seconds',
    ],
    [{ static: { root: "a", dotfiles: "no" } }, 'option "static.dotfiles" is "no"; it must be "ignore"'],
    [
      { trustProxy: ["10.0.0.0/8", "10.0.0.0/33"] },
      'option "trustProxy.1" is "10.0.0.0/33"; it must be an address',
    ],
    [
      { trustProxy: ["localhost"] },
      'option "trustProxy.0" is "localhost"; it must be an address, or a network',
    ],
    [{ trustProxy: "127.0.0.1" }, 'option "trustProxy" is "127.0.0.1"; it must be a list of addresses'],
    [
      { upload: { maxFiles: -1 } },
      'option "upload.maxFiles" is -1; it must be a whole number of files from 0',
    ],
    [{ upload: [] }, 'option "upload" is a list of 0; it must be { directory, maxFiles'],
    [{ upload: { maxSize: 1 } }, 'option "upload" is { maxSize: 1 }; it must be { directory, maxFiles'],
    [{ compression: "yes" }, 'option "compression" is "yes"; it must be true, false, or { codings, minBytes'],
    [{ compression: [] }, 'option "compression" is a list of 0; it must be true, false, or { codings'],
    [{ compression: { levels: [] } }, 'option "compression.levels" is a list of 0; it must be { zstd, br'],
    [{ compression: { level: 3 } }, 'option "compression" is { level: 3 }; it must be true, false, or {'],
    [
      { compression: { codings: ["br", "br"] } },
      'option "compression.codings" is a list of 2; it must be some of',
    ],
    [{ compression: { types: ["text"] } }, 'option "compression.types.0" is "text"; it must be media types'],
    [
      { compression: { levels: { zstd: 20 } } },
      'option "compression.levels.zstd" is 20; it must be a level from 1 to 19',
    ],
    [{ wrokers: 4 }, 'there is no option "wrokers"; there are mode, workers, workerIdleTimeout'],
  ];
  for (const [options, message] of wrong) {
    test(`names the option, the value and what is allowed: ${message}`, () => {
      const resolve = () => resolveOptions(options as ServerOptions);
      expect(resolve).toThrow(OptionError);
      expect(resolve).toThrow(message);
    });
  }

  test("what holds none is told to `set`, too", () => {
    for (const given of ["x", 5, null])
      expect(() => new Server("::", 0).set(given as never)).toThrow("they must be an object");
  });

  test("checks host and port as it checks options", () => {
    expect(() => checkAddress("", 80)).toThrow(
      'option "host" is ""; it must be a host name or an IP address',
    );
    for (const host of ["[::1]", "localhost:80", "::g", "a b", "http://a", "a\0"]) {
      expect(() => checkAddress(host, 80)).toThrow("it must be a host name or an IP address");
    }
    expect(() => checkAddress("localhost", 65_536)).toThrow(
      'option "port" is 65536; it must be a whole number from 0',
    );
    expect(() => checkAddress("localhost", "80" as unknown as number)).toThrow('option "port" is "80"');
    for (const host of ["::1", "::", "fe80::1%eth0", "::ffff:127.0.0.1", "127.0.0.1", "a_b.example"])
      checkAddress(host, 0);
  });
});
