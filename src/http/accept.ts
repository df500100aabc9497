/** Content negotiation by Accept-Encoding (RFC 9110 §12.5.3) as a pure function. */

const IDENTITY = "identity";
const ELEMENT =
  /^\s*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\s*(?:;\s*[qQ]\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?$/;

/**
 * The content codings among `offered` that a client takes, the one it wants most first. `identity`, no coding at all,
 * is always offered, and last among those it did not name; where it is not in the answer the client refuses it.
 * @param value of the Accept-Encoding field; null where there is none: then only `identity` is safe to send
 * @param offered in the order that the server prefers among equals
 */
export function acceptedEncodings(value: string | null, offered: readonly string[]): string[] {
  if (value === null) return [IDENTITY];
  const weights = new Map<string, number>();
  for (const element of value.split(",")) {
    const [, coding, weight] = ELEMENT.exec(element) ?? [];
    if (coding === undefined) continue;
    const lower = coding.toLowerCase();
    // RFC 9110 §8.4.1.3: a recipient takes x-gzip for gzip.
    weights.set(lower === "x-gzip" ? "gzip" : lower, weight === undefined ? 1 : Number(weight));
  }
  const any = weights.get("*");
  const candidates = offered.map((coding) => ({ coding, weight: weights.get(coding) ?? any ?? 0 }));
  // A weight below every one that can be written: taken, unless something refuses it.
  const unnamed = any === 0 ? 0 : 1e-4;
  candidates.push({ coding: IDENTITY, weight: weights.get(IDENTITY) ?? unnamed });
  return candidates
    .filter(({ weight }) => weight > 0)
    .sort((a, b) => b.weight - a.weight)
    .map(({ coding }) => coding);
}
