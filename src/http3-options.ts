/**
 * The options of HTTP/3: which engine, and for the engine `quic` everything that can be set. Type, unit, default and
 * check of each; there are no defaults anywhere else. How `node:quic` is told is in listeners/quic/options.ts.
 */
import { isIP } from "node:net";
import { resolve } from "node:path";
import * as v from "valibot";
import { isProxyEntry } from "./http/proxy.ts";
import { KIB, MIB, PEM, text, whole } from "./option-checks.ts";

/** QUIC itself can carry no more, bytes (RFC 9000 §18.2). */
const MAX_UDP_PAYLOAD = 65_527;
/** Every QUIC path carries as much, bytes (RFC 9000 §14). */
const MIN_UDP_PAYLOAD = 1200;
/** The engine has 24 bits of microseconds for it, milliseconds; with more it opens no socket, and does not say why. */
const MAX_HANDSHAKE_TIMEOUT = 16_777;

/** The engine `quic`, on `node:quic`: HTTP/3 with every control. */
export interface QuicOptions {
  engine: "quic";
  /**
   * Bytes of a request's field section: each line's name, value and 32 (RFC 9114 §4.2.2). Over it the answer is 431.
   * 1 KiB to 1 MiB; `maxHeaderBytes` holds as well.
   * @default as `maxHeaderBytes`
   */
  maxFieldSectionSize?: number;
  /**
   * Bytes of the dynamic table that clients may have the server keep (RFC 9204 §3.2.3). 0 to 1 MiB.
   * @default 4096
   */
  qpackMaxTableCapacity?: number;
  /**
   * Streams of one connection that may wait for the dynamic table (RFC 9204 §2.1.2). 0 to 65535.
   * @default 100
   */
  qpackBlockedStreams?: number;
  /**
   * Requests that one connection may have open at a time (RFC 9000 §4.6). 1 to 65535.
   * @default 100
   */
  maxConcurrentStreams?: number;
  /**
   * Bytes of a request's body that a client may have under way (RFC 9000 §4.1). 16 KiB to 64 MiB.
   * @default 1048576
   */
  streamWindow?: number;
  /**
   * The same for all streams of a connection together. 16 KiB to 256 MiB.
   * @default 4194304
   */
  connectionWindow?: number;
  /**
   * Milliseconds without a packet from a client after which its connection is given up, whole seconds of them
   * (RFC 9000 §10.1). 1000 to 600000. It counts while a handler works, too; where it is over 30 s, a client of
   * which nothing comes for that long is asked for a sign of life. A connection without requests is closed after
   * `keepAliveTimeout`.
   * @default 255000
   */
  idleTimeout?: number;
  /**
   * Milliseconds within which a client must have finished the handshake. 100 to 16777.
   * @default 10000
   */
  handshakeTimeout?: number;
  /**
   * How fast to send (RFC 9002 §7): CUBIC (RFC 9438), BBR, or by the delay of a connection's handshake one of the two. That
   * delay counts what the server was busy with, too: see docs/guide/http3.md.
   * @default "cubic"
   */
  congestionControl?: "adaptive" | "cubic" | "bbr";
  /**
   * Bytes of the largest UDP datagram that clients may send (RFC 9000 §18.2, `max_udp_payload_size`). 1200 to 65527.
   * @default 65527
   */
  maxDatagramSize?: number;
  /**
   * Whether clients must prove their address before the handshake (RFC 9000 §8.1.2). `node:quic` in Bun sends no Retry
   * packets, so that only `never` is taken.
   * @default "never"
   */
  retry?: "never";
  /**
   * Connections a second that one address may make, in bursts of as many; one more is refused (RFC 9000 §20.1,
   * CONNECTION_REFUSED). 0 to 1000000; 0 for no limit.
   * @default 0
   */
  connectionRate?: number;
  /**
   * The same for all addresses together.
   * @default 0
   */
  handshakeRate?: number;
  /**
   * Connections that one address may have at a time; one more is refused. 0 to 1000000; 0 for no limit.
   * @default 0
   */
  maxConnectionsPerAddress?: number;
  /**
   * Addresses, and networks in CIDR notation, whose packets are taken; those of others are dropped unread.
   * @default all
   */
  allow?: string[];
  /**
   * Addresses, and networks in CIDR notation, whose packets are dropped unread.
   * @default none
   */
  block?: string[];
  /**
   * Takes requests that come before the handshake is done (0-RTT: RFC 9001 §4.6.1, RFC 8470). They could be replays:
   * those with a method that is not safe get 425, the others reach the handler with `request.earlyData`.
   * @default false
   */
  earlyData?: boolean;
  /**
   * Certificates by server name (RFC 6066 §3), beside `tls`, which is for every other name; `*.example.com` is any one
   * label before it. Each as in `tls`. Connections over TCP get them, too.
   * @default none
   */
  sni?: Record<string, { cert: string; key: string }>;
  /**
   * A file to which the secrets of every connection are appended, for tools that decrypt what was captured (NSS key log
   * format). Whoever has it reads everything.
   * @default none
   */
  keylog?: string;
  /**
   * A folder for a file about each connection whose handshake was done (qlog, JSON-SEQ).
   * @default none
   */
  qlog?: string;
}

export type Http3Options = { engine: "native" | "off" } | QuicOptions;

/** With every default filled in. */
export type ResolvedQuic = Readonly<
  Required<Omit<QuicOptions, "engine" | "maxFieldSectionSize" | "allow" | "keylog" | "qlog">>
> & {
  /** Null: as `maxHeaderBytes`. */
  readonly maxFieldSectionSize: number | null;
  /** Null: all. */
  readonly allow: readonly string[] | null;
  readonly keylog: string | null;
  readonly qlog: string | null;
};

/** Swoole's names of three of them, as `server.set` takes them. */
export interface SwooleHttp3Options {
  /** `http3.maxFieldSectionSize` by Swoole's name. */
  http3_max_field_section_size?: number;
  /** `http3.qpackMaxTableCapacity` by Swoole's name. */
  http3_qpack_max_table_capacity?: number;
  /** `http3.qpackBlockedStreams` by Swoole's name. */
  http3_qpack_blocked_streams?: number;
}

/** Swoole's names, and ours. */
export const SWOOLE_NAMES = {
  http3_max_field_section_size: "maxFieldSectionSize",
  http3_qpack_max_table_capacity: "qpackMaxTableCapacity",
  http3_qpack_blocked_streams: "qpackBlockedStreams",
} as const satisfies Record<keyof SwooleHttp3Options, keyof QuicOptions>;

const HTTP3 = '"native", "quic", "off", true, false, or { engine }, for "quic" with options of it';
const ENGINE = '"native", "quic" or "off"';
const CONGESTION = '"adaptive", "cubic" or "bbr"';
const RETRY = '"never": node:quic in Bun sends no Retry packets (RFC 9000 §8.1.2)';
const TICKET_KEYS = "left out: node:quic in Bun takes no session-ticket keys";
const ADDRESSES =
  'a list of addresses, and networks in CIDR notation, such as ["192.0.2.7", "2001:db8::/32"]';
const ADDRESS = 'an address, or a network in CIDR notation such as "192.0.2.0/24"';
const SNI = '{ "name": { cert, key } }, with names such as "a.example" or "*.a.example", each once';
const HOST_NAME =
  /^(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i;

/** What valibot leaves out of records without a word. */
const LEFT_OUT: readonly string[] = ["__proto__", "prototype", "constructor"];

const flag = v.optional(v.boolean("true or false"), false);
const addresses = v.array(v.pipe(v.string(ADDRESS), v.check(isProxyEntry, ADDRESS)), ADDRESSES);

const pathTo = (what: string) =>
  v.pipe(
    text(`a path to ${what}`),
    v.transform((path) => resolve(path)),
  );

const ENGINE_CHECKS = v.strictObject({ engine: v.picklist(["native", "off"], ENGINE) }, HTTP3);

const QUIC_ENTRIES = {
  engine: v.literal("quic", ENGINE),
  maxFieldSectionSize: v.optional(whole(KIB, MIB, "bytes")),
  qpackMaxTableCapacity: v.optional(whole(0, MIB, "bytes"), 4 * KIB),
  qpackBlockedStreams: v.optional(whole(0, 65_535, "streams"), 100),
  maxConcurrentStreams: v.optional(whole(1, 65_535, "streams"), 100),
  streamWindow: v.optional(whole(16 * KIB, 64 * MIB, "bytes"), MIB),
  connectionWindow: v.optional(whole(16 * KIB, 256 * MIB, "bytes"), 4 * MIB),
  idleTimeout: v.optional(whole(1000, 600_000, "milliseconds"), 255_000),
  handshakeTimeout: v.optional(whole(100, MAX_HANDSHAKE_TIMEOUT, "milliseconds"), 10_000),
  congestionControl: v.optional(v.picklist(["adaptive", "cubic", "bbr"], CONGESTION), "cubic"),
  maxDatagramSize: v.optional(whole(MIN_UDP_PAYLOAD, MAX_UDP_PAYLOAD, "bytes"), MAX_UDP_PAYLOAD),
  retry: v.optional(v.literal("never", RETRY), "never"),
  connectionRate: v.optional(whole(0, 1_000_000, "connections a second"), 0),
  handshakeRate: v.optional(whole(0, 1_000_000, "handshakes a second"), 0),
  maxConnectionsPerAddress: v.optional(whole(0, 1_000_000, "connections"), 0),
  allow: v.optional(v.pipe(addresses, v.minLength(1, ADDRESSES))),
  block: v.optional(addresses, () => []),
  earlyData: flag,
  ticketKeys: v.optional(v.undefined(TICKET_KEYS)),
  sni: v.optional(
    v.pipe(
      v.custom<object>((given) => !Array.isArray(given) && namesEachOnce(given), SNI),
      v.record(
        // An address is no name: clients that connect to one name none (RFC 6066 §3).
        v.pipe(
          v.string(SNI),
          v.check((name) => HOST_NAME.test(name) && isIP(name) === 0, SNI),
        ),
        v.strictObject({ cert: text(PEM), key: text(PEM) }, SNI),
        SNI,
      ),
    ),
    () => ({}),
  ),
  keylog: v.optional(pathTo("a file")),
  qlog: v.optional(pathTo("a folder")),
};

const QUIC = `{ engine: "quic" } and, each if wanted, ${Object.keys(QUIC_ENTRIES)
  .filter((name) => name !== "engine" && name !== "ticketKeys")
  .join(", ")}`;
const QUIC_CHECKS = v.strictObject(QUIC_ENTRIES, QUIC);

/** Messages of the checks of objects in here: see `resolveOptions`. */
export const HTTP3_NESTED: readonly string[] = [HTTP3, QUIC, SNI];

/** The same name in another case is the same (RFC 4343). */
function namesEachOnce(given: unknown): boolean {
  const names = Object.keys(given ?? {});
  const isOnce = new Set(names.map((name) => name.toLowerCase())).size === names.length;
  return isOnce && !names.some((name) => LEFT_OUT.includes(name));
}

/** Which engine there is to be, and its options; of the engine `quic` alone there are any. */
export const HTTP3_CHECKS = v.pipe(
  v.optional(v.unknown(), "native"),
  v.transform((given) => {
    if (typeof given === "boolean") return { engine: given ? "native" : "off" };
    return typeof given === "string" ? { engine: given } : given;
  }),
  v.lazy((given) =>
    (given as { engine?: unknown } | null)?.engine === "quic" ? QUIC_CHECKS : ENGINE_CHECKS,
  ),
  v.transform((checked): { engine: "native" | "quic" | "off"; quic: ResolvedQuic | null } => {
    if (checked.engine !== "quic") return { engine: checked.engine, quic: null };
    const { engine, ticketKeys: _, ...quic } = checked;
    const { maxFieldSectionSize = null, allow = null, keylog = null, qlog = null } = quic;
    return { engine, quic: { ...quic, maxFieldSectionSize, allow, keylog, qlog } };
  }),
);
