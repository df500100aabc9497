/** Exchanges by protocol and outcome since the server was started, also those of processes that have ended. No I/O. */
import { PROTOCOLS, type Protocol } from "../exchange.ts";
import { noCounts, type ProtocolCounts } from "../reactor/registry.ts";

type Counts = Readonly<Record<Protocol, ProtocolCounts>>;

export class Totals {
  /** Of processes that have ended. */
  readonly #ended = noCounts();
  /** What each of the others said last. */
  readonly #heard = new Map<object, Counts>();

  /** @param counts since this process was started */
  heard(process: object, counts: Counts): void {
    this.#heard.set(process, counts);
  }

  /** What the process had in flight, as far as it was heard, has failed. */
  ended(process: object): void {
    const last = this.#heard.get(process);
    if (last === undefined) return;
    this.#heard.delete(process);
    add(last, this.#ended);
    for (const counts of Object.values(this.#ended)) {
      counts.failed += counts.active;
      counts.active = 0;
    }
  }

  /** Of all there are and have been. */
  sum(): Record<Protocol, ProtocolCounts> {
    const sum = noCounts();
    for (const counts of [this.#ended, ...this.#heard.values()]) add(counts, sum);
    return sum;
  }
}

function add(counts: Counts, to: Record<Protocol, ProtocolCounts>): void {
  for (const protocol of PROTOCOLS) {
    const { active, completed, aborted, failed, rejected } = counts[protocol];
    const sum = to[protocol];
    sum.active += active;
    sum.completed += completed;
    sum.aborted += aborted;
    sum.failed += failed;
    sum.rejected += rejected;
  }
}
