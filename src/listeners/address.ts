/** The address that a host stands for, on this machine. */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";

/** Of a name its first address, so that TCP and UDP take the same one. Rejects with the system's error. */
export async function addressOf(host: string): Promise<string> {
  if (isIP(host) === 0) return (await lookup(host)).address;
  const own = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  // All addresses of a machine without IPv6 are those of IPv4.
  return host === "::" && !own.some(({ family }) => family === "IPv6") ? "0.0.0.0" : host;
}
