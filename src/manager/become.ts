/**
 * Loaded in a worker before anything else (`--import`), where its server has the option `user`: becomes that user. A
 * worker that cannot says so, and ends.
 */
import { tellManager } from "./messages.ts";
import { dropPrivileges, IDENTITY_VARIABLE } from "./privileges.ts";

const identity = process.env[IDENTITY_VARIABLE];
// What the user's code starts in turn inherits the arguments, and has nothing to become.
delete process.env[IDENTITY_VARIABLE];
if (identity !== undefined) {
  try {
    dropPrivileges(JSON.parse(identity));
  } catch (error) {
    const reason = `a worker cannot become another user: ${(error as Error).message}`;
    tellManager({ type: "failed", reason }, () => process.exit(1));
    await new Promise(() => {});
  }
}
