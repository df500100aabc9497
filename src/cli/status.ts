/** `tercet status`: what a running server does, once or again and again. */
import { setTimeout as sleep } from "node:timers/promises";
import { Command } from "commander";
import type { ServerStatus } from "../manager/control.ts";
import type { ControlClient } from "../manager/control-client.ts";
import { DEFAULT_COLUMNS } from "./flags.ts";
import { ANSWER_TIMEOUT, connectTo, type ServerFlags, withServerFlags } from "./running-server.ts";
import { statusLines } from "./status-table.ts";

interface StatusFlags extends ServerFlags {
  readonly json?: true;
  readonly watch?: true;
}

/** Milliseconds. */
const WATCH_INTERVAL = 1000;

/** A screen of its own, without a cursor, so that what was there before comes back (ECMA-48, xterm). */
const ENTER_SCREEN = "\x1b[?1049h\x1b[?25l";
const LEAVE_SCREEN = "\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const ERASE_LINE = "\x1b[K";
const ERASE_BELOW = "\x1b[J";

export function statusCommand(): Command {
  return withServerFlags(new Command("status"))
    .description("show what a running server and each of its processes do")
    .option("--json", "as one line of JSON")
    .option("--watch", "again each second, until Ctrl-C")
    .action(status);
}

async function status(flags: StatusFlags): Promise<void> {
  process.stdout.on("error", ({ code, message }: NodeJS.ErrnoException) => {
    // Who reads no further has seen enough: `| head -1`.
    if (code === "EPIPE") process.exit(0);
    console.error(`tercet: the status cannot be written: ${message}`);
    process.exit(1);
  });
  using client = await connectTo(flags);
  if (!flags.watch) print(await client.status(ANSWER_TIMEOUT), flags);
  else if (flags.json || !process.stdout.isTTY) await repeat(client, (told) => print(told, flags));
  else await watch(client);
}

function print(told: ServerStatus, { json }: StatusFlags): void {
  const columns = process.stdout.columns ?? DEFAULT_COLUMNS;
  process.stdout.write(json ? `${JSON.stringify(told)}\n` : `${statusLines(told, columns).join("\n")}\n`);
}

/** @throws ControlError (as a rejection) when the server has gone */
async function repeat(client: ControlClient, show: (told: ServerStatus) => void): Promise<never> {
  for (;;) {
    show(await client.status(ANSWER_TIMEOUT));
    await sleep(WATCH_INTERVAL);
  }
}

async function watch(client: ControlClient): Promise<void> {
  let last: ServerStatus | null = null;
  const draw = () => {
    if (last !== null) process.stdout.write(screenOf(last));
  };
  const leave = () => process.stdout.write(LEAVE_SCREEN);
  process.stdout.write(ENTER_SCREEN);
  process.on("exit", leave);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(0));
  process.stdout.on("resize", draw);
  try {
    await repeat(client, (told) => {
      last = told;
      draw();
    });
  } finally {
    process.off("exit", leave);
    leave();
  }
}

/** All of it in one write, each line over what was there before: nothing is blank in between. */
function screenOf(told: ServerStatus): string {
  const { columns, rows } = process.stdout;
  const lines = statusLines(told, columns).slice(0, rows);
  const drawn = lines.map((line) => `${line.slice(0, columns)}${ERASE_LINE}`);
  return `${HOME}${drawn.join("\r\n")}${ERASE_BELOW}`;
}
