/** What makes a cookie one that browsers keep: the rules of RFC 6265bis beside the grammar, which the library checks. */
import { inspect } from "node:util";
import { type SetCookie, stringifySetCookie } from "cookie";

/** Attributes of a cookie (RFC 6265bis §4.1.2). */
export interface CookieOptions {
  /** Seconds until it ends, a whole number; 0 or less ends it at once. Without it and `expires`: with the session. */
  maxAge?: number;
  expires?: Date;
  /** Begins with a slash. @default "/" */
  path?: string;
  /** Hosts below this domain get it too. @default the host itself alone */
  domain?: string;
  /** Over TLS only. */
  secure?: boolean;
  /** Out of reach for scripts. */
  httpOnly?: boolean;
  sameSite?: "strict" | "lax" | "none";
  /** One jar for each top-level site (CHIPS). Needs `secure`. */
  partitioned?: boolean;
  priority?: "low" | "medium" | "high";
}

const NAMES: Readonly<Record<keyof CookieOptions, true>> = {
  maxAge: true,
  expires: true,
  path: true,
  domain: true,
  secure: true,
  httpOnly: true,
  sameSite: true,
  partitioned: true,
  priority: true,
};

/** User agents ignore a cookie whose name and value have more (RFC 6265bis §5.6), and attributes of more than 1024. */
const MAX_PAIR_BYTES = 4096;
const MAX_ATTRIBUTE_BYTES = 1024;

/**
 * The value of `set-cookie`. What is no cookie-octet in `value` is percent-encoded.
 * @throws TypeError for what user agents would refuse: a prefix's broken promise, an attribute without the one it needs
 */
export function setCookieOf(name: string, value: string, options: CookieOptions): string {
  const { secure = false, path = "/", domain, sameSite, partitioned = false } = options;
  // "undefined" would be sent, and be a value like any other.
  if (value == null) throw wrong(name, `has the value ${value}`);
  // `httponly` would leave the cookie to scripts.
  const unknown = Object.keys(options).find((option) => !Object.hasOwn(NAMES, option));
  if (unknown !== undefined)
    throw wrong(name, `has no option "${unknown}"; there are ${Object.keys(NAMES).join(", ")}`);
  const prefix = name.toLowerCase();
  if (prefix.startsWith("__secure-") && !secure) throw wrong(name, "needs secure: true, as its prefix says");
  if (prefix.startsWith("__host-") && (!secure || path !== "/" || domain !== undefined)) {
    throw wrong(name, 'needs secure: true, path "/" and no domain, as its prefix says');
  }
  if (sameSite === "none" && !secure) throw wrong(name, 'needs secure: true for sameSite "none"');
  if (partitioned && !secure) throw wrong(name, "needs secure: true to be partitioned");
  // User agents would take the request's folder for it (§5.6.4).
  if (!String(path).startsWith("/"))
    throw wrong(name, `has the path ${inspect(path)}, which does not begin with "/"`);
  let line: string;
  try {
    line = stringifySetCookie({ ...options, name, value, path } satisfies SetCookie);
  } catch (error) {
    throw wrong(name, `is no cookie: ${(error as Error).message}`);
  }
  const [pair = "", ...attributes] = line.split("; ");
  if (pair.length - 1 > MAX_PAIR_BYTES)
    throw wrong(name, `has ${pair.length - 1} bytes, over ${MAX_PAIR_BYTES}`);
  const long = attributes.find((attribute) => attribute.length > MAX_ATTRIBUTE_BYTES);
  if (long !== undefined) throw wrong(name, `has an attribute of over ${MAX_ATTRIBUTE_BYTES} bytes`);
  return line;
}

function wrong(name: string, what: string): TypeError {
  return new TypeError(`cookie: "${name}" ${what} (RFC 6265bis)`);
}
