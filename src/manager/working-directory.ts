/**
 * Where processes are started: in the folder that has the name of the one in which the manager was. A deployment may have put
 * another in its place, or removed it: what is started in a folder without a name finds no file by a relative path.
 */
import { accessSync, constants, statSync } from "node:fs";

export class WorkingDirectory {
  /** Null where the folder was gone already. */
  readonly path: string | null;

  constructor() {
    this.path = pathNow();
  }

  /** For a process that is started now; undefined for the manager's own, which it inherits. */
  get another(): string | undefined {
    if (this.path === null) return undefined;
    const there = identityOf(this.path);
    return there === null || there === identityOf(".") ? undefined : this.path;
  }
}

function pathNow(): string | null {
  try {
    return process.cwd();
  } catch {
    // It has no name any more.
    return null;
  }
}

/** Null where there is no folder, or none that this user may enter. */
function identityOf(path: string): string | null {
  try {
    const { dev, ino } = statSync(path);
    // Of a file it fails with the slash behind it.
    accessSync(`${path}/`, constants.X_OK);
    return `${dev} ${ino}`;
  } catch {
    return null;
  }
}
