/** How many connections there are, and whether one more may be: in all, and from one address. One for all listeners of a reactor. */
import { now } from "../clock.ts";

export interface ConnectionBounds {
  /** 0 for no limit, as for the next. */
  readonly maxConnections: number;
  readonly maxConnectionsPerAddress: number;
}

export class ConnectionLimits {
  /** Told before one is refused: releases those that have ended, where nobody tells when they do. */
  onFull: (() => void) | null = null;
  readonly #bounds: ConnectionBounds;
  readonly #byAddress = new Map<string, number>();
  #count = 0;

  constructor(bounds: ConnectionBounds) {
    this.#bounds = bounds;
  }

  get areSet(): boolean {
    return this.#bounds.maxConnections > 0 || this.#bounds.maxConnectionsPerAddress > 0;
  }

  /** Counts a connection until `release`; false where it may not be. */
  admit(address: string): boolean {
    if (this.#isFull(address)) {
      this.onFull?.();
      if (this.#isFull(address)) return false;
    }
    this.#byAddress.set(address, (this.#byAddress.get(address) ?? 0) + 1);
    this.#count++;
    return true;
  }

  release(address: string): void {
    const left = (this.#byAddress.get(address) ?? 0) - 1;
    if (left > 0) this.#byAddress.set(address, left);
    else this.#byAddress.delete(address);
    this.#count--;
  }

  #isFull(address: string): boolean {
    const { maxConnections, maxConnectionsPerAddress } = this.#bounds;
    if (maxConnections > 0 && this.#count >= maxConnections) return true;
    const fromThere = this.#byAddress.get(address) ?? 0;
    return maxConnectionsPerAddress > 0 && fromThere >= maxConnectionsPerAddress;
  }
}

/**
 * The connections of an engine that does not tell of them, by what their requests show: a client's address and port stand
 * for a connection until no request has come from there for as long as an idle one is kept.
 */
export class SeenConnections {
  readonly #limits: ConnectionLimits;
  readonly #keptFor: number;
  readonly #clock: () => number;
  /** When the last request came, by address and port. The least recent is the first. */
  readonly #lastSeen = new Map<string, { readonly address: string; at: number }>();

  /** @param keptFor milliseconds, as those of the clock */
  constructor(limits: ConnectionLimits, keptFor: number, clock = now) {
    this.#limits = limits;
    this.#keptFor = keptFor;
    this.#clock = clock;
    // Those who come next may all come by another protocol.
    limits.onFull = () => this.#forget(clock());
  }

  /** A request has come; false where its connection is one too many. */
  sees(address: string, port: number): boolean {
    const at = this.#clock();
    this.#forget(at);
    const name = `${address} ${port}`;
    const known = this.#lastSeen.get(name);
    if (known === undefined && !this.#limits.admit(address)) return false;
    this.#lastSeen.delete(name);
    this.#lastSeen.set(name, { address, at });
    return true;
  }

  #forget(now: number): void {
    for (const [name, { address, at }] of this.#lastSeen) {
      if (now - at < this.#keptFor) return;
      this.#lastSeen.delete(name);
      this.#limits.release(address);
    }
  }
}
