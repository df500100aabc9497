/** Which Tercet this is, and for which Bun. */
import { readFileSync } from "node:fs";

const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  version: string;
  dependencies: { bun: string };
};

export const VERSION = manifest.version;
/** As npm writes ranges. */
export const BUN_RANGE = manifest.dependencies.bun;
