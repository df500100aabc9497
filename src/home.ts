/** Where this user's files are kept that nobody has named another place for. */
import { homedir } from "node:os";

/** Null where there is none: of an id without a name, in a container say, the system knows nothing. */
export function homeDirectory(): string | null {
  try {
    return homedir();
  } catch {
    return null;
  }
}
