/** Finds in a value what keeps it from being cloned, and says where it is. */
import { inspect, types } from "node:util";
import { serialize } from "node:v8";

/** A part of a value, and how it is reached from the part that holds it. */
interface Found {
  readonly value: unknown;
  readonly holder: Found | null;
  /** Such as `.name`, `[3]` or `.get('key')`; or `a key of `, `a member of `. */
  readonly step: string;
  /** Reading it threw this. */
  readonly thrown?: { readonly error: unknown };
}

/**
 * What is wrong with the value, by the path of the nearest part of it that cannot be cloned: `data.user.save is a function,
 * which cannot be cloned`.
 * @param error that cloning it has thrown
 */
export function explain(value: unknown, name: string, error: Error): string {
  const found: Found[] = [{ value, holder: null, step: name }];
  const seen = new Set<unknown>();
  // The list grows while it is gone through: near parts come before far ones.
  for (const part of found) {
    if (part.thrown !== undefined)
      return `${pathOf(part)} throws when it is read: ${textOf(part.thrown.error)}`;
    if (typeof part.value === "object" && part.value !== null) {
      if (seen.has(part.value)) continue;
      seen.add(part.value);
      if (isOpen(part.value)) {
        for (const child of childrenOf(part)) found.push(child);
        continue;
      }
    }
    if (!isCloneable(part.value)) return `${pathOf(part)} is ${kindOf(part.value)}, which cannot be cloned`;
  }
  return `${name} cannot be cloned: ${error.message}`;
}

/** Whether it can be cloned is a matter of what it holds. */
function isOpen(value: object): boolean {
  if (types.isProxy(value)) return false;
  const isPlain = Object.prototype.toString.call(value) === "[object Object]";
  const isKnown = value instanceof Map || value instanceof Set || value instanceof Error;
  return Array.isArray(value) || isPlain || (isKnown && !(value instanceof DOMException));
}

function isCloneable(value: unknown): boolean {
  if (typeof value === "function" || typeof value === "symbol") return false;
  if (typeof value !== "object" || value === null) return true;
  try {
    serialize(value);
    return true;
  } catch {
    // Which is what was asked.
    return false;
  }
}

function* childrenOf(holder: Found): Iterable<Found> {
  const parent = holder.value as object;
  if (parent instanceof Map) {
    for (const [key, value] of parent) {
      yield { value: key, holder, step: "a key of " };
      yield { value, holder, step: `.get(${inspect(key, { depth: 0 })})` };
    }
  } else if (parent instanceof Set) {
    for (const value of parent) yield { value, holder, step: "a member of " };
  }
  const keys = Object.keys(parent);
  if (parent instanceof Error && Object.hasOwn(parent, "cause")) keys.push("cause");
  for (const key of keys) {
    const step = stepOf(parent, key);
    try {
      yield { value: (parent as Record<string, unknown>)[key], holder, step };
    } catch (error) {
      yield { value: null, holder, step, thrown: { error } };
    }
  }
}

function stepOf(parent: object, key: string): string {
  if (Array.isArray(parent) && /^\d+$/.test(key)) return `[${key}]`;
  return /^[A-Za-z_$][\w$]*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`;
}

function pathOf(part: Found): string {
  const steps: string[] = [];
  for (let at: Found | null = part; at !== null; at = at.holder) steps.push(at.step);
  return steps.reverse().reduce((path, step) => (step.endsWith(" ") ? `${step}${path}` : `${path}${step}`));
}

function kindOf(value: unknown): string {
  if (typeof value !== "object" || value === null) return `a ${typeof value}`;
  if (types.isProxy(value)) return "a Proxy";
  const tag = Object.prototype.toString.call(value).slice(8, -1);
  return `${/^[AEIO]/.test(tag) ? "an" : "a"} ${tag}`;
}

function textOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
