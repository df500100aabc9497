#!/usr/bin/env node
// Starts Tercet's command line in Bun, which came with it from npm, so that Node and npm are all a machine needs.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url));

if (process.versions.bun !== undefined) {
  await import(main);
} else {
  const bun = join(dirname(createRequire(import.meta.url).resolve("bun/package.json")), "bin", "bun.exe");
  const child = spawn(bun, [main, ...process.argv.slice(2)], { stdio: "inherit" });
  // Whoever stops this process means the server.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("error", (error) => {
    console.error(`tercet: cannot start bun (${error.message}); install it again: npm install bun`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}
