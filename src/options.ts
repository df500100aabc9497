/** Every option: its type, unit, default and check. There are no defaults anywhere else. */
import { availableParallelism } from "node:os";
import { inspect } from "node:util";
import * as v from "valibot";

const KIB = 1024;
const MIB = 1024 * KIB;
/** `setTimeout`'s own bound, milliseconds. */
const MAX_DELAY = 2 ** 31 - 1;

/** A wrong option: the message names it, its value and what is allowed. */
export class OptionError extends Error {
  readonly code = "TERCET_OPTION";
  override readonly name = "OptionError";
}

export interface ServerOptions {
  /**
   * `process`: reactors own the sockets, workers run the handler.
   * @default "process"
   */
  mode?: "process";
  /**
   * Worker processes, 1 to 1024.
   * @default the number of cores
   */
  workers?: number;
  /**
   * Reactor processes, 1 to 256. They share the port by SO_REUSEPORT.
   * @default 1
   */
  reactors?: number;
  /**
   * The HTTP/3 engine: `native` (or true), or `off` (or false). Needs `tls`.
   * @default "native"
   */
  http3?: "native" | "off" | boolean;
  /**
   * Certificate and private key, each a path to a PEM file or the PEM text itself; false for plain HTTP/1.1.
   * @default a self-signed certificate for localhost, kept in the cache folder
   */
  tls?: { cert: string; key: string } | false;
  /**
   * Bytes of a request's head: its target, and each field's name, value and 32 (RFC 9114 §4.2.2). Over it the answer
   * is 431. 1 KiB to 1 MiB.
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
   * Milliseconds from a request's head until its response must have begun; then the answer is 504. 0 for no limit.
   * @default 0
   */
  requestTimeout?: number;
  /**
   * Milliseconds without a request after which a connection is closed, 1000 to 255000: HTTP/3's native engine counts
   * no further.
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
   * @default 1000
   */
  maxQueue?: number;
  /**
   * Milliseconds that requests in flight are given at shutdown, 0 to 2^31 - 1.
   * @default 30000
   */
  shutdownTimeout?: number;
}

/** Options that were checked, with every default filled in. */
export type ResolvedOptions = Required<Omit<ServerOptions, "http3" | "tls">> & {
  readonly http3: "native" | "off";
  /** Null: the self-signed certificate. */
  readonly tls: { readonly cert: string; readonly key: string } | false | null;
};

function whole(min: number, max: number, unit: string) {
  const allowed = `a whole number of ${unit} from ${min} to ${max}`;
  return v.pipe(v.number(allowed), v.integer(allowed), v.minValue(min, allowed), v.maxValue(max, allowed));
}

const text = (allowed: string) => v.pipe(v.string(allowed), v.nonEmpty(allowed));
const PEM = "a path to a PEM file, or PEM text";
const TLS = `{ cert, key }, each ${PEM}; or false for plain HTTP/1.1`;
const HTTP3 = '"native", "off", true or false';

/** A failed check's message is what is allowed. */
const CHECKS = v.strictObject({
  mode: v.optional(v.picklist(["process"], '"process"'), "process"),
  workers: v.optional(whole(1, 1024, "processes"), availableParallelism),
  reactors: v.optional(whole(1, 256, "processes"), 1),
  http3: v.pipe(
    v.optional(v.union([v.picklist(["native", "off"]), v.boolean()], HTTP3), "native"),
    v.transform((engine) => (engine === true ? "native" : engine === false ? "off" : engine)),
  ),
  tls: v.nullish(v.union([v.strictObject({ cert: text(PEM), key: text(PEM) }), v.literal(false)], TLS), null),
  maxHeaderBytes: v.optional(whole(KIB, MIB, "bytes"), 64 * KIB),
  maxBodyBytes: v.optional(whole(0, Number.MAX_SAFE_INTEGER, "bytes"), 64 * MIB),
  requestTimeout: v.optional(whole(0, MAX_DELAY, "milliseconds"), 0),
  keepAliveTimeout: v.optional(whole(1000, 255_000, "milliseconds"), 60_000),
  maxExchanges: v.optional(whole(1, 1_000_000, "exchanges"), 10_000),
  maxQueue: v.optional(whole(0, 1_000_000, "exchanges"), 1000),
  shutdownTimeout: v.optional(whole(0, MAX_DELAY, "milliseconds"), 30_000),
});

/**
 * Checks options and fills in the defaults.
 * @throws OptionError for the first that is wrong
 */
export function resolveOptions(options: ServerOptions): ResolvedOptions {
  const result = v.safeParse(CHECKS, options);
  if (result.success) return result.output;
  const issue = result.issues[0];
  const name = v.getDotPath(issue) ?? "";
  if (issue.type === "strict_object") {
    const names = Object.keys(CHECKS.entries).join(", ");
    throw new OptionError(`there is no option "${name}"; there are ${names}`);
  }
  throw wrongOption(name, issue.input, issue.message);
}

/**
 * Checks where to listen.
 * @throws OptionError
 */
export function checkAddress(host: string, port: number): void {
  if (typeof host !== "string" || host === "" || /[\s/]/.test(host)) {
    throw wrongOption("host", host, "a host name or an IP address, such as 0.0.0.0 or ::1");
  }
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw wrongOption("port", port, "a whole number from 0 to 65535, where 0 lets the system pick");
  }
}

function wrongOption(name: string, value: unknown, allowed: string): OptionError {
  // Of an object only the names: a private key is no text for a terminal or a log.
  const isObject = typeof value === "object" && value !== null;
  const shown = isObject
    ? `{ ${Object.keys(value).join(", ")} }`
    : inspect(value).replace(/^'(.*)'$/s, '"$1"');
  return new OptionError(`option "${name}" is ${shown}; it must be ${allowed}`);
}
