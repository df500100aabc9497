/** Who the client is, and what it asked for, as the proxies say that are trusted: RFC 7239, and X-Forwarded-*. */
import { BlockList, isIP, isIPv4 } from "node:net";
import { type Fields, nameOfSession, type RequestHead } from "../exchange.ts";
import { fieldValue, listValue } from "./fields.ts";

interface Hop {
  readonly address: string;
  /** 0 where it is not told. */
  readonly port: number;
  readonly scheme: string | undefined;
  readonly host: string | undefined;
}

const MAPPED = /^::ffff:(?=[0-9.]+$)/i;
const NODE = /^(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?$/i;
const HOST = /^(?:[a-z0-9_~!$&'()*+,;=.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?$/i;
/** A parameter of an element, RFC 7239 §4. */
const PAIR =
  /^[ \t]*([!#$%&'*+\-.^_`|~0-9a-z]+)=(?:"((?:\\.|[^"\\])*)"|([!#$%&'*+\-.^_`|~0-9a-z]+))[ \t]*(;|,|$)/i;

/** Addresses, and networks in CIDR notation, that are believed. */
export class TrustedProxies {
  readonly #list = new BlockList();

  /** @param entries such as "127.0.0.1", "10.0.0.0/8" or "fd00::/8"; each is one, by `isProxyEntry` */
  constructor(entries: readonly string[]) {
    for (const entry of entries) {
      const [address = "", prefix] = entry.split("/");
      const family = isIPv4(address) ? "ipv4" : "ipv6";
      if (prefix === undefined) this.#list.addAddress(address, family);
      else this.#list.addSubnet(address, Number(prefix), family);
    }
  }

  has(address: string): boolean {
    const version = isIP(address);
    // An IPv4 address that is mapped to IPv6 is taken for the IPv4 one.
    return version !== 0 && this.#list.check(address, version === 4 ? "ipv4" : "ipv6");
  }

  /** The head as the client made it, where its peer is trusted and says more; otherwise just as it is. */
  clientOf(head: RequestHead): RequestHead {
    if (!this.has(head.remoteAddress)) return head;
    const { fields } = head;
    const hops = forwardedHops(fields);
    if (hops === null) return head;
    // From the nearest on: what stands left of the first that is not trusted, anybody may have written.
    let client: Hop | null = null;
    for (const hop of hops.toReversed()) {
      if (isIP(hop.address) === 0) break;
      client = hop;
      if (!this.has(hop.address)) break;
    }
    // A proxy may tell of scheme and host alone.
    const told = client ?? hops.at(-1);
    if (told === undefined) return head;
    const scheme = told.scheme?.toLowerCase();
    const isKnown = scheme === "http" || scheme === "https";
    return {
      protocol: head.protocol,
      method: head.method,
      scheme: isKnown ? scheme : head.scheme,
      authority: told.host !== undefined && HOST.test(told.host) ? told.host : head.authority,
      path: head.path,
      fields,
      receivedAt: head.receivedAt,
      remoteAddress: client?.address ?? head.remoteAddress,
      remotePort: client === null ? head.remotePort : client.port,
      localPort: head.localPort,
      // By which the reactor names the exchange, too.
      session: nameOfSession(head),
      stream: head.stream,
      sendsInterim: head.sendsInterim,
      sendsTrailers: head.sendsTrailers,
    };
  }
}

export function isProxyEntry(entry: string): boolean {
  const [address = "", prefix, ...more] = entry.split("/");
  const version = isIP(address);
  if (version === 0 || more.length > 0 || address.includes("%")) return false;
  return (
    prefix === undefined || (/^[0-9]{1,3}$/.test(prefix) && Number(prefix) <= (version === 4 ? 32 : 128))
  );
}

/**
 * The hops in the order of the fields, the nearest last; null where no field tells of any. `Forwarded` counts only
 * without `X-Forwarded-For`: most proxies write the latter, and let through what a client sends as the former.
 */
function forwardedHops(fields: Fields): readonly Hop[] | null {
  const addresses = listOf(fields, "x-forwarded-for");
  if (addresses.length > 0 || fieldValue(fields, "forwarded") === undefined) {
    const schemes = listOf(fields, "x-forwarded-proto");
    const hosts = listOf(fields, "x-forwarded-host");
    if (addresses.length === 0) {
      if (schemes.length === 0 && hosts.length === 0) return null;
      return [{ ...nodeOf(""), scheme: schemes.at(-1), host: hosts.at(-1) }];
    }
    // Lists of one length were written by the same hops. Of another only the nearest proxy's own word is known.
    const of = (list: readonly string[], i: number) =>
      list.length === addresses.length ? list[i] : list.at(-1);
    return addresses.map((node, i) => ({ ...nodeOf(node), scheme: of(schemes, i), host: of(hosts, i) }));
  }
  const hops: Hop[] = [];
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === "forwarded") hops.push(...parseForwarded(fields[i + 1] as string));
  }
  return hops;
}

/** The elements of a `Forwarded` value; none where it is malformed. */
function parseForwarded(value: string): Hop[] {
  const hops: Hop[] = [];
  let element: Record<string, string> = Object.create(null);
  for (let rest = value; rest !== ""; ) {
    const match = PAIR.exec(rest);
    if (match === null) return [];
    const [whole, name = "", quoted, token = "", separator] = match;
    rest = rest.slice(whole.length);
    element[name.toLowerCase()] = quoted === undefined ? token : quoted.replaceAll(/\\(.)/g, "$1");
    if (separator === ";") continue;
    hops.push({ ...nodeOf(element.for ?? ""), scheme: element.proto, host: element.host });
    element = Object.create(null);
  }
  return hops;
}

/** An address with or without a port; the address is empty for "unknown", a name of the proxy's own, and garbage. */
function nodeOf(text: string): Pick<Hop, "address" | "port"> {
  if (isIP(text) !== 0) return { address: text.replace(MAPPED, ""), port: 0 };
  const [, ipv6, ipv4, port = "0"] = NODE.exec(text) ?? [];
  const address = ipv6 ?? ipv4 ?? "";
  if (isIP(address) === 0 || Number(port) > 65_535) return { address: "", port: 0 };
  return { address: address.replace(MAPPED, ""), port: Number(port) };
}

function listOf(fields: Fields, name: string): string[] {
  const items = listValue(fields, name)?.split(",") ?? [];
  return items.map((item) => item.trim());
}
