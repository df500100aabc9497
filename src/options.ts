/** Every option: its type, unit, default and check. There are no defaults anywhere else. */
import { isIP } from "node:net";
import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { inspect } from "node:util";
import * as v from "valibot";
import type { RequestHead } from "./exchange.ts";
import { isProxyEntry } from "./http/proxy.ts";
import {
  HTTP3_CHECKS,
  HTTP3_NESTED,
  type Http3Options,
  type ResolvedQuic,
  SWOOLE_NAMES,
  type SwooleHttp3Options,
} from "./http3-options.ts";
import { group, KIB, limit, MAX_DELAY, MIB, PEM, text, whole, wholeFrom } from "./option-checks.ts";

/** A wrong option: the message names it, its value and what is allowed. */
export class OptionError extends Error {
  readonly code = "TERCET_OPTION";
  override readonly name = "OptionError";
}

/** Files that the reactor answers by itself. */
export interface StaticOptions {
  /** The folder, relative to the working directory. It must be there at the start; a symbolic link may be switched. */
  root: string;
  /**
   * Paths under it are looked for in `root`; it is taken off first.
   * @default "/"
   */
  prefix?: string;
  /**
   * The file that stands for its folder; false for none.
   * @default "index.html"
   */
  index?: string | false;
  /**
   * Seconds for which caches may use a file without asking again (RFC 9111 §5.2.2.1), 0 to 2^31.
   * @default 0
   */
  maxAge?: number;
  /**
   * Caches need never ask again within `maxAge` (RFC 8246): for names that change with their content.
   * @default false
   */
  immutable?: boolean;
  /**
   * What becomes of names that begin with a dot, but for `/.well-known/` (RFC 8615): `ignore` takes them for not there,
   * `deny` answers 403.
   * @default "ignore"
   */
  dotfiles?: "ignore" | "allow" | "deny";
}

export type ResolvedStatic = Readonly<Required<StaticOptions>>;

/** The content codings that responses are compressed with (RFC 8878, RFC 7932, RFC 1952). */
export type Coding = "zstd" | "br" | "gzip";

/** How the responses of handlers are compressed. */
export interface CompressionOptions {
  /**
   * Those that are offered. Among what a client likes equally the first is taken.
   * @default ["zstd", "br", "gzip"]
   */
  codings?: Coding[];
  /**
   * Bytes below which a body is not worth it, 0 to 2^53 - 1. A body of unknown length always is.
   * @default 1024
   */
  minBytes?: number;
  /**
   * Media types that are compressed, without parameters; `*` stands for anything but a slash. They take the place of the
   * default ones.
   * @default text, JSON, XML, JavaScript, WebAssembly, SVG and uncompressed images and fonts
   */
  types?: string[];
  /**
   * How much effort is spent: 1 to 19 for zstd, 0 to 11 for br, 1 to 9 for gzip.
   * @default { zstd: 3, br: 3, gzip: 4 }
   */
  levels?: { zstd?: number; br?: number; gzip?: number };
}

export type ResolvedCompression = Readonly<
  Required<Omit<CompressionOptions, "levels">> & { levels: Readonly<Record<Coding, number>> }
>;

/** What `request.form()` takes in. All of a form together is bounded by `maxBodyBytes`. */
export interface UploadOptions {
  /**
   * The folder in which each worker makes one of its own, of mode 0700, for the files it receives. It must be there at
   * the start.
   * @default the server's own folder under the system's temporary one
   */
  directory?: string;
  /**
   * Files in one form, 0 to 10000; over it the answer is 413. Inputs in which none was chosen do not count.
   * @default 20
   */
  maxFiles?: number;
  /**
   * Bytes of one file, 0 to 2^53 - 1; over it the answer is 413.
   * @default no other bound than `maxBodyBytes`
   */
  maxFileBytes?: number;
  /**
   * Text fields in one form, 0 to 100000; over it the answer is 413.
   * @default 1000
   */
  maxFields?: number;
  /**
   * Bytes of one text field, its name and its value, 1 to 2^53 - 1; over it the answer is 413.
   * @default 1048576
   */
  maxFieldBytes?: number;
}

export type ResolvedUpload = Readonly<
  Required<Omit<UploadOptions, "directory">> & { directory: string | null }
>;

/** The processes that run what handlers hand over with `server.task` and `server.defer`. */
export interface TasksOptions {
  /**
   * Task worker processes, 1 to 256. Each holds the application once more in memory; more of them are for tasks that compute,
   * since one process computes on one core.
   * @default 1
   */
  workers?: number;
  /**
   * Tasks that one task worker runs at a time, 1 to 10000. One at a time, as in Swoole, so that what a task does to its process
   * it does to no other; more are for tasks that wait for something.
   * @default 1
   */
  concurrency?: number;
  /**
   * Tasks that may wait in each task worker, or in the file of a durable queue, 1 to 1000000; one more is refused with
   * TaskQueueFullError.
   * @default 10000
   */
  maxQueue?: number;
  /**
   * Milliseconds that a task may take where its call says nothing else, 1 to 2^31 - 1. A task worker in which a task computes
   * for longer than it may, and which says nothing for as long, is stuck: it is killed and replaced. 0 for no limit.
   * @default 0
   */
  timeout?: number;
  /**
   * How often a task runs at most where its call says nothing else, 1 to 1000: one in a durable queue, or one that is
   * idempotent and whose task worker died.
   * @default 5
   */
  attempts?: number;
  /**
   * Milliseconds from the first failure of a durable task to its next attempt, 1 to 3600000; twice as many after the second,
   * and so on, to an hour at most.
   * @default 1000
   */
  backoff?: number;
  /**
   * Tasks after which a task worker is replaced (Swoole's `task_max_request`), 1 to 2^53 - 1; each one's own number is up to a
   * tenth lower. 0 for never.
   * @default 0
   */
  maxTasks?: number;
  /**
   * The SQLite file in which tasks are kept until they are done; it is made where there is none, in a folder that must be
   * there. Without it they are kept in the task workers' memory.
   * @default none
   */
  durable?: string;
}

export type ResolvedTasks = Readonly<Required<Omit<TasksOptions, "durable">> & { durable: string | null }>;

/** A worker, as a function for `dispatch` sees it. */
export interface DispatchCandidate {
  /** From 1. */
  readonly id: number;
  /** Requests that it has from this reactor, and has not answered. */
  readonly inFlight: number;
}

/**
 * Names the worker that gets a request, by its id; the request waits until that worker takes more. What is the id of none of
 * them is for the least busy one. It runs in the reactors, which get it as its source: it must use nothing from outside of
 * itself, and be quick.
 */
export type DispatchFunction = (request: RequestHead, workers: readonly DispatchCandidate[]) => unknown;

export interface ServerOptions extends SwooleHttp3Options {
  /**
   * `process`: reactors own the sockets, workers run the handler · `base`: each worker owns sockets of its own, shared by
   * SO_REUSEPORT, and runs the handler in place. That is faster, and a worker that dies takes its connections with it;
   * `reactors` and `dispatch` have nothing to say there, and what holds for a reactor holds for each worker.
   * @default "process"
   */
  mode?: "process" | "base";
  /**
   * Worker processes, 1 to 1024; or the least and the most of them: one more starts when requests have to wait for
   * 20 ms, and the last one leaves when it had none for `workerIdleTimeout`. One number in the mode `base`, where no
   * request is another worker's.
   * @default the number of cores; 1 in the mode `base` with the HTTP/3 engine `quic`, which cannot share a port
   */
  workers?: number | { min: number; max: number };
  /**
   * Milliseconds without a request after which a worker above the least number leaves, 1000 to 2^31 - 1.
   * @default 60000
   */
  workerIdleTimeout?: number;
  /**
   * Which worker gets a request: `least-busy`, and among equals the next in turn · `round-robin`: the next in turn ·
   * `connection`: the same for all requests of a connection · `address`: the same for all of a client's address · or a
   * function. Where that worker has gone, another takes what was its own.
   * @default "least-busy"
   */
  dispatch?: "least-busy" | "round-robin" | "connection" | "address" | DispatchFunction;
  /**
   * Requests that one worker may have at a time, from each reactor, 1 to 1000000; more wait in the reactor, where the
   * next free worker takes them. 0 for no limit.
   * @default 0
   */
  concurrency?: number;
  /**
   * Reactor processes, 1 to 256. They share the port by SO_REUSEPORT.
   * @default 1
   */
  reactors?: number;
  /**
   * The HTTP/3 engine: `native` (or true) for speed, `quic` for every control and every rule, or `off` (or false); the
   * options of `quic` in an object. Needs `tls`.
   * @default "native"
   */
  http3?: "native" | "quic" | "off" | boolean | Http3Options;
  /**
   * Certificate and private key, each a path to a PEM file or the PEM text itself; false for plain HTTP/1.1.
   * @default a self-signed certificate for localhost, kept in the cache folder
   */
  tls?: { cert: string; key: string } | false;
  /**
   * Bytes of a request's head: its target, its host, and each field's name, value and 32 (RFC 9114 §4.2.2). Over it the answer
   * is 431. 1 KiB to 1 MiB. Plain HTTP/1.1 takes 198 fields at most, whatever they measure: the runtime's own bound.
   * @default 65536
   */
  maxHeaderBytes?: number;
  /**
   * Bytes of a request's body. Over it the answer is 413, and where the length was declared no handler is run.
   * 0 to 2^53 - 1.
   * @default 67108864
   */
  maxBodyBytes?: number;
  /**
   * Milliseconds from a request's head until its response must have begun; then the answer is 504. A worker that says
   * nothing for as long (a second at least) is stuck: it is killed and replaced. 0 for no limit.
   * @default 0
   */
  requestTimeout?: number;
  /**
   * Requests after which a worker is replaced, 1 to 2^53 - 1; each worker's own number is up to a tenth lower, so that
   * they are not all replaced at a time. 0 for never.
   * @default 0
   */
  maxRequests?: number;
  /**
   * Bytes of resident memory over which a worker or task worker is replaced, 1 MiB to 2^53 - 1; looked at each second. 0 for never.
   * @default 0
   */
  maxMemory?: number;
  /**
   * How a reload replaces the workers: `all-at-once`, so that no old code answers once new code does; or
   * `one-at-a-time`, which takes the memory of one more worker and not of all.
   * @default "all-at-once"
   */
  reloadStrategy?: "all-at-once" | "one-at-a-time";
  /**
   * Milliseconds that a new worker is given to become ready, and one that it replaces to finish what it has,
   * 0 to 2^31 - 1.
   * @default 30000
   */
  reloadTimeout?: number;
  /**
   * Connections that one reactor may have, 1 to 1000000; one more is closed at once. 0 for no limit. The native HTTP/3
   * engine tells of no connections: there a client's address and port count as one until `keepAliveTimeout` after
   * their last request, and requests of one too many get 503.
   * @default 0
   */
  maxConnections?: number;
  /**
   * The same, for the connections from one address.
   * @default 0
   */
  maxConnectionsPerAddress?: number;
  /**
   * Requests after which a connection is told to come to an end, by `connection: close` on HTTP/1.1 and GOAWAY on HTTP/2
   * and HTTP/3, 1 to 2^53 - 1. 0 for no limit. The native HTTP/3 engine cannot.
   * @default 0
   */
  maxRequestsPerConnection?: number;
  /**
   * Milliseconds without a request after which a connection is closed, 1000 to 255000. HTTP/3's native engine closes one
   * after 60 s at the latest.
   * @default 60000
   */
  keepAliveTimeout?: number;
  /**
   * Exchanges that one reactor may have with its workers at one time, 1 to 1000000. More wait in its queue.
   * @default 10000
   */
  maxExchanges?: number;
  /**
   * Exchanges that may wait in one reactor's queue, 0 to 1000000. One more is answered with 503 and Retry-After.
   * @default 10000
   */
  maxQueue?: number;
  /**
   * Milliseconds that an exchange may be expected to wait in a queue that has not been empty for ten times as long; over it
   * the answer is 503 with Retry-After, at once. 1 to 60000.
   * @default 500
   */
  queueTarget?: number;
  /**
   * Milliseconds that requests in flight are given at shutdown, 0 to 2^31 - 1. Listeners of "shutdown" have what is left of
   * them, three seconds at least.
   * @default 30000
   */
  shutdownTimeout?: number;
  /**
   * Files that reactors answer without waking a worker, for GET and HEAD; several are tried in their order. A path that
   * names no file goes on to the handler.
   * @default none
   */
  static?: StaticOptions | StaticOptions[];
  /**
   * Compresses responses for clients that take it; false for never.
   * @default true
   */
  compression?: boolean | CompressionOptions;
  /** Limits of the forms that `request.form()` reads, and where their files are. */
  upload?: UploadOptions;
  /**
   * Task workers, which run the "task" listener on what handlers hand over. Without it there are none.
   * @default none
   */
  tasks?: TasksOptions;
  /**
   * Addresses, and networks in CIDR notation, of the proxies whose `X-Forwarded-*` and `Forwarded` fields (RFC 7239) are
   * believed: they then tell the client's address, scheme and host.
   * @default none
   */
  trustProxy?: string[];
  /**
   * The folder of the control socket by which `tercet status`, `reload` and `stop` reach the server. It is made where it
   * is not there, and must be this user's own, with the mode 0700.
   * @default `$RUNTIME_DIRECTORY`, which systemd sets; else `tercet-<uid>-<port>` in the temporary folder, or a new one
   * for port 0
   */
  runDirectory?: string;
  /**
   * A file for the manager's process id, locked while it lives, beside the one in the run directory.
   * @default none
   */
  pidFile?: string;
  /**
   * The user, by name or id, that reactors become when they listen, and workers before they load code. The manager
   * stays root, and only root may say it.
   * @default none: every process stays what it is
   */
  user?: string | number;
  /**
   * The group, by name or id, in the same way. Needs `user`, whose other groups are kept.
   * @default the user's own
   */
  group?: string | number;
}

/** Options that were checked, with every default filled in. */
export type ResolvedOptions = Required<
  Omit<
    ServerOptions,
    | "http3"
    | "tls"
    | "static"
    | "compression"
    | "upload"
    | "workers"
    | "runDirectory"
    | "pidFile"
    | "user"
    | "group"
    | "tasks"
    | keyof SwooleHttp3Options
  >
> & {
  readonly runDirectory: string | null;
  readonly pidFile: string | null;
  readonly user: string | null;
  readonly group: string | null;
  readonly workers: { readonly min: number; readonly max: number };
  readonly upload: ResolvedUpload;
  /** Null: no task workers. */
  readonly tasks: ResolvedTasks | null;
  readonly compression: false | ResolvedCompression;
  readonly static: readonly ResolvedStatic[];
  readonly http3: "native" | "quic" | "off";
  /** Those of the HTTP/3 engine `quic`; null with another. */
  readonly quic: ResolvedQuic | null;
  /** Null: the self-signed certificate. */
  readonly tls: { readonly cert: string; readonly key: string } | false | null;
};

/** Characters: a PEM text has more. */
const LONGEST_SHOWN = 100;

const level = (min: number, max: number) => wholeFrom(min, max, `a level from ${min} to ${max}`);

const WORKERS =
  "a whole number of processes from 1 to 1024, or { min, max } of them (2-8 on the command line)";
const TLS = `{ cert, key }, each ${PEM}; or false for plain HTTP/1.1`;

const STATIC = "{ root }, and perhaps prefix, index, maxAge, immutable and dotfiles; or a list of these";
const PREFIX = 'a path such as "/" or "/assets", without "//", "?", "#", "%" or dot segments';
const INDEX = "the name of a file, or false";

const isPlainPath = (path: string) => !/\/\/|[?#%\\]|\/\.\.?(?:\/|$)/.test(path);
const isFileName = (name: string) => name !== "." && name !== ".." && !/[/\\\0]/.test(name);

const STATIC_CHECKS = v.strictObject(
  {
    root: v.pipe(
      text("a path to a folder"),
      v.transform((path) => resolve(path)),
    ),
    prefix: v.pipe(
      v.optional(v.pipe(v.string(PREFIX), v.regex(/^\/[!-~]*$/, PREFIX), v.check(isPlainPath, PREFIX)), "/"),
      // As a path has it before the slash of what follows.
      v.transform((prefix) => prefix.replace(/\/$/, "")),
    ),
    index: v.optional(
      v.union([v.literal(false), v.pipe(text(INDEX), v.check(isFileName, INDEX))], INDEX),
      "index.html",
    ),
    maxAge: v.optional(whole(0, 2 ** 31, "seconds"), 0),
    immutable: v.optional(v.boolean("true or false"), false),
    dotfiles: v.optional(v.picklist(["ignore", "allow", "deny"], '"ignore", "allow" or "deny"'), "ignore"),
  },
  STATIC,
);

const STRATEGY = '"all-at-once" or "one-at-a-time"';
const DISPATCH = '"least-busy", "round-robin", "connection", "address", or a function';
const WORKER_SPAN = v.pipe(
  v.strictObject({ min: wholeFrom(1, 1024, WORKERS), max: wholeFrom(1, 1024, WORKERS) }, WORKERS),
  v.check(({ min, max }) => min <= max, `${WORKERS}, of which min is not above max`),
);

const COMPRESSION = "true, false, or { codings, minBytes, types, levels }, each if wanted";
const CODINGS_ALLOWED = 'some of "zstd", "br" and "gzip", each once';
const MEDIA_TYPE = 'media types such as "text/*" or "application/json", without parameters';
const LEVELS = "{ zstd, br, gzip }, each if wanted";
// What the Media Types registry says to be compressible, by its families.
const COMPRESSED_TYPES = [
  "text/*",
  "application/json",
  "application/*+json",
  "application/x-ndjson",
  "application/xml",
  "application/*+xml",
  "application/javascript",
  "application/wasm",
  "image/*+xml",
  "image/bmp",
  "image/x-icon",
  "image/vnd.microsoft.icon",
  "font/otf",
  "font/ttf",
];

const COMPRESSION_CHECKS = group(
  {
    codings: v.optional(
      v.pipe(
        v.array(v.picklist(["zstd", "br", "gzip"], CODINGS_ALLOWED), CODINGS_ALLOWED),
        v.minLength(1, CODINGS_ALLOWED),
        v.check((codings) => new Set(codings).size === codings.length, CODINGS_ALLOWED),
      ),
      () => ["zstd" as const, "br" as const, "gzip" as const],
    ),
    minBytes: v.optional(whole(0, Number.MAX_SAFE_INTEGER, "bytes"), KIB),
    types: v.optional(
      v.array(
        v.pipe(
          v.string(MEDIA_TYPE),
          v.regex(/^[\w!#$&.+^*-]+\/[\w!#$&.+^*-]+$/, MEDIA_TYPE),
          v.transform((type) => type.toLowerCase()),
        ),
        MEDIA_TYPE,
      ),
      () => [...COMPRESSED_TYPES],
    ),
    levels: v.optional(
      group(
        {
          // RFC 9659 bounds the window, and with it the level.
          zstd: v.optional(level(1, 19), 3),
          br: v.optional(level(0, 11), 3),
          gzip: v.optional(level(1, 9), 4),
        },
        LEVELS,
      ),
      {},
    ),
  },
  COMPRESSION,
);

const UPLOAD = "{ directory, maxFiles, maxFileBytes, maxFields, maxFieldBytes }, each if wanted";
const UPLOAD_CHECKS = group(
  {
    directory: v.optional(
      v.pipe(
        text("a path to a folder"),
        v.transform((path) => resolve(path)),
      ),
    ),
    maxFiles: v.optional(whole(0, 10_000, "files"), 20),
    maxFileBytes: v.optional(whole(0, Number.MAX_SAFE_INTEGER, "bytes"), Number.MAX_SAFE_INTEGER),
    maxFields: v.optional(whole(0, 100_000, "fields"), 1000),
    maxFieldBytes: v.optional(whole(1, Number.MAX_SAFE_INTEGER, "bytes"), MIB),
  },
  UPLOAD,
);

const TASKS =
  "{ workers, concurrency, maxQueue, timeout, attempts, backoff, maxTasks, durable }, each if wanted";
const TASKS_CHECKS = group(
  {
    workers: v.optional(whole(1, 256, "processes"), 1),
    concurrency: v.optional(whole(1, 10_000, "tasks"), 1),
    maxQueue: v.optional(whole(1, 1_000_000, "tasks"), 10_000),
    timeout: v.optional(limit(1, MAX_DELAY, "milliseconds"), 0),
    attempts: v.optional(whole(1, 1000, "attempts"), 5),
    backoff: v.optional(whole(1, 3_600_000, "milliseconds"), 1000),
    maxTasks: v.optional(limit(1, Number.MAX_SAFE_INTEGER, "tasks"), 0),
    durable: v.optional(
      v.pipe(
        text("a path to a file"),
        v.transform((path) => resolve(path)),
      ),
    ),
  },
  TASKS,
);

const PROXIES = 'a list of addresses, and networks in CIDR notation, such as ["127.0.0.1", "10.0.0.0/8"]';
const PROXY = 'an address, or a network in CIDR notation such as "10.0.0.0/8" or "fd00::/8"';

/** What is a name or a number to whoever looks it up. */
const account = (what: string) => {
  const allowed = `the name or the id of a ${what}`;
  const id = v.pipe(wholeFrom(0, 2 ** 32 - 2, allowed), v.transform(String));
  return v.nullish(v.union([v.pipe(text(allowed), v.regex(/^[^\s:/]+$/, allowed)), id], allowed), null);
};
const absolutePath = (allowed: string) =>
  v.nullish(
    v.pipe(
      text(allowed),
      v.transform((path) => resolve(path)),
    ),
    null,
  );

/** Messages of the checks of objects inside of an option. */
const NESTED = new Set<string>([STATIC, COMPRESSION, LEVELS, UPLOAD, WORKERS, TASKS, ...HTTP3_NESTED]);

/** A failed check's message is what is allowed. */
const CHECKS = v.strictObject({
  mode: v.optional(v.picklist(["process", "base"], '"process" or "base"'), "process"),
  workers: v.pipe(
    v.optional(v.union([wholeFrom(1, 1024, WORKERS), WORKER_SPAN], WORKERS), availableParallelism),
    v.transform((workers) => (typeof workers === "number" ? { min: workers, max: workers } : workers)),
  ),
  workerIdleTimeout: v.optional(whole(1000, MAX_DELAY, "milliseconds"), 60_000),
  dispatch: v.optional(
    v.union(
      [
        v.picklist(["least-busy", "round-robin", "connection", "address"]),
        v.custom<DispatchFunction>((given) => typeof given === "function"),
      ],
      DISPATCH,
    ),
    "least-busy",
  ),
  concurrency: v.optional(limit(1, 1_000_000, "requests"), 0),
  reactors: v.optional(whole(1, 256, "processes"), 1),
  http3: HTTP3_CHECKS,
  tls: v.nullish(v.union([v.strictObject({ cert: text(PEM), key: text(PEM) }), v.literal(false)], TLS), null),
  maxHeaderBytes: v.optional(whole(KIB, MIB, "bytes"), 64 * KIB),
  maxBodyBytes: v.optional(whole(0, Number.MAX_SAFE_INTEGER, "bytes"), 64 * MIB),
  requestTimeout: v.optional(whole(0, MAX_DELAY, "milliseconds"), 0),
  maxRequests: v.optional(limit(1, Number.MAX_SAFE_INTEGER, "requests"), 0),
  maxMemory: v.optional(limit(MIB, Number.MAX_SAFE_INTEGER, "bytes"), 0),
  reloadStrategy: v.optional(v.picklist(["all-at-once", "one-at-a-time"], STRATEGY), "all-at-once"),
  reloadTimeout: v.optional(whole(0, MAX_DELAY, "milliseconds"), 30_000),
  maxConnections: v.optional(limit(1, 1_000_000, "connections"), 0),
  maxConnectionsPerAddress: v.optional(limit(1, 1_000_000, "connections"), 0),
  maxRequestsPerConnection: v.optional(limit(1, Number.MAX_SAFE_INTEGER, "requests"), 0),
  keepAliveTimeout: v.optional(whole(1000, 255_000, "milliseconds"), 60_000),
  maxExchanges: v.optional(whole(1, 1_000_000, "exchanges"), 10_000),
  maxQueue: v.optional(whole(0, 1_000_000, "exchanges"), 10_000),
  queueTarget: v.optional(whole(1, 60_000, "milliseconds"), 500),
  shutdownTimeout: v.optional(whole(0, MAX_DELAY, "milliseconds"), 30_000),
  static: v.pipe(
    v.optional(v.unknown(), []),
    v.transform((one) => (Array.isArray(one) ? one : [one])),
    v.array(STATIC_CHECKS),
  ),
  compression: v.pipe(
    v.optional(v.unknown(), true),
    v.transform((given) => (given === true ? {} : given)),
    v.lazy((given) => (given === false ? v.literal(false) : COMPRESSION_CHECKS)),
  ),
  upload: v.pipe(
    v.optional(UPLOAD_CHECKS, {}),
    v.transform((upload) => ({ ...upload, directory: upload.directory ?? null })),
  ),
  tasks: v.pipe(
    v.nullish(TASKS_CHECKS, null),
    v.transform((tasks) => tasks && { ...tasks, durable: tasks.durable ?? null }),
  ),
  trustProxy: v.optional(v.array(v.pipe(v.string(PROXY), v.check(isProxyEntry, PROXY)), PROXIES), () => []),
  runDirectory: absolutePath("a path to a folder"),
  pidFile: absolutePath("a path to a file"),
  user: account("user"),
  group: account("group"),
});

/** @throws OptionError for what holds no options */
export function checkKind(options: unknown): asserts options is object {
  if (typeof options === "object" && options !== null && !Array.isArray(options)) return;
  const shown = Array.isArray(options) ? `a list of ${options.length}` : shownPlain(options);
  throw new OptionError(`the options are ${shown}; they must be an object, such as { workers: 4 }`);
}

/**
 * Checks options and fills in the defaults.
 * @throws OptionError for the first that is wrong
 */
export function resolveOptions(options: ServerOptions): ResolvedOptions {
  checkKind(options);
  const result = v.safeParse(CHECKS, withoutSwooleNames(options));
  if (result.success) {
    const { http3, ...rest } = result.output;
    // The engine takes `reusePort` and binds without it: a second process finds the port in use.
    const alone = 'with the HTTP/3 engine "quic", which cannot share a port';
    if (http3.engine === "quic" && rest.reactors > 1)
      throw wrongOption("reactors", rest.reactors, `1 ${alone}`);
    const isAlone = http3.engine === "quic" && rest.mode === "base";
    if (isAlone && options.workers !== undefined && rest.workers.max > 1)
      throw wrongOption("workers", rest.workers.max, `1 in the mode "base" ${alone}`);
    for (const name of ["maxRequests", "maxMemory"] as const) {
      if (isAlone && rest[name] > 0) throw wrongOption(name, rest[name], `0 in the mode "base" ${alone}`);
    }
    // Who waits there waits for the worker that has its connection, whatever the number of them.
    if (rest.mode === "base" && rest.workers.min < rest.workers.max)
      throw wrongOption("workers", rest.workers, 'one number in the mode "base"');
    const workers = isAlone ? { min: 1, max: 1 } : rest.workers;
    return { ...rest, workers, http3: http3.engine, quic: http3.quic };
  }
  const issue = result.issues[0];
  const name = nameGiven(v.getDotPath(issue) ?? "", options);
  if (issue.type === "strict_object" && NESTED.has(issue.message) && issue.expected !== "Object") {
    // The name is of what is missing in it, or too much.
    throw wrongOption(name.slice(0, name.lastIndexOf(".")), issue.path?.at(-1)?.input, issue.message);
  }
  if (issue.type === "strict_object" && !NESTED.has(issue.message)) {
    const names = Object.keys(CHECKS.entries).join(", ");
    throw new OptionError(`there is no option "${name}"; there are ${names}`);
  }
  throw wrongOption(name, issue.input, issue.message);
}

/** What was checked as a list of one, or as an object of one name, by the name that it was given under. */
function nameGiven(name: string, { static: roots, http3 }: ServerOptions): string {
  if (name === "http3.engine" && typeof http3 === "string") return "http3";
  return Array.isArray(roots) ? name : name.replace(/^static\.0/, "static");
}

/** Moves what has one of Swoole's names to where ours is. */
function withoutSwooleNames(options: ServerOptions): ServerOptions {
  const named: Record<string, unknown> = {};
  const rest: Record<string, unknown> = { ...options };
  for (const [swoole, name] of Object.entries(SWOOLE_NAMES)) {
    const given = rest[swoole];
    // Where it is left out by `undefined`, as any other.
    delete rest[swoole];
    if (given === undefined) continue;
    const engine = typeof options.http3 === "object" ? options.http3?.engine : options.http3;
    if (engine !== "quic") {
      throw new OptionError(`option "${swoole}" is for the HTTP/3 engine "quic", and "http3" is another`);
    }
    named[name] = given;
  }
  if (Object.keys(named).length === 0) return rest;
  const http3 = typeof options.http3 === "object" ? options.http3 : { engine: "quic" };
  return { ...rest, http3: { ...http3, ...named } as Http3Options };
}

/**
 * Checks where to listen.
 * @throws OptionError
 */
export function checkAddress(host: string, port: number): void {
  // A colon is of IPv6 alone, which stands without brackets: the port is the other argument.
  const isHost =
    typeof host === "string" && /^[^\s/\0[\]]+$/.test(host) && (isIP(host) === 6 || !host.includes(":"));
  if (!isHost) {
    throw wrongOption("host", host, "a host name or an IP address, such as 0.0.0.0 or ::1");
  }
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw wrongOption("port", port, "a whole number from 0 to 65535, where 0 lets the system pick");
  }
}

/** A long text is one in the wrong place: a private key, perhaps. */
function shownPlain(value: unknown): string {
  if (typeof value === "string" && value.length > LONGEST_SHOWN)
    return `a text of ${value.length} characters`;
  return inspect(value).replace(/^'(.*)'$/s, '"$1"');
}

function wrongOption(name: string, value: unknown, allowed: string): OptionError {
  // Of an object only names, and numbers: a private key is no text for a terminal or a log.
  if (Array.isArray(value))
    return new OptionError(`option "${name}" is a list of ${value.length}; it must be ${allowed}`);
  const isObject = typeof value === "object" && value !== null;
  const shown = isObject
    ? `{ ${Object.entries(value)
        .map(([key, item]) => (typeof item === "number" ? `${key}: ${item}` : key))
        .join(", ")} }`
    : shownPlain(value);
  return new OptionError(`option "${name}" is ${shown}; it must be ${allowed}`);
}
