/** Where this user's files are kept that nobody has named another place for. */
import { homedir } from "node:os";
import { join } from "node:path";

/**
 * @param given what the environment says, which counts
 * @param inHome where else, in the home directory
 * @returns null where there is none: of an id without a name, in a container say, the system knows nothing
 */
export function userFolder(given: string | undefined, inHome: string): string | null {
  if (given) return given;
  try {
    return join(homedir(), inHome);
  } catch {
    return null;
  }
}
