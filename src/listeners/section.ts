/** Header and trailer sections as `node:http2` and `node:quic` take them. */
import type { Fields } from "../exchange.ts";

/** Of these `node:http2` and `node:quic` throw at a second line, lists though some of them are (RFC 9110 §8.4, §8.5). */
// biome-ignore format: one long list
const ONE_LINE = new Set([
  "access-control-allow-credentials", "access-control-max-age", "access-control-request-method", "age",
  "authorization", "content-encoding", "content-language", "content-length", "content-location",
  "content-md5", "content-range", "content-type", "date", "dnt", "etag", "expires", "from", "host",
  "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified",
  "location", "max-forwards", "proxy-authorization", "range", "referer", "retry-after", "tk",
  "upgrade-insecure-requests", "user-agent", "x-content-type-options",
]);

/** A dictionary, with a list for a name of several lines. */
export function sectionOf(fields: Fields): Record<string, string | string[]> {
  // No prototype: a field may be called "constructor".
  const section: Record<string, string | string[]> = Object.create(null);
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    const before = section[name];
    if (before === undefined) section[name] = value;
    else if (ONE_LINE.has(name)) section[name] = `${before}, ${value}`;
    else section[name] = [before, value].flat();
  }
  return section;
}
