/** Checks, at the start, that the folders of the options are there and can be used, and code be read. */
import { access, constants, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { OptionError, type ResolvedOptions } from "../options.ts";

const READ = { mode: constants.R_OK | constants.X_OK, verb: "read" };
const WRITE = { mode: constants.W_OK | constants.X_OK, verb: "written" };

/** Those that say which folders there are to be. */
export type FolderOptions = Pick<ResolvedOptions, "static" | "upload" | "quic">;

/** @throws OptionError (as a rejection) for the first that cannot */
export async function checkFolders(options: FolderOptions): Promise<void> {
  for (const { root } of options.static) await check(`option "static" has the root "${root}"`, root, READ);
  const { directory } = options.upload;
  if (directory !== null) await check(`option "upload.directory" is "${directory}"`, directory, WRITE);
  const { qlog = null, keylog = null } = options.quic ?? {};
  if (qlog !== null) await check(`option "http3.qlog" is "${qlog}"`, qlog, WRITE);
  if (keylog !== null) await checkFile(`option "http3.keylog" is "${keylog}"`, keylog);
}

/**
 * Of a file that is not there whoever loads it tells.
 * @param paths what workers load
 * @throws OptionError (as a rejection) for the first that this process may not read
 */
export async function checkCode(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const error = await access(path, constants.R_OK).catch((error: NodeJS.ErrnoException) => error);
    if (error?.code !== "EACCES") continue;
    throw new OptionError(
      `option "user": that user may not read ${path}, which workers load; open it, and the folders above it`,
    );
  }
}

/** One that is written to, or made. */
async function checkFile(what: string, path: string): Promise<void> {
  const file = await stat(path).catch(() => null);
  if (file === null) {
    await check(`${what}, in the folder ${dirname(path)}`, dirname(path), WRITE);
    return;
  }
  const isWritable = await access(path, constants.W_OK).then(
    () => true,
    () => false,
  );
  if (file.isDirectory() || !isWritable)
    throw new OptionError(`${what}, which cannot be written; it must be a file that can`);
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
