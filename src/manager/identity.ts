/** Whom the processes are to become that need no root: looked up by the manager. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { OptionError } from "../options.ts";
import type { Identity } from "./privileges.ts";

/** What root needs to hand a folder to another user, to become it, and to kill its processes, by the bit of capabilities(7). */
const CAPABILITIES = { CHOWN: 0, KILL: 5, SETGID: 6, SETUID: 7 } as const;
/** The exit code of getent(1) for a name that is not there. */
const NOT_FOUND = 2;

/**
 * @param user a name, or an id in digits; null for none
 * @param group the same; null for the user's own
 * @returns null where the processes stay what this one is
 * @throws OptionError where there is no such user or group, or this process may not become it
 */
export function identityOf(user: string | null, group: string | null): Identity | null {
  if (user === null) {
    if (group !== null) throw new OptionError(`option "group" is "${group}": it needs option "user"`);
    return null;
  }
  const [name, , uid, ownGid, , home] = entryOf("passwd", user) ?? [];
  const isId = /^\d+$/.test(user);
  if (name === undefined && !isId) throw new OptionError(`option "user" is "${user}": there is no such user`);
  if (name === undefined && group === null)
    throw new OptionError(
      `option "user" is ${user}, an id without a name: option "group" must say its group`,
    );
  const identity = {
    uid: Number(uid ?? user),
    gid: group === null ? Number(ownGid) : groupIdOf(group),
    name: name ?? null,
    home: home ?? null,
  };
  const own = process.geteuid?.();
  if (own !== 0)
    throw new OptionError(`option "user" is "${user}": only root may say it, and this is user ${own}`);
  if (identity.uid === 0)
    throw new OptionError(`option "user" is "${user}", which is root: it must be another`);
  const missing = missingCapabilities();
  if (missing.length > 0)
    throw new OptionError(
      `option "user" is "${user}": root has not all that it takes here, in a container perhaps: add the capabilities ${missing.join(", ")}`,
    );
  return identity;
}

/** Of those that root needs. */
function missingCapabilities(): string[] {
  let status: string;
  try {
    status = readFileSync("/proc/self/status", "latin1");
  } catch {
    // Another system, whose root can do everything.
    return [];
  }
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  if (effective === undefined) return [];
  const set = BigInt(`0x${effective}`);
  return Object.entries(CAPABILITIES).flatMap(([name, bit]) => ((set >> BigInt(bit)) & 1n ? [] : [name]));
}

function groupIdOf(group: string): number {
  const [, , gid] = entryOf("group", group) ?? [];
  if (gid !== undefined) return Number(gid);
  if (/^\d+$/.test(group)) return Number(group);
  throw new OptionError(`option "group" is "${group}": there is no such group`);
}

/** The fields of a line of passwd(5) or group(5), wherever the system keeps them. */
function entryOf(database: "passwd" | "group", key: string): string[] | null {
  try {
    const line = execFileSync("getent", ["--", database, key], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return line.trim().split(":");
  } catch (error) {
    const { code, status } = error as { code?: string; status?: number };
    if (status === NOT_FOUND) return null;
    if (code !== "ENOENT") throw error;
  }
  // A system without that program has these files alone.
  const lines = readFileSync(`/etc/${database}`, "utf8").split("\n");
  const entries = lines.map((line) => line.split(":"));
  return entries.find(([name, , id]) => name === key || id === key) ?? null;
}
