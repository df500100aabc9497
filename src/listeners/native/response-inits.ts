/** Response heads as the engine takes them. */
import type { ResponseHead } from "../../exchange.ts";

/** What the engine takes for a response head, made once for one that repeats. */
export class ResponseInits {
  /** By identity: a head that comes by the wire again is the same object. One made in this process is only like the last. */
  readonly #made = new WeakMap<ResponseHead, ResponseInit>();
  #last: ResponseHead = { status: 0, fields: [] };
  #lastInit: ResponseInit = {};

  of(head: ResponseHead): ResponseInit {
    if (head !== this.#last && !isAlike(head, this.#last)) {
      this.#lastInit = this.#find(head);
      this.#last = head;
    }
    return this.#lastInit;
  }

  #find(head: ResponseHead): ResponseInit {
    let init = this.#made.get(head);
    if (init === undefined) {
      const headers = new Headers();
      const { fields } = head;
      for (let i = 0; i < fields.length; i += 2) headers.append(fields[i] as string, fields[i + 1] as string);
      init = { status: head.status, headers };
      this.#made.set(head, init);
    }
    return init;
  }
}

function isAlike(a: ResponseHead, b: ResponseHead): boolean {
  const { length } = a.fields;
  if (a.status !== b.status || length !== b.fields.length) return false;
  for (let i = 0; i < length; i++) if (a.fields[i] !== b.fields[i]) return false;
  return true;
}
