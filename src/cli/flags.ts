/** What the commands share of reading flags: a wrong value is named where every option is checked. */

/** All addresses, of IPv6 and IPv4. */
export const DEFAULT_HOST = "::";
export const DEFAULT_PORT = 9501;
/** Where the output is no terminal. */
export const DEFAULT_COLUMNS = 80;

/** The number, or the text itself where it is none: the check then shows what was given. */
export function numberOf(text: string): number {
  const number = Number(text);
  return text.trim() === "" || Number.isNaN(number) ? (text as unknown as number) : number;
}
