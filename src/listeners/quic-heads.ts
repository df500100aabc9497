/** Response heads as `node:quic` takes them, kept by the head's identity: one that repeats is the same object. */
import type { Fields, ResponseHead } from "../exchange.ts";
import { fieldValue } from "../http/fields.ts";
import { parsePriority } from "../http/priority.ts";

export interface QuicHead {
  readonly headers: Record<string, string | string[]>;
  /** What the `priority` field asks for (RFC 9218 §5), null where there is none: the engine knows three levels. */
  readonly priority: { readonly level: "high" | "default" | "low"; readonly incremental: boolean } | null;
}

/** RFC 9218 §4.1. */
const DEFAULT_URGENCY = 3;

export class QuicHeads {
  readonly #made = new WeakMap<ResponseHead, QuicHead>();

  of(head: ResponseHead): QuicHead {
    let made = this.#made.get(head);
    if (made === undefined) {
      made = {
        headers: { ":status": String(head.status), ...headersOf(head.fields) },
        priority: priorityOf(head),
      };
      this.#made.set(head, made);
    }
    return made;
  }
}

export function headersOf(fields: Fields): Record<string, string | string[]> {
  // No prototype: a field may be called "constructor".
  const headers: Record<string, string | string[]> = Object.create(null);
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    const before = headers[name];
    headers[name] = before === undefined ? value : [before, value].flat();
  }
  return headers;
}

function priorityOf({ fields }: ResponseHead): QuicHead["priority"] {
  const value = fieldValue(fields, "priority");
  const priority = value === undefined ? null : parsePriority(value);
  if (priority === null) return null;
  const { urgency = DEFAULT_URGENCY, incremental = false } = priority;
  const level = urgency < DEFAULT_URGENCY ? "high" : urgency > DEFAULT_URGENCY ? "low" : "default";
  return { level, incremental };
}
