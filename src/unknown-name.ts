/** For options that are checked by hand: one that is misspelled would be left out, and nobody told. */

/** Says which name there is none of, and which there are; null where all are known. */
export function unknownName(given: object, known: readonly string[]): string | null {
  const unknown = Object.keys(given).find((name) => !known.includes(name));
  return unknown === undefined ? null : `there is no option "${unknown}"; there are ${known.join(", ")}`;
}
