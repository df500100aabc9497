/** Puts what was taken out of a value back into its clone. */
import {
  type Container,
  define,
  ERRORS,
  type Hole,
  hide,
  isContainer,
  type Likeness,
  VIEWS,
} from "./extras.ts";

/** Puts what was taken out in the places of the holes. */
export function fill(value: unknown, holes: readonly Hole[], pieces: readonly Uint8Array[]): unknown {
  const taken = new Map<unknown, unknown>();
  const errors: [Error, Likeness][] = [];
  let piece = 0;
  for (const hole of holes) {
    if ("bytes" in hole) taken.set(hole.at, bytesOf(hole.bytes, pieces[piece++] as Uint8Array));
    else {
      const error = errorOf(hole.error);
      taken.set(hole.at, error);
      errors.push([error, hole.error]);
    }
  }
  const seen = new Set<unknown>();
  const pending: Container[] = [];
  const filled = (child: unknown): unknown => {
    if (taken.has(child)) return taken.get(child);
    if (typeof child !== "object" || child === null || seen.has(child)) return child;
    seen.add(child);
    if (isContainer(child)) pending.push(child);
    return child;
  };
  const whole = filled(value);
  for (const [error, likeness] of errors) {
    if ("cause" in likeness) hide(error, "cause", filled(likeness.cause));
    if ("errors" in likeness) hide(error, "errors", filled(likeness.errors));
  }
  for (let container = pending.pop(); container !== undefined; container = pending.pop())
    fillOne(container, filled);
  return whole;
}

function fillOne(container: Container, filled: (child: unknown) => unknown): void {
  if (container instanceof Map) {
    const entries = [...container];
    container.clear();
    for (const [key, value] of entries) container.set(filled(key), filled(value));
  } else if (container instanceof Set) {
    const members = [...container];
    container.clear();
    for (const member of members) container.add(filled(member));
  } else {
    const members = container as Record<string, unknown>;
    for (const key of Object.keys(members)) {
      const before = members[key];
      const after = filled(before);
      if (after !== before) define(members, key, after);
    }
  }
}

function bytesOf(type: string, piece: Uint8Array): unknown {
  const { buffer, byteOffset, length } = piece;
  if (type === "Buffer") return Buffer.from(buffer as ArrayBuffer, byteOffset, length);
  // It is the whole of its memory, unless it was unpacked.
  const isOwn = byteOffset === 0 && buffer.byteLength === length;
  const own = (isOwn ? buffer : new Uint8Array(piece).buffer) as ArrayBuffer;
  const View = VIEWS[type];
  return View === undefined ? own : new View(own);
}

function errorOf({ type, name, message, stack, code }: Likeness): Error {
  const error =
    type === "AggregateError" ? new AggregateError([], message) : new (ERRORS[type] ?? Error)(message);
  if (error.name !== name) hide(error, "name", name);
  hide(error, "stack", stack);
  if (code !== undefined) (error as { code?: unknown }).code = code;
  return error;
}
