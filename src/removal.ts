/** Removes what processes of the server have made. Where it stays it costs nobody anything: nobody's work depends on it. */
import { existsSync, rmSync } from "node:fs";

/**
 * Removes a file, or a folder with all that is in it, where there is one.
 * @param log told where it stays: its disk has become read-only, say
 */
export function remove(path: string, log: (line: string) => void): void {
  try {
    // What is not there cannot be removed either, where nothing can.
    if (existsSync(path)) rmSync(path, { recursive: true, force: true });
  } catch (error) {
    log(`${path} is not removed: ${(error as Error).message}`);
  }
}
