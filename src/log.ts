/** The server's log: lines on standard error, for whatever collects them. */
import { relative } from "node:path";
import { inspect } from "node:util";

const FRAME = /^\s+at /;
/** Frames of Tercet's own files, and of what they run on. */
const UNDERNEATH = [`${import.meta.dir}/`, "native:", "node:", "internal:", "(unknown)"];

/** A line for a disk that is full, or a collector that has gone, is lost: that must not end the process. */
const loseLine = () => {};

/** @param part of the server, such as `reactor 1` */
export function logTo(part: string): (line: string) => void {
  if (!process.stderr.listeners("error").includes(loseLine)) process.stderr.on("error", loseLine);
  return (line) => {
    process.stderr.write(`${new Date().toISOString()} tercet ${part}: ${line}\n`);
  };
}

/** Has a process log what nobody catches, and go on with what else it does. @returns what ends it */
export function logUncaught(log: (line: string) => void): () => void {
  const uncaught = (error: unknown) => log(`error that nobody has caught: ${describe(error)}`);
  process.on("uncaughtException", uncaught).on("unhandledRejection", uncaught);
  return () => void process.off("uncaughtException", uncaught).off("unhandledRejection", uncaught);
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

/** What was thrown where the code starts, and where that was: its message, or what it looks like. Never throws itself. */
export function inOneLine(thrown: unknown): string {
  // Of several faults in a file Bun makes one error, which names none of them.
  const error = thrown instanceof AggregateError && thrown.errors.length > 0 ? thrown.errors[0] : thrown;
  const reason =
    error instanceof Error ? `${error.name}: ${error.message}${placeOf(error)}` : describe(error);
  return reason.replaceAll(/\s*\n\s*/g, " ");
}

/** Where in the code, as far as the runtime tells: of what does not parse by itself, else by the stack. */
function placeOf({
  stack,
  position,
}: Error & { position?: { file: string; line: number; column: number } | null }) {
  const place = position
    ? `${position.file}:${position.line}:${position.column}`
    : /\(?(\/[^()\n]+:\d+:\d+)\)?$/m.exec(stack ?? "")?.[1];
  return place === undefined ? "" : ` (${fromHere(place)})`;
}

function fromHere(path: string): string {
  try {
    return relative(process.cwd(), path);
  } catch {
    // The working directory has been removed.
    return path;
  }
}

/** @param seen the errors of which this is a cause: one may be its own */
function described(error: unknown, seen: Set<unknown>): string {
  if (!(error instanceof Error)) return typeof error === "string" ? error : inspect(error);
  seen.add(error);
  const cause =
    error.cause === undefined || seen.has(error.cause) ? "" : `\n  caused by ${described(error.cause, seen)}`;
  return `${error.stack === undefined ? error.message : ownStackOf(error.stack)}${cause}`;
}

/** The stack down to the outermost frame of the application: what called that is the same for every request. */
function ownStackOf(stack: string): string {
  const lines = stack.split("\n");
  const isUnderneath = (line: string) => UNDERNEATH.some((place) => line.includes(place));
  const last = lines.findLastIndex((line) => !FRAME.test(line) || !isUnderneath(line));
  const isOurs = last === -1 || !FRAME.test(lines[last] as string);
  return isOurs ? stack : lines.slice(0, last + 1).join("\n");
}
