/** One exchange as its reactor keeps it: how far it is, which worker has it, and what each direction may still send. */
import type { Exchange, Fields, Protocol } from "../exchange.ts";
import { ReceiveWindow, SendWindow } from "../wire/window.ts";
import type { WorkerLink } from "./worker-link.ts";

/** `queued`: no worker has it · `dispatched`: one has, and has not answered · `responding`: the response has begun. */
export type FlightState = "queued" | "dispatched" | "responding";

export class Flight {
  readonly exchange: Exchange;
  readonly protocol: Protocol;
  state: FlightState = "queued";
  link: WorkerLink | null = null;
  /** The body, where it is so small (or empty) that it goes with the head, and again with the head of a second run. */
  wholeBody: Uint8Array | null = null;
  /** The body is on its way to the worker, piece by piece. */
  pumping = false;
  /** Some of the body was read and is not kept: the request can't run again. */
  bodyConsumed = false;
  /** Nobody wants the rest of the body any more. */
  bodyDropped = false;
  /** Workers that have died with it. */
  deaths = 0;
  /** When its time began to run: its arrival, or the last time that a worker had died with it. Milliseconds. */
  since: number;
  /** Completed, failed or aborted: no longer in the registry. */
  over = false;
  /** The worker has sent the last of the response; the client has not yet taken it. */
  responseEnded = false;
  /** Follow the response's body. */
  trailers: Fields | null = null;
  /** Bytes of response that the sink holds and the client has not taken. */
  unconsumed = 0;
  /** Set while the request's body waits for credit or for a worker. */
  wake: (() => void) | null = null;
  #sendWindow: SendWindow | null = null;
  #receiveWindow: ReceiveWindow | null = null;

  constructor(exchange: Exchange) {
    this.exchange = exchange;
    this.protocol = exchange.protocol;
    this.since = exchange.receivedAt;
  }

  /** The response is about to begin. */
  responding(): void {
    this.state = "responding";
  }

  /** For the request's body, reactor to worker. */
  get sendWindow(): SendWindow {
    this.#sendWindow ??= new SendWindow();
    return this.#sendWindow;
  }

  /** For the response's body, worker to reactor. */
  get receiveWindow(): ReceiveWindow {
    this.#receiveWindow ??= new ReceiveWindow();
    return this.#receiveWindow;
  }
}
