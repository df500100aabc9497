/**
 * Which connections are taken: limits of each address, and of all together. No sockets and no clock. The engine tells a
 * client's address when the handshake is done, so that the handshake is paid for by then.
 */
import type { BlockList } from "node:net";
import { isIPv6 } from "node:net";
import type { ConnectionLimits } from "../connection-limits.ts";

export interface AdmissionLimits {
  /** Connections a second of one address; 0 for no limit. */
  readonly connectionRate: number;
  /** Connections a second of all addresses; 0 for no limit. */
  readonly handshakeRate: number;
  /** Connections of one address at a time; 0 for no limit. */
  readonly maxConnectionsPerAddress: number;
}

/** How many addresses are remembered before those that need not be are forgotten. */
const SWEEP_FROM = 1024;

/** A bucket of tokens: full to begin with, and filled again at its rate. */
class Bucket {
  readonly #rate: number;
  #tokens: number;
  #filledAt: number;

  /** @param rate a second, and as many at once */
  constructor(rate: number, now: number) {
    this.#rate = rate;
    this.#tokens = rate;
    this.#filledAt = now;
  }

  take(now: number): boolean {
    this.#fill(now);
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }

  isFull(now: number): boolean {
    this.#fill(now);
    return this.#tokens === this.#rate;
  }

  #fill(now: number): void {
    this.#tokens = Math.min(this.#rate, this.#tokens + ((now - this.#filledAt) / 1000) * this.#rate);
    this.#filledAt = now;
  }
}

interface Visitor {
  open: number;
  readonly bucket: Bucket | null;
}

export class Admission {
  readonly #limits: AdmissionLimits;
  /** Of all protocols together. */
  readonly #shared: ConnectionLimits;
  readonly #blocked: BlockList | null;
  readonly #all: Bucket | null;
  readonly #visitors = new Map<string, Visitor>();
  #sweepFrom = SWEEP_FROM;

  /** @param now milliseconds, of whatever clock */
  constructor(limits: AdmissionLimits, shared: ConnectionLimits, blocked: BlockList | null, now: number) {
    this.#limits = limits;
    this.#shared = shared;
    this.#blocked = blocked;
    this.#all = limits.handshakeRate === 0 ? null : new Bucket(limits.handshakeRate, now);
  }

  /** Addresses that are remembered. */
  get size(): number {
    return this.#visitors.size;
  }

  /** Takes a connection, which counts until `release`; or says why not. */
  admit(address: string, now: number): string | null {
    if (this.#blocked?.check(address, isIPv6(address) ? "ipv6" : "ipv4")) return "the address is blocked";
    const visitor = this.#visitorOf(address, now);
    const { maxConnectionsPerAddress } = this.#limits;
    if (maxConnectionsPerAddress > 0 && visitor.open >= maxConnectionsPerAddress) {
      return "too many connections from this address";
    }
    if (visitor.bucket?.take(now) === false) return "connections from this address come too fast";
    if (this.#all?.take(now) === false) return "connections come too fast";
    if (!this.#shared.admit(address)) return "there are too many connections";
    visitor.open++;
    return null;
  }

  release(address: string, now: number): void {
    this.#shared.release(address);
    const visitor = this.#visitors.get(address);
    if (visitor === undefined) return;
    visitor.open--;
    if (isForgettable(visitor, now)) this.#visitors.delete(address);
  }

  #visitorOf(address: string, now: number): Visitor {
    const known = this.#visitors.get(address);
    if (known !== undefined) return known;
    if (this.#visitors.size >= this.#sweepFrom) this.#sweep(now);
    const { connectionRate } = this.#limits;
    const visitor = { open: 0, bucket: connectionRate === 0 ? null : new Bucket(connectionRate, now) };
    this.#visitors.set(address, visitor);
    return visitor;
  }

  #sweep(now: number): void {
    for (const [address, visitor] of this.#visitors) {
      if (isForgettable(visitor, now)) this.#visitors.delete(address);
    }
    this.#sweepFrom = Math.max(SWEEP_FROM, this.#visitors.size * 2);
  }
}

/** A new one would be no different. */
function isForgettable({ open, bucket }: Visitor, now: number): boolean {
  return open === 0 && (bucket === null || bucket.isFull(now));
}
