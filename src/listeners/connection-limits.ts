/** How many connections there are, and whether one more may be: in all, and from one address. One for all listeners of a reactor. */

export interface ConnectionBounds {
  /** 0 for no limit, as for the next. */
  readonly maxConnections: number;
  readonly maxConnectionsPerAddress: number;
}

export class ConnectionLimits {
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
    const { maxConnections, maxConnectionsPerAddress } = this.#bounds;
    const fromThere = this.#byAddress.get(address) ?? 0;
    if (maxConnections > 0 && this.#count >= maxConnections) return false;
    if (maxConnectionsPerAddress > 0 && fromThere >= maxConnectionsPerAddress) return false;
    this.#byAddress.set(address, fromThere + 1);
    this.#count++;
    return true;
  }

  release(address: string): void {
    const left = (this.#byAddress.get(address) ?? 0) - 1;
    if (left > 0) this.#byAddress.set(address, left);
    else this.#byAddress.delete(address);
    this.#count--;
  }
}

/**
 * The connections of an engine that does not tell of them, by what their requests show: a client's address and port stand
 * for a connection until no request has come from there for as long as an idle one is kept.
 */
export class SeenConnections {
  readonly #limits: ConnectionLimits;
  readonly #keptFor: number;
  /** When the last request came, by address and port. The least recent is the first. */
  readonly #lastSeen = new Map<string, { readonly address: string; at: number }>();

  /** @param keptFor milliseconds */
  constructor(limits: ConnectionLimits, keptFor: number) {
    this.#limits = limits;
    this.#keptFor = keptFor;
  }

  /**
   * A request has come; false where its connection is one too many.
   * @param now milliseconds
   */
  sees(address: string, port: number, now: number): boolean {
    this.#forget(now);
    const name = `${address} ${port}`;
    const known = this.#lastSeen.get(name);
    if (known === undefined && !this.#limits.admit(address)) return false;
    this.#lastSeen.delete(name);
    this.#lastSeen.set(name, { address, at: now });
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
