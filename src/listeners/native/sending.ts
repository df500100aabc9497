/** When the engine has sent a file. */
import type { NativeExchange } from "./exchange.ts";

/** Milliseconds: how often it is asked whether the engine has sent a file. It does not say. */
const SENT_CHECK_INTERVAL = 20;

/**
 * The exchanges whose file the engine is sending. One whose client has left stays until the next check, too: the engine
 * may be reading when it learns of that, and the descriptor must not be another file's by then.
 */
export class Sending {
  readonly #told = new Map<NativeExchange, () => void>();
  #timer: NodeJS.Timeout | null = null;

  /** Resolves when the engine has let go of the exchange. */
  sent(exchange: NativeExchange): Promise<void> {
    this.#timer ??= setInterval(() => this.#check(), SENT_CHECK_INTERVAL);
    return new Promise((resolve) => {
      this.#told.set(exchange, resolve);
    });
  }

  #check(): void {
    for (const [exchange, tell] of this.#told) {
      if (!exchange.checkSent()) continue;
      this.#told.delete(exchange);
      tell();
    }
    if (this.#told.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}
