/** What the commands share of reading flags: a wrong value is named where every option is checked. */

import { Option } from "commander";

/** All addresses, of IPv6 and IPv4. */
const DEFAULT_HOST = "::";
const DEFAULT_PORT = "9501";
/** Where the output is no terminal. */
export const DEFAULT_COLUMNS = 80;

/** The number, or the text itself where it is none: the check then shows what was given. */
export function numberOf(text: string): number {
  const number = Number(text);
  return text.trim() === "" || Number.isNaN(number) ? (text as unknown as number) : number;
}

/** @param description of the host that the command means */
export function hostFlag(description: string): Option {
  return new Option("--host <host>", description).default(DEFAULT_HOST, DEFAULT_HOST);
}

/** @param description of the port that the command means */
export function portFlag(description: string): Option {
  return new Option("--port <port>", description).default(DEFAULT_PORT, DEFAULT_PORT);
}
