/** What the commands share of reading flags: a wrong value is named where every option is checked. */

import { Option } from "commander";
import { OptionError, type ServerOptions } from "../options.ts";

/** All addresses, of IPv6 and IPv4. */
const DEFAULT_HOST = "::";
const DEFAULT_PORT = "9501";
/** Where the output is no terminal. */
export const DEFAULT_COLUMNS = 80;

export interface CertificateFlags {
  readonly cert?: string;
  readonly key?: string;
  readonly tls: boolean;
}

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

/**
 * The option `tls` that they say; undefined for the default.
 * @throws OptionError for flags that do not go together
 */
export function tlsOf({ cert, key, tls }: CertificateFlags): ServerOptions["tls"] {
  if (!tls && (cert !== undefined || key !== undefined))
    throw new OptionError(
      `option "${cert === undefined ? "key" : "cert"}" does not go with --no-tls: plain HTTP/1.1 has no certificate`,
    );
  if (!tls) return false;
  if (cert !== undefined && key !== undefined) return { cert, key };
  if (cert === undefined && key === undefined) return undefined;
  throw new OptionError(
    `option "${cert === undefined ? "cert" : "key"}" is missing: --cert and --key go together`,
  );
}
