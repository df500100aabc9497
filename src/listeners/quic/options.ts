/** The engine `quic`'s options in the words of `node:quic`: what it takes, what it ignores, and what stands in for that. */
import { createPrivateKey } from "node:crypto";
import { BlockList, isIPv6 } from "node:net";
import type { SessionOptions, SNIEntry } from "node:quic";
import type { ResolvedQuic } from "../../http3-options.ts";
import { type Certificate, type Certificates, engineHeaderBytes, type ListenerOptions } from "../listener.ts";

/** What the engine tells its clients whatever it is told itself (RFC 9204 §5). */
const ADVERTISED = { qpackMaxTableCapacity: 4096, qpackBlockedStreams: 100 } as const;
/** What it takes in a head before it begins to drop lines; `maxHeaderBytes` counts 32 for each, and is reached before. */
const MAX_HEADER_PAIRS = 65_535;

/**
 * Bytes of a head from which on the engine drops lines and says nothing of it: those that would exceed them, while what
 * fits is still handed on. Where that is more than `maxHeaderBytes` it is a 431 all the same; where one line alone is
 * larger than all this nobody sees that it was there. So there is room also above a small `maxHeaderBytes`.
 */
const MIN_KEPT_HEADER_BYTES = 256 * 1024;

/** Options of the engine that its types leave out. */
type EngineOptions = SessionOptions & { readonly handshakeTimeout: number };

/**
 * @param address to listen on, as a literal
 * @param tls PEM texts
 */
export function engineOptions(
  { maxHeaderBytes }: Pick<ListenerOptions, "maxHeaderBytes">,
  quic: ResolvedQuic,
  address: string,
  port: number,
  tls: Certificates,
): EngineOptions {
  const filter = packetFilter(quic);
  return {
    alpn: ["h3"],
    sni: identities(tls),
    endpoint: {
      address: isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`,
      // Without limits of its own, which it would not tell of.
      maxConnectionsPerHost: 0,
      maxConnectionsTotal: 0,
      ...filter,
    },
    transportParams: {
      initialMaxStreamsBidi: quic.maxConcurrentStreams,
      initialMaxStreamDataBidiRemote: quic.streamWindow,
      initialMaxData: quic.connectionWindow,
      // Seconds, whatever its types say.
      maxIdleTimeout: Math.ceil(quic.idleTimeout / 1000),
      maxUdpPayloadSize: quic.maxDatagramSize,
      maxDatagramFrameSize: 0,
    } as SessionOptions["transportParams"],
    application: {
      maxHeaderPairs: MAX_HEADER_PAIRS,
      maxHeaderLength: Math.max(engineHeaderBytes(maxHeaderBytes), MIN_KEPT_HEADER_BYTES),
      maxFieldSectionSize: quic.maxFieldSectionSize ?? maxHeaderBytes,
      qpackMaxDTableCapacity: quic.qpackMaxTableCapacity,
      qpackBlockedStreams: quic.qpackBlockedStreams,
      enableDatagrams: false,
    },
    handshakeTimeout: quic.handshakeTimeout,
    // What it does when it is told nothing.
    ...(quic.congestionControl === "adaptive" ? {} : { cc: quic.congestionControl }),
    enableEarlyData: quic.earlyData,
    keylog: quic.keylog !== null,
    qlog: quic.qlog !== null,
  };
}

/** What was asked for and the engine does not do, a line each. */
export function ignoredOptions(quic: ResolvedQuic): string[] {
  return Object.entries(ADVERTISED)
    .filter(([name, value]) => quic[name as keyof typeof ADVERTISED] !== value)
    .map(
      ([name, value]) => `http3.${name}: node:quic in Bun ${Bun.version} tells clients ${value} all the same`,
    );
}

/** Addresses that are told apart when their connection is made: what the engine's one list of packets has no room for. */
export function lateBlockList({ allow, block }: Pick<ResolvedQuic, "allow" | "block">): BlockList | null {
  return allow === null || block.length === 0 ? null : blockList(block);
}

function packetFilter({ allow, block }: Pick<ResolvedQuic, "allow" | "block">) {
  if (allow !== null) return { blockList: blockList(allow), blockListPolicy: "allow" } as const;
  return block.length === 0 ? {} : ({ blockList: blockList(block), blockListPolicy: "deny" } as const);
}

function blockList(entries: readonly string[]): BlockList {
  const list = new BlockList();
  for (const entry of entries) {
    const [address = "", prefix] = entry.split("/");
    const family = isIPv6(address) ? "ipv6" : "ipv4";
    if (prefix === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(prefix), family);
  }
  return list;
}

/** By server name; `*` is for every other. */
export function identities(tls: Certificates): Record<string, SNIEntry> {
  return { "*": identity(tls), ...mapValues(tls.sni, identity) };
}

function identity({ cert, key }: Certificate): SNIEntry {
  return { keys: createPrivateKey(key), certs: Buffer.from(cert) };
}

function mapValues<From, To>(record: Readonly<Record<string, From>>, map: (value: From) => To) {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, map(value)]));
}
