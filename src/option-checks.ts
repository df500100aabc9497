/** What the checks of options are made of. A check's message says what is allowed; see options.ts. */
import * as v from "valibot";

export const KIB = 1024;
export const MIB = 1024 * KIB;
/** `setTimeout`'s own bound, milliseconds. */
export const MAX_DELAY = 2 ** 31 - 1;

export const PEM = "a path to a PEM file, or PEM text";

export function whole(min: number, max: number, unit: string) {
  return wholeFrom(min, max, `a whole number of ${unit} from ${min} to ${max}`);
}

/** A number where 0 says that there is no limit. */
export function limit(min: number, max: number, unit: string) {
  const allowed = `a whole number of ${unit} from ${min} to ${max}, or 0 for no limit`;
  return v.union([v.literal(0), wholeFrom(min, max, allowed)], allowed);
}

export function wholeFrom(min: number, max: number, allowed: string) {
  return v.pipe(v.number(allowed), v.integer(allowed), v.minValue(min, allowed), v.maxValue(max, allowed));
}

export function text(allowed: string) {
  return v.pipe(v.string(allowed), v.nonEmpty(allowed));
}

/** Options of one thing, each of which may be left out. For the library a list is an object, too. */
export function group<const Entries extends v.ObjectEntries>(entries: Entries, allowed: string) {
  return v.pipe(
    v.custom<object>((given) => typeof given === "object" && !Array.isArray(given), allowed),
    v.strictObject(entries, allowed),
  );
}
