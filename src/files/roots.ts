/** Checks, at the start, that the folders of static files can be read. */
import { access, constants, stat } from "node:fs/promises";
import { OptionError, type ResolvedStatic } from "../options.ts";

/** @throws OptionError (as a rejection) for the first that cannot */
export async function checkRoots(roots: readonly ResolvedStatic[]): Promise<void> {
  for (const { root } of roots) {
    try {
      if (!(await stat(root)).isDirectory()) throw wrongRoot(root, "which is no folder");
      await access(root, constants.R_OK | constants.X_OK);
    } catch (error) {
      if (error instanceof OptionError) throw error;
      const { code } = error as NodeJS.ErrnoException;
      throw wrongRoot(root, code === "ENOENT" ? "which is not there" : `which cannot be read (${code})`);
    }
  }
}

function wrongRoot(root: string, what: string): OptionError {
  return new OptionError(
    `option "static" has the root "${root}", ${what}; it must be a folder that can be read`,
  );
}
