/** What the commands share of reading flags: a wrong value is named where every option is checked. */

export const DEFAULT_PORT = 9501;

/** The number, or the text itself where it is none: the check then shows what was given. */
export function numberOf(text: string): number {
  const number = Number(text);
  return text.trim() === "" || Number.isNaN(number) ? (text as unknown as number) : number;
}
