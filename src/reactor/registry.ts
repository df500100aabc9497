/** Every exchange of one reactor from its first header to its last byte, and the counts of those that have been. */
import { type ExchangeId, nameOf, PROTOCOLS, type Protocol } from "../exchange.ts";
import type { Flight, FlightState } from "./flight.ts";

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
  /** Answered with 400, 413, 431, 501 or 503 and never dispatched. */
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

const LAST_ID = 0xffff_ffff;

export class Registry {
  readonly #flights = new Map<ExchangeId, Flight>();
  readonly #counts: Readonly<Record<Protocol, ProtocolCounts>> = {
    "HTTP/1.1": noCounts(),
    "HTTP/2": noCounts(),
    "HTTP/3": noCounts(),
  };
  #lastId = 0;

  get size(): number {
    return this.#flights.size;
  }

  nextId(): ExchangeId {
    do {
      this.#lastId = this.#lastId === LAST_ID ? 1 : this.#lastId + 1;
    } while (this.#flights.has(this.#lastId as ExchangeId));
    return this.#lastId as ExchangeId;
  }

  add(flight: Flight): void {
    this.#flights.set(flight.exchange.id, flight);
    this.#counts[flight.protocol].active++;
  }

  get(id: ExchangeId): Flight | undefined {
    return this.#flights.get(id);
  }

  remove(flight: Flight, outcome: Outcome): void {
    this.#flights.delete(flight.exchange.id);
    const counts = this.#counts[flight.protocol];
    counts.active--;
    counts[outcome]++;
  }

  /** Counts an exchange that was refused before it was ever in flight. */
  countRejected(protocol: Protocol): void {
    this.#counts[protocol].rejected++;
  }

  /** In the order of arrival. */
  flights(): IterableIterator<Flight> {
    return this.#flights.values();
  }

  /** Copies, for statistics. */
  counts(): Record<Protocol, ProtocolCounts> {
    return Object.fromEntries(
      PROTOCOLS.map((protocol) => [protocol, { ...this.#counts[protocol] }]),
    ) as Record<Protocol, ProtocolCounts>;
  }

  /** @param now milliseconds since the Unix epoch */
  snapshot(now: number): ExchangeSnapshot[] {
    return Array.from(this.#flights.values(), ({ exchange, state }) => ({
      id: exchange.id,
      name: nameOf(exchange),
      state,
      protocol: exchange.protocol,
      method: exchange.method,
      path: exchange.path,
      age: Math.max(0, Math.round(now - exchange.receivedAt)),
    }));
  }
}

function noCounts(): ProtocolCounts {
  return { active: 0, completed: 0, aborted: 0, failed: 0, rejected: 0 };
}
