/** Range requests (RFC 9110 §14) as pure functions. */
import type { Fields } from "../exchange.ts";
import { rangeApplies, type Validators } from "./conditional.ts";
import { listValue } from "./fields.ts";

/** Bytes of a representation: `length` of them from `offset` on; at least one. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/**
 * What a Range asks for: ranges that lie apart, in ascending order; or nothing that can be given (416); or null, for it is
 * to be ignored.
 */
export type RangeOutcome = readonly ByteRange[] | "not satisfiable" | null;

/** More are refused, as RFC 9110 §14.2 and §17.15 advise. */
export const MAX_RANGES = 64;
/** Ranges nearer to each other than what a part of its own would add are sent as one (RFC 9110 §15.3.7.2). Bytes. */
const MIN_GAP = 128;

const UNIT = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(.*)$/;
const INT_RANGE = /^(\d+)-(\d*)$/;
const SUFFIX_RANGE = /^-(\d+)$/;

/**
 * What a request asks for of a representation that is answered with 200: null where it is all of it.
 * @param validators of the representation, asked for where there is a Range
 * @param size bytes of the representation
 * @param now milliseconds since the Unix epoch
 */
export function requestedRanges(
  { method, fields }: { readonly method: string; readonly fields: Fields },
  validators: () => Validators,
  size: number,
  now: number,
): RangeOutcome {
  const value = method === "GET" ? listValue(fields, "range") : undefined;
  if (value === undefined || !rangeApplies(fields, validators(), now / 1000)) return null;
  return parseRanges(value, size);
}

/**
 * @param value of the Range field
 * @param size bytes of the representation
 */
export function parseRanges(value: string, size: number): RangeOutcome {
  const [, unit, set] = UNIT.exec(value) ?? [];
  // A unit that is not known is ignored (RFC 9110 §14.2).
  if (unit?.toLowerCase() !== "bytes" || set === undefined)
    return unit === undefined ? "not satisfiable" : null;
  const specs = set.split(",", MAX_RANGES + 1);
  if (specs.length > MAX_RANGES) return "not satisfiable";
  const ranges: ByteRange[] = [];
  let given = 0;
  let whole = false;
  for (const spec of specs) {
    const text = spec.trim();
    // Empty elements are no elements (RFC 9110 §5.6.1.2).
    if (text === "") continue;
    given++;
    const range = rangeOf(text, size);
    if (range === "invalid") return "not satisfiable";
    if (range === "all of nothing") whole = true;
    else if (range !== null) ranges.push(range);
  }
  if (ranges.length > 0) return coalesce(ranges);
  // The suffix of an empty representation is all of it, for which a 206 has no Content-Range.
  return whole && given > 0 ? null : "not satisfiable";
}

/** The value of Content-Range (RFC 9110 §14.4); without a range, that of a 416. */
export function contentRange(range: ByteRange | null, size: number): string {
  if (range === null) return `bytes */${size}`;
  return `bytes ${range.offset}-${range.offset + range.length - 1}/${size}`;
}

/** Null where the range is right, and begins behind the end. */
function rangeOf(text: string, size: number): ByteRange | "invalid" | "all of nothing" | null {
  const suffix = SUFFIX_RANGE.exec(text);
  if (suffix !== null) {
    const length = Math.min(Number(suffix[1]), size);
    if (length > 0) return { offset: size - length, length };
    return Number(suffix[1]) > 0 ? "all of nothing" : null;
  }
  const [, first, last] = INT_RANGE.exec(text) ?? [];
  if (first === undefined) return "invalid";
  const offset = Number(first);
  const end = last === undefined || last === "" ? Number.POSITIVE_INFINITY : Number(last);
  if (end < offset) return "invalid";
  if (offset >= size) return null;
  return { offset, length: Math.min(end, size - 1) - offset + 1 };
}

/** So the parts together are never more than the representation and what divides them. */
function coalesce(ranges: ByteRange[]): ByteRange[] {
  ranges.sort((a, b) => a.offset - b.offset);
  const apart: ByteRange[] = [];
  for (const range of ranges) {
    const before = apart.at(-1);
    if (before === undefined || range.offset > before.offset + before.length + MIN_GAP) {
      apart.push(range);
      continue;
    }
    const end = Math.max(before.offset + before.length, range.offset + range.length);
    apart[apart.length - 1] = { offset: before.offset, length: end - before.offset };
  }
  return apart;
}
