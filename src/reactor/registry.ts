/** Every exchange of one process from its first header to its last byte, and the counts of those that have been. */
import { type Exchange, type ExchangeId, nameOf, PROTOCOLS, type Protocol } from "../exchange.ts";
import type { FlightState } from "./flight.ts";

/** What a registry keeps: an exchange, and how far it is. */
export interface Registered {
  readonly exchange: Exchange;
  readonly protocol: Protocol;
  readonly state: FlightState;
}

/** How an exchange ended. `rejected`: never dispatched, for it was malformed, too large, or one too many. */
export type Outcome = "completed" | "aborted" | "failed" | "rejected";

export interface ProtocolCounts {
  /** Exchanges in flight. */
  active: number;
  /** Answered to the last byte. */
  completed: number;
  /** The client went away or reset the stream. */
  aborted: number;
  /** Ended by a worker's death, a timeout or a broken response. */
  failed: number;
  /** Answered with 400, 413, 417, 425, 431, 501 or 503 and never dispatched. */
  rejected: number;
}

export interface ExchangeSnapshot {
  readonly id: number;
  /** `session id:stream id` */
  readonly name: string;
  readonly state: FlightState;
  readonly protocol: Protocol;
  readonly method: string;
  readonly path: string;
  /** Milliseconds since the head had arrived. */
  readonly age: number;
}

/** The one above it says something else where a worker notes what it runs (wire/progress.ts). */
const LAST_ID = 0xffff_fffe;
/** A power of two. */
const INITIAL_SLOTS = 1024;

export class Registry<Flight extends Registered> {
  /** Each flight has the slot that the low bits of its id say: a third of what a Map costs, on every request. */
  #slots: (Flight | undefined)[] = new Array(INITIAL_SLOTS).fill(undefined);
  #size = 0;
  readonly #counts: Readonly<Record<Protocol, ProtocolCounts>> = noCounts();
  #lastId: number;

  /** @param lastId the one that was given last */
  constructor(lastId = 0) {
    this.#lastId = lastId;
  }

  get size(): number {
    return this.#size;
  }

  nextId(): ExchangeId {
    do {
      this.#lastId = this.#lastId === LAST_ID ? 1 : this.#lastId + 1;
    } while (this.#slots[this.#slotOf(this.#lastId)] !== undefined);
    return this.#lastId as ExchangeId;
  }

  add(flight: Flight): void {
    while (
      this.#size * 2 >= this.#slots.length ||
      this.#slots[this.#slotOf(flight.exchange.id)] !== undefined
    ) {
      this.#grow();
    }
    this.#slots[this.#slotOf(flight.exchange.id)] = flight;
    this.#size++;
    this.#counts[flight.protocol].active++;
  }

  get(id: ExchangeId): Flight | undefined {
    const flight = this.#slots[this.#slotOf(id)];
    return flight !== undefined && flight.exchange.id === id ? flight : undefined;
  }

  remove(flight: Flight, outcome: Outcome): void {
    this.#slots[this.#slotOf(flight.exchange.id)] = undefined;
    this.#size--;
    const counts = this.#counts[flight.protocol];
    counts.active--;
    counts[outcome]++;
  }

  /** Counts an exchange that never was in here. */
  count(protocol: Protocol, outcome: Outcome): void {
    this.#counts[protocol][outcome]++;
  }

  /** Those there are now, in no order; safe to remove from meanwhile. */
  flights(): Flight[] {
    return this.#slots.filter((flight) => flight !== undefined);
  }

  /** Copies, for statistics. */
  counts(): Record<Protocol, ProtocolCounts> {
    return Object.fromEntries(
      PROTOCOLS.map((protocol) => [protocol, { ...this.#counts[protocol] }]),
    ) as Record<Protocol, ProtocolCounts>;
  }

  /** @param now milliseconds since the Unix epoch */
  snapshot(now: number): ExchangeSnapshot[] {
    return this.flights().map(({ exchange, state }) => ({
      id: exchange.id,
      name: nameOf(exchange),
      state,
      protocol: exchange.protocol,
      method: exchange.method,
      path: exchange.path,
      age: Math.max(0, Math.round(now - exchange.receivedAt)),
    }));
  }

  #slotOf(id: number): number {
    return id & (this.#slots.length - 1);
  }

  #grow(): void {
    const flights = this.flights();
    this.#slots = new Array(this.#slots.length * 2).fill(undefined);
    for (const flight of flights) this.#slots[this.#slotOf(flight.exchange.id)] = flight;
  }
}

export function noCounts(): Record<Protocol, ProtocolCounts> {
  const counts = () => ({ active: 0, completed: 0, aborted: 0, failed: 0, rejected: 0 });
  return { "HTTP/1.1": counts(), "HTTP/2": counts(), "HTTP/3": counts() };
}
