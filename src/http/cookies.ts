/** The cookies of a request. */
import { parseCookie } from "cookie";

/**
 * Values by name (RFC 6265bis §4.2), percent-decoded where they are percent-encoded UTF-8 and as they are otherwise. Of
 * a name that comes twice the first counts: user agents send the one with the longer path first (§5.8.3).
 */
export function cookiesOf(header: string | undefined): Record<string, string> {
  // The library's object has no prototype: a cookie may be called "__proto__".
  return header === undefined ? Object.create(null) : (parseCookie(header) as Record<string, string>);
}
