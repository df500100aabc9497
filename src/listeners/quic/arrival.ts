/** Requests that are on their way in: their head has come, and it is not known yet whether they have a body. */
import type { ListenerHost } from "../listener.ts";
import type { Reading } from "./body.ts";
import type { QuicExchange } from "./exchange.ts";

/** Requests of these have no body unless they begin one. A CONNECT has an end only behind its answer (RFC 9114 §4.4). */
const BODILESS = new Set(["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"]);
/** Such a request without an end, which may have been lost on its way, is waited for so long. Milliseconds. */
const END_WITHIN = 1000;

/** Hands requests over of which only the stream can tell whether they have a body: bytes come before its end, or not. */
export class Arrivals {
  readonly #host: ListenerHost;
  #undecided: Arrival[] = [];
  readonly #decide = () => {
    const undecided = this.#undecided;
    this.#undecided = [];
    for (const arrival of undecided) arrival.endless();
  };

  constructor(host: ListenerHost) {
    this.#host = host;
  }

  /** Most streams end with their head: of those it is known in the same turn. */
  add(exchange: QuicExchange, reading: Reading): void {
    if (this.#undecided.push(new Arrival(exchange, reading, this.#host)) === 1) setImmediate(this.#decide);
  }
}

class Arrival {
  readonly #exchange: QuicExchange;
  readonly #reading: Reading;
  readonly #host: ListenerHost;
  #decided = false;

  constructor(exchange: QuicExchange, reading: Reading, host: ListenerHost) {
    this.#exchange = exchange;
    this.#reading = reading;
    this.#host = host;
    reading.first.then(
      ({ done }) => this.#decide(!done),
      () => {
        if (!this.#decided) this.#exchange.brokenOff();
      },
    );
  }

  /** In the turn of its head nothing came behind it, unless it is decided. */
  endless(): void {
    if (this.#decided) return;
    // With another method a client may wait for the answer before it begins its body.
    if (BODILESS.has(this.#exchange.method)) setTimeout(() => this.#decide(true), END_WITHIN);
    else this.#decide(true);
  }

  #decide(hasBody: boolean): void {
    if (this.#decided) return;
    this.#decided = true;
    if (this.#exchange.aborted) return;
    if (hasBody) this.#exchange.receive(undefined, this.#reading);
    this.#host.accept(this.#exchange);
  }
}
