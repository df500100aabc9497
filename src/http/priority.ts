/** The `priority` field (RFC 9218 §4): a dictionary of structured fields (RFC 9651), of which two members are known. */
import { inspect } from "node:util";
import { unknownName } from "../unknown-name.ts";

export interface Priority {
  /** 0, the most urgent, to 7; 3 where it is not said. */
  readonly urgency?: number;
  /** The response is of use piece by piece, so that it may share the line with others of its urgency. */
  readonly incremental?: boolean;
}

const NAMES: readonly (keyof Priority)[] = ["urgency", "incremental"];
const URGENCY = /^[0-7]$/;

/** Null for what says nothing that is known. A member that has no valid value is as if it were not there (RFC 9218 §4). */
export function parsePriority(value: string): Priority | null {
  const priority: { urgency?: number; incremental?: boolean } = {};
  for (const member of value.split(",")) {
    const [key = "", item = "?1"] = (member.split(";")[0] as string).trim().split("=");
    if (key === "u" && URGENCY.test(item)) priority.urgency = Number(item);
    if (key === "i" && (item === "?1" || item === "?0")) priority.incremental = item === "?1";
  }
  return Object.keys(priority).length === 0 ? null : priority;
}

/** @throws RangeError for an urgency that there is not, TypeError for a name that there is none of */
export function formatPriority(priority: Priority): string {
  const fault = unknownName(priority, NAMES);
  if (fault !== null) throw new TypeError(`priority: ${fault}`);
  const { urgency, incremental } = priority;
  if (urgency !== undefined && !URGENCY.test(String(urgency))) {
    throw new RangeError(
      `priority: the urgency is ${inspect(urgency)}, not a whole number from 0 to 7 (RFC 9218 §4.1)`,
    );
  }
  const members = [];
  if (urgency !== undefined) members.push(`u=${urgency}`);
  if (incremental !== undefined) members.push(incremental ? "i" : "i=?0");
  return members.join(", ");
}
