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
  const folder = dirname(createRequire(import.meta.url).resolve("bun/package.json"));
  const bun = join(folder, "bin", "bun.exe");
  const args = [main, ...process.argv.slice(2)];
  const fail = (error) => {
    // Package managers leave install scripts out that nobody has allowed.
    const advice = `its install script may not have run: node ${join(folder, "install.js")}`;
    console.error(`tercet: cannot start bun (${error.message}); ${advice}`);
    process.exit(1);
  };
  if (process.execve !== undefined) {
    // Becomes Bun: whoever started this process has the server itself.
    try {
      process.execve(bun, [bun, ...args], process.env);
    } catch (error) {
      fail(error);
    }
  }
  startBeside(bun, args, fail);
}

/** For a Node.js that cannot become another program (before 22.15): stands for it, in signals and exit code. */
function startBeside(bun, args, fail) {
  const env = { ...process.env, TERCET_LAUNCHER: String(process.pid) };
  // Systemd's watchdog means the server, which runs in a process of its own.
  delete env.WATCHDOG_PID;
  const child = spawn(bun, args, { stdio: "inherit", env });
  const signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"];
  for (const signal of signals) process.on(signal, () => child.kill(signal));
  child.on("error", fail);
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code);
    for (const each of signals) process.removeAllListeners(each);
    // As a shell tells of it: no signal ends the first process of a container that it sends to itself.
    process.exitCode = 128 + constants.signals[signal];
    process.kill(process.pid, signal);
  });
}
