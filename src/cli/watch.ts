/** `tercet serve --watch`: reloads when a file beside the module has changed. For development. */
import { fstatSync, type Stats, statSync } from "node:fs";
import { basename, dirname, relative, sep } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type FSWatcher, watch } from "chokidar";
import type { Server } from "../server.ts";

/** Milliseconds without another change: an editor writes a file in several steps, a checkout many files. */
const SETTLED_AFTER = 100;
/** Milliseconds between two looks at whether the folder is still the one that is watched. */
const LOOK_INTERVAL = 500;
/** What is installed, what begins with a dot, and what a running app writes or an editor keeps beside a file. */
const NO_CODE = /^\.|^node_modules$|~$|^#.*#$|\.(?:log|pid|sock|tmp|sw[op]|db|sqlite3?)(?:-\w+)?$/;
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
  const change = (path: string) => {
    changed.add(relative(folder, path) || basename(folder));
    clearTimeout(timer);
    timer = setTimeout(reload, SETTLED_AFTER);
  };
  await watchFolder(folder, (path) => {
    const file = statSync(path, { throwIfNoEntry: false });
    if (file === undefined || !outputs.some((output) => isSame(file, output))) change(path);
  });
  console.log(`tercet: watching ${folder}`);
}

/** Resolves when it is watched. @param change is told of each path in it */
async function watchFolder(folder: string, change: (path: string) => void): Promise<void> {
  let watched = identityOf(folder);
  let watcher = await watchOnce(folder, change);
  const follow = async () => {
    for (;;) {
      await sleep(LOOK_INTERVAL);
      const there = identityOf(folder);
      if (there === null || there === watched) continue;
      // A build has removed it and made it anew, or renamed another: of what is in that one nothing would be told.
      watched = there;
      await watcher.close();
      watcher = await watchOnce(folder, change);
      change(folder);
    }
  };
  void follow();
}

async function watchOnce(folder: string, change: (path: string) => void): Promise<FSWatcher> {
  const watcher = watch(folder, {
    ignored: (path) => isIgnored(relative(folder, path)),
    ignoreInitial: true,
  });
  watcher.on("all", (_event, path) => change(path));
  watcher.on("error", (error) => {
    console.error(`tercet: not every change is seen: ${error instanceof Error ? error.message : error}`);
  });
  await new Promise<void>((resolve) => {
    watcher.once("ready", resolve);
  });
  return watcher;
}

/** Null where there is no folder. The number of one that was removed is soon another's. */
function identityOf(folder: string): string | null {
  try {
    const { dev, ino, birthtimeMs } = statSync(folder);
    return `${dev} ${ino} ${birthtimeMs}`;
  } catch {
    // Or none that can be seen for now: it is looked for again.
    return null;
  }
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
