/** Checks, at the start, that the folders of the options are there and can be used. */
import { access, constants, stat } from "node:fs/promises";
import { OptionError, type ResolvedOptions } from "../options.ts";

const READ = { mode: constants.R_OK | constants.X_OK, verb: "read" };
const WRITE = { mode: constants.W_OK | constants.X_OK, verb: "written" };

/** @throws OptionError (as a rejection) for the first that cannot */
export async function checkFolders(options: Pick<ResolvedOptions, "static" | "upload">): Promise<void> {
  for (const { root } of options.static) await check(`option "static" has the root "${root}"`, root, READ);
  const { directory } = options.upload;
  if (directory !== null) await check(`option "upload.directory" is "${directory}"`, directory, WRITE);
}

async function check(what: string, path: string, { mode, verb }: typeof READ): Promise<void> {
  const fault = await faultOf(path, mode, verb);
  if (fault !== null)
    throw new OptionError(`${what}, which ${fault}; it must be a folder that can be ${verb}`);
}

async function faultOf(path: string, mode: number, verb: string): Promise<string | null> {
  try {
    if (!(await stat(path)).isDirectory()) return "is no folder";
    await access(path, mode);
    return null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "ENOENT" ? "is not there" : `cannot be ${verb} (${code})`;
  }
}
