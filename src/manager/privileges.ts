/** How a process that was started by root becomes another user, for good. */

/** A user, as the system knows him. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
  /** Null for an id without a name, which has no other groups. */
  readonly name: string | null;
  /** The home directory; null where there is none. */
  readonly home: string | null;
}

/** It is there, and left out of the types. */
type WithInitgroups = NodeJS.Process & { initgroups?(user: string, group: number): void };

/** In a worker's environment: its identity, as JSON. Taken out again before anything else is loaded. */
export const IDENTITY_VARIABLE = "TERCET_IDENTITY";

/**
 * Becomes it with every thread, and makes sure that there is no way back.
 * @throws Error where that fails: the process must end then
 */
export function dropPrivileges({ uid, gid, name }: Identity): void {
  const { setgroups, initgroups, setgid, setuid } = process as WithInitgroups;
  if (!setgroups || !initgroups || !setgid || !setuid) throw new Error("this system has no users");
  if (name === null) setgroups([]);
  else initgroups(name, gid);
  setgid(gid);
  setuid(uid);
  const ids = [process.getuid?.(), process.geteuid?.(), process.getgid?.(), process.getegid?.()];
  if (ids.join() !== [uid, uid, gid, gid].join()) throw new Error(`the user is still ${ids[0]}, not ${uid}`);
  for (const back of [() => setuid(0), () => setgid(0)]) {
    if (succeeds(back)) throw new Error("root's privileges come back");
  }
}

/** What the environment of a process with this identity says of it: nothing of root's where it has no name, or no home. */
export function environmentOf({ name, home }: Identity): NodeJS.ProcessEnv {
  return { USER: name ?? undefined, LOGNAME: name ?? undefined, HOME: home ?? undefined };
}

function succeeds(call: () => void): boolean {
  try {
    call();
    return true;
  } catch {
    // As it should be.
    return false;
  }
}
