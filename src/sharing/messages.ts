/** The "message" listeners of a process. */
import { decode } from "../clone/clone.ts";
import type { Parts } from "../clone/parts.ts";
import { describe } from "../log.ts";
import type { MessageSender } from "../manager/messages.ts";

type Listener = (message: unknown, from: MessageSender) => unknown;

export class Messages {
  readonly #listeners: Listener[] = [];

  add(listener: Listener): void {
    this.#listeners.push(listener);
  }

  /** Tells every listener; one that fails keeps none of the others from it. */
  receive(parts: Parts, from: MessageSender, log: (line: string) => void): void {
    if (this.#listeners.length === 0) return;
    const fail = (error: unknown) => log(`error in a "message" listener: ${describe(error)}`);
    const message = decode(parts);
    for (const listener of this.#listeners) {
      try {
        const result = listener(message, from);
        if (result instanceof Promise) result.catch(fail);
      } catch (error) {
        fail(error);
      }
    }
  }
}
