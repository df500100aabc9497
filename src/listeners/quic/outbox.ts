/**
 * Sends the responses of one turn in one flush. Outside of its own callbacks `node:quic` sends what each call makes in a
 * datagram of its own: two a response, and half the speed. Inside of one, what all calls make leaves together. There is
 * no callback to be had for the asking, but one: a stream that is given a body before its head cannot send it, and the
 * engine says so (`onblocked`), within a millisecond or with the next packet. In there the whole batch is sent.
 */
import type { ResponseHead } from "../../exchange.ts";

/** Fewer responses than this go out at once, each by itself: the callback costs a little, and up to a millisecond. */
const BATCH_FROM = 4;
/**
 * Milliseconds that the engine has for its callback. For a stream of a connection whose congestion window is full there is
 * none: a client that acknowledges nothing would hold up all others.
 */
const CALLED_WITHIN = 20;

export interface Sender {
  send(head: ResponseHead, body: Uint8Array | null): void;
  /** False where the engine takes no body any more; `blocked` is not called then. */
  sendBodyFirst(body: Uint8Array, blocked: () => void): boolean;
  sendHeadLast(head: ResponseHead): void;
  /** There was no callback in time. */
  notCalled(): void;
}

export interface Letter<AnySender extends Sender> {
  readonly exchange: AnySender;
  readonly head: ResponseHead;
  readonly body: Uint8Array | null;
}

export class Outbox<AnySender extends Sender> {
  #letters: Letter<AnySender>[] = [];
  #scheduled = false;
  /** Its body is with the engine, whose callback the others wait for. */
  #carrier: Letter<AnySender> | null = null;
  #timer: NodeJS.Timeout | undefined;
  readonly #flush = () => {
    this.#scheduled = false;
    this.flush();
  };
  readonly #blocked = () => this.#deliver();
  readonly #late = () => {
    this.#carrier?.exchange.notCalled();
    this.#deliver();
  };

  /** It leaves at the end of this turn of the event loop, or a moment later. */
  add(letter: Letter<AnySender>): void {
    this.#letters.push(letter);
    if (this.#scheduled || this.#carrier !== null) return;
    this.#scheduled = true;
    setImmediate(this.#flush);
  }

  /** The stream of an exchange has closed: the engine will not call for it. */
  gone(exchange: AnySender): void {
    if (this.#carrier?.exchange === exchange) this.#deliver();
  }

  flush(): void {
    if (this.#carrier !== null) return;
    if (this.#letters.length < BATCH_FROM || !this.#findCarrier()) this.#sendAll();
  }

  #findCarrier(): boolean {
    for (let i = 0; i < this.#letters.length; i++) {
      const letter = this.#letters[i] as Letter<AnySender>;
      if (letter.body === null || letter.body.length === 0) continue;
      if (!letter.exchange.sendBodyFirst(letter.body, this.#blocked)) continue;
      this.#letters.splice(i, 1);
      this.#carrier = letter;
      this.#timer = setTimeout(this.#late, CALLED_WITHIN);
      return true;
    }
    return false;
  }

  #deliver(): void {
    const carrier = this.#carrier;
    if (carrier === null) return;
    this.#carrier = null;
    clearTimeout(this.#timer);
    carrier.exchange.sendHeadLast(carrier.head);
    this.#sendAll();
  }

  #sendAll(): void {
    const letters = this.#letters;
    this.#letters = [];
    for (const { exchange, head, body } of letters) exchange.send(head, body);
  }
}
