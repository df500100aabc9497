/** Conditional requests (RFC 9110 §13) as pure functions: validators in, the outcome out. */
import type { Fields } from "../exchange.ts";
import { fieldValue, listValue } from "./fields.ts";

export interface Validators {
  /** As it is sent: `"opaque"`, or `W/"opaque"`; null where there is none. */
  readonly etag: string | null;
  /** Seconds since the Unix epoch, whole; null where it is not known. */
  readonly lastModified: number | null;
}

/** What the preconditions come to: answer as if there were none, 304, or 412. */
export type Outcome = "perform" | "not modified" | "failed";

const ENTITY_TAG = /(?:W\/)?"[!#-~\x80-\xff]*"/g;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const TIME = "(\\d\\d):(\\d\\d):(\\d\\d)";
const IMF_FIXDATE = new RegExp(`^\\w{3}, (\\d\\d) (\\w{3}) (\\d{4}) ${TIME} GMT$`);
const RFC850_DATE = new RegExp(`^\\w{6,9}, (\\d\\d)-(\\w{3})-(\\d\\d) ${TIME} GMT$`);
const ASCTIME_DATE = new RegExp(`^\\w{3} (\\w{3}) ([ \\d]\\d) ${TIME} (\\d{4})$`);

/** What a response's own fields say. */
export function validatorsOf(fields: Fields): Validators {
  const date = fieldValue(fields, "last-modified");
  return {
    etag: fieldValue(fields, "etag") ?? null,
    lastModified: date === undefined ? null : parseHttpDate(date),
  };
}

/** Evaluates the preconditions of a request in the order of RFC 9110 §13.2.2; If-Range is `rangeApplies`'. */
export function evaluate(method: string, fields: Fields, validators: Validators): Outcome {
  const reads = method === "GET" || method === "HEAD";
  const { etag, lastModified } = validators;
  const ifMatch = listValue(fields, "if-match")?.trim();
  if (ifMatch !== undefined) {
    if (ifMatch !== "*" && !tagsOf(ifMatch).some((tag) => matchesStrongly(tag, etag))) return "failed";
  } else {
    const date = dateOf(fields, "if-unmodified-since");
    if (date !== null && lastModified !== null && lastModified > date) return "failed";
  }
  const ifNoneMatch = listValue(fields, "if-none-match")?.trim();
  if (ifNoneMatch !== undefined) {
    if (ifNoneMatch === "*" || tagsOf(ifNoneMatch).some((tag) => matchesWeakly(tag, etag))) {
      return reads ? "not modified" : "failed";
    }
  } else if (reads) {
    const date = dateOf(fields, "if-modified-since");
    if (date !== null && lastModified !== null && lastModified <= date) return "not modified";
  }
  return "perform";
}

/**
 * Whether a Range is to be heeded: without If-Range always, else where its validator is that of the representation
 * (RFC 9110 §13.1.5). A date is one only where it is strong: a second at least before `now` (§8.8.2.2).
 * @param now seconds since the Unix epoch
 */
export function rangeApplies(fields: Fields, validators: Validators, now: number): boolean {
  const value = listValue(fields, "if-range")?.trim();
  if (value === undefined) return true;
  if (value.startsWith('"') || value.startsWith("W/")) return matchesStrongly(value, validators.etag);
  const date = parseHttpDate(value, now);
  return date !== null && date === validators.lastModified && date < Math.floor(now);
}

/**
 * An HTTP-date in any of its three forms (RFC 9110 §5.6.7), as seconds since the Unix epoch; null where it is none.
 * @param now by which a year of two digits is at most 50 years ahead
 */
export function parseHttpDate(text: string, now: number = Date.now() / 1000): number | null {
  let parts = IMF_FIXDATE.exec(text);
  if (parts !== null) return secondsOf(parts[3], parts[2], parts[1], parts[4], parts[5], parts[6]);
  parts = ASCTIME_DATE.exec(text);
  if (parts !== null) return secondsOf(parts[6], parts[1], parts[2], parts[3], parts[4], parts[5]);
  parts = RFC850_DATE.exec(text);
  if (parts === null) return null;
  const thisYear = new Date(now * 1000).getUTCFullYear();
  let year = Math.floor(thisYear / 100) * 100 + Number(parts[3]);
  if (year > thisYear + 50) year -= 100;
  return secondsOf(String(year), parts[2], parts[1], parts[4], parts[5], parts[6]);
}

/** @param seconds since the Unix epoch */
export function formatHttpDate(seconds: number): string {
  return new Date(seconds * 1000).toUTCString();
}

/** RFC 9110 §8.8.3.2. */
function matchesStrongly(tag: string, etag: string | null): boolean {
  return etag !== null && tag === etag && !tag.startsWith("W/");
}

function matchesWeakly(tag: string, etag: string | null): boolean {
  return etag !== null && opaque(tag) === opaque(etag);
}

function opaque(tag: string): string {
  return tag.startsWith("W/") ? tag.slice(2) : tag;
}

function tagsOf(list: string): string[] {
  return list.match(ENTITY_TAG) ?? [];
}

function dateOf(fields: Fields, name: string): number | null {
  const value = listValue(fields, name)?.trim();
  return value === undefined ? null : parseHttpDate(value);
}

type Part = string | undefined;

function secondsOf(
  year: Part,
  month: Part,
  day: Part,
  hours: Part,
  minutes: Part,
  seconds: Part,
): number | null {
  const index = MONTHS.indexOf(month ?? "");
  const [y, d, h, m, s] = [year, day, hours, minutes, seconds].map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  if (index === -1 || h > 23 || m > 59 || s > 60) return null;
  const date = new Date(0);
  date.setUTCFullYear(y, index, d);
  // A day that the month has not would have become one of the next.
  if (date.getUTCMonth() !== index || date.getUTCDate() !== d) return null;
  return date.getTime() / 1000 + h * 3600 + m * 60 + Math.min(s, 59);
}
