/** The server's log: lines on standard error, for whatever collects them. */
import { inspect } from "node:util";

/** @param part of the server, such as `reactor 1` */
export function logTo(part: string): (line: string) => void {
  return (line) => {
    process.stderr.write(`${new Date().toISOString()} tercet ${part}: ${line}\n`);
  };
}

/** An error's stack, and those of its causes; of anything else that was thrown, what it looks like. Never throws itself. */
export function describe(error: unknown): string {
  try {
    return described(error, new Set());
  } catch {
    // A handler may throw what throws again when it is looked at: that must not cost its request the answer.
    return "something was thrown that cannot be shown";
  }
}

/** @param seen the errors of which this is a cause: one may be its own */
function described(error: unknown, seen: Set<unknown>): string {
  if (!(error instanceof Error)) return typeof error === "string" ? error : inspect(error);
  seen.add(error);
  const cause =
    error.cause === undefined || seen.has(error.cause) ? "" : `\n  caused by ${described(error.cause, seen)}`;
  return `${error.stack ?? error.message}${cause}`;
}
