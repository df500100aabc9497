/** `tercet serve --watch`: reloads when a file beside the module has changed. For development. */
import { fstatSync, type Stats, statSync } from "node:fs";
import { basename, dirname, relative, sep } from "node:path";
import { watch } from "chokidar";
import type { Server } from "../server.ts";

/** Milliseconds without another change: an editor writes a file in several steps, a checkout many files. */
const SETTLED_AFTER = 100;
/** What is installed, what begins with a dot, and what a running app writes or an editor keeps beside a file. */
const NO_CODE = /^\.|^node_modules$|~$|\.(?:log|pid|sock|tmp|sw[op]|db|sqlite3?)(?:-\w+)?$/;
/** Names in a line. */
const MAX_NAMES = 3;

/** Resolves when every folder is watched. */
export async function reloadOnChange(file: string, server: Server): Promise<void> {
  const folder = dirname(file);
  const changed = new Set<string>();
  // `> out`, and what nohup makes of it: each reload would be followed by the next, for it writes there.
  const outputs = [fstatSync(1), fstatSync(2)];
  let timer: NodeJS.Timeout | undefined;
  const reload = () => {
    console.log(`tercet: ${listed([...changed])} changed`);
    changed.clear();
    // How it went is in the log; a change that comes meanwhile is taken by the next one.
    server.reload().catch(() => {});
  };
  const watcher = watch(folder, {
    ignored: (path) => isIgnored(relative(folder, path)),
    ignoreInitial: true,
  });
  watcher.on("all", (_event, path) => {
    const file = statSync(path, { throwIfNoEntry: false });
    if (file !== undefined && outputs.some((output) => isSame(file, output))) return;
    changed.add(relative(folder, path) || basename(folder));
    clearTimeout(timer);
    timer = setTimeout(reload, SETTLED_AFTER);
  });
  watcher.on("error", (error) => {
    console.error(`tercet: not every change is seen: ${error instanceof Error ? error.message : error}`);
  });
  await new Promise<void>((resolve) => {
    watcher.once("ready", resolve);
  });
  console.log(`tercet: watching ${folder}`);
}

function isIgnored(path: string): boolean {
  return path.split(sep).some((name) => NO_CODE.test(name));
}

function isSame(one: Stats, other: Stats): boolean {
  return one.ino === other.ino && one.dev === other.dev;
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, MAX_NAMES).join(", ");
  return names.length > MAX_NAMES ? `${shown} and ${names.length - MAX_NAMES} more` : shown;
}
