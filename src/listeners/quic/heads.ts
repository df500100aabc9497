/**
 * Header sections as `node:quic` takes and gives them: dictionaries. Response heads are kept by the head's identity: one
 * that repeats is the same object.
 */
import type { Fields, ResponseHead } from "../../exchange.ts";
import { fieldValue } from "../../http/fields.ts";
import { parsePriority } from "../../http/priority.ts";
import { sectionOf } from "../section.ts";

/** As the engine takes and gives it. */
export type Section = Readonly<Record<string, string | string[] | undefined>>;

type Level = "high" | "default" | "low";

export interface QuicHead {
  /** With the date of the moment when it was asked for. */
  readonly headers: Record<string, string | string[]>;
  /** The response has a date of its own. */
  readonly isDated: boolean;
  /**
   * What the `priority` field asks for (RFC 9218 §5), null where there is none. The engine knows three levels; null is as
   * the client said.
   */
  readonly priority: { readonly level: Level | null; readonly incremental: boolean | null } | null;
}

/** RFC 9218 §4.1. */
const DEFAULT_URGENCY = 3;

/** Lines of one section, `:status` among them. The engine sends nothing of one with more, and says nothing of it. */
const MAX_SENT_LINES = 128;

export class QuicHeads {
  readonly #made = new WeakMap<ResponseHead, QuicHead>();
  #date = "";
  #second = 0;

  /**
   * Of a final response: it tells its date (RFC 9110 §6.6.1), which the engine leaves to us.
   * @throws Error for more lines than the engine sends
   */
  of(head: ResponseHead): QuicHead {
    let made = this.#made.get(head);
    if (made === undefined) {
      const headers = interimHeadersOf(head);
      checkLines({ date: "", ...headers });
      made = { headers, isDated: headers.date !== undefined, priority: priorityOf(head) };
      this.#made.set(head, made);
    }
    if (!made.isDated) made.headers.date = this.#now();
    return made;
  }

  #now(): string {
    const second = Math.floor(Date.now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#date = new Date(second * 1000).toUTCString();
    }
    return this.#date;
  }
}

/** @throws Error for more lines than the engine sends */
export function trailersToSend(fields: Fields): Record<string, string | string[]> {
  const section = sectionOf(fields);
  checkLines(section);
  return section;
}

function checkLines(section: Record<string, string | string[]>): void {
  const lines = Object.values(section).flat().length;
  if (lines > MAX_SENT_LINES) {
    throw new Error(`a section of it has ${lines} lines, and node:quic sends ${MAX_SENT_LINES} at most`);
  }
}

export function interimHeadersOf({ status, fields }: ResponseHead): Record<string, string | string[]> {
  return { ":status": String(status), ...sectionOf(fields) };
}

function priorityOf({ fields }: ResponseHead): QuicHead["priority"] {
  const value = fieldValue(fields, "priority");
  const priority = value === undefined ? null : parsePriority(value);
  if (priority === null) return null;
  const { urgency, incremental = null } = priority;
  return { level: urgency === undefined ? null : levelOf(urgency), incremental };
}

function levelOf(urgency: number): Level {
  if (urgency === DEFAULT_URGENCY) return "default";
  return urgency < DEFAULT_URGENCY ? "high" : "low";
}

/** A section of the engine's, which is a dictionary, as lines: names that are numbers come first in it, and last here. */
export function linesOf(section: Section): string[] {
  const lines: string[] = [];
  let late: string[] | null = null;
  for (const name in section) {
    const value = section[name] as string | string[];
    const code = name.charCodeAt(0);
    const isDigit = code >= 0x30 && code <= 0x39;
    if (isDigit) late ??= [];
    const to = isDigit ? (late as string[]) : lines;
    if (typeof value === "string") to.push(name, value);
    else for (const each of value) to.push(name, each);
  }
  if (late !== null) lines.push(...late);
  return lines;
}
