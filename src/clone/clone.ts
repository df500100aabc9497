/**
 * Values on their way to another process: structured clone (HTML §2.7), of which large buffers are taken out, so that they
 * are copied once and not into the clone as well, and errors, so that they keep their cause and code. No I/O.
 */
import { deserialize, serialize } from "node:v8";
import { Copy } from "./copy.ts";
import { type Container, childrenOf, type Hole, hide, isContainer, isPiece, isPlainError } from "./extras.ts";
import { fill } from "./fill.ts";
import { CloneError, type Parts } from "./parts.ts";
import { explain } from "./uncloneable.ts";

/**
 * The parts of which `decode` makes an equal value. They share no memory with it.
 * @param call what the value is for, such as `task`, and
 * @param name what it is called there, such as `data`: for the error
 * @throws CloneError
 */
export function encode(value: unknown, call: string, name: string): Parts {
  try {
    if (!hasExtras(value)) return [serialize([value])];
    const copy = new Copy();
    const whole = copy.of(value);
    return [serialize([whole, copy.holes]), ...copy.pieces];
  } catch (error) {
    throw new CloneError(`${call}: ${explain(value, name, error as Error)}`, { cause: error });
  }
}

/**
 * An error's parts, whatever it holds: a cause that cannot be cloned becomes a text.
 */
export function encodeError(error: unknown): Parts {
  try {
    return encode(error, "task", "error");
  } catch {
    // Why it cannot be cloned is of no interest beside what it says.
    return encode(error instanceof Error ? withTextCause(error) : String(error), "task", "error");
  }
}

/** @throws CloneError where these are no parts */
export function decode(parts: Parts): unknown {
  try {
    const [clone, ...pieces] = parts;
    const [value, holes] = deserialize(clone ?? Buffer.alloc(0)) as [unknown, Hole[] | undefined];
    return holes === undefined ? value : fill(value, holes, pieces);
  } catch (error) {
    throw new CloneError("what came is no clone of a value", { cause: error });
  }
}

/** There is something in it that a plain clone would copy twice, or cut short. */
function hasExtras(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (isExtra(value)) return true;
  if (!isContainer(value)) return false;
  const seen = new Set<object>([value]);
  const pending: Container[] = [value];
  for (let container = pending.pop(); container !== undefined; container = pending.pop()) {
    for (const child of childrenOf(container)) {
      if (typeof child !== "object" || child === null || seen.has(child)) continue;
      if (isExtra(child)) return true;
      seen.add(child);
      if (isContainer(child)) pending.push(child);
    }
  }
  return false;
}

function isExtra(value: object): boolean {
  return isPiece(value) || isPlainError(value);
}

function withTextCause(error: Error): Error {
  const { code } = error as { code?: unknown };
  const copy = new Error(String(error.message), { cause: String(error.cause) });
  hide(copy, "name", String(error.name));
  hide(copy, "stack", typeof error.stack === "string" ? error.stack : undefined);
  return typeof code === "string" || typeof code === "number" ? Object.assign(copy, { code }) : copy;
}
