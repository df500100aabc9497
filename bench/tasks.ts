/**
 * What a task, an operation of a table and a message to all cost, measured inside of a worker: `npx bun bench/tasks.ts`. One worker,
 * one task worker; the median of many rounds.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { median } from "./statistics.ts";

const APP = join(import.meta.dir, "apps/tasks.ts");

interface Row {
  readonly what: string;
  readonly call: string;
  readonly times: number;
  readonly rounds: number;
}

const ROWS: readonly Row[] = [
  { what: "`table.incr`, one after another", call: "incr", times: 1, rounds: 2000 },
  { what: "`table.incr`, 10 in one turn", call: "incr", times: 10, rounds: 1000 },
  { what: "`table.incr`, 100 in one turn", call: "incr", times: 100, rounds: 300 },
  { what: "`table.get`, one after another", call: "get", times: 1, rounds: 2000 },
  { what: "`broadcast` of 100 bytes, until it is heard", call: "broadcast", times: 100, rounds: 1000 },
  { what: "`broadcast` of 100 KB", call: "broadcast", times: 100_000, rounds: 50 },
  { what: "`broadcast` of 1 MB", call: "broadcast", times: 1_000_000, rounds: 10 },
  { what: "`task`, one after another", call: "task", times: 1, rounds: 2000 },
  { what: "`task`, 100 at once", call: "task", times: 100, rounds: 100 },
  { what: "`defer`, 100 at once", call: "defer", times: 100, rounds: 50 },
  { what: "`task` with 1 MiB there and back", call: "buffer", times: 1, rounds: 50 },
];
/** Of ROWS: those that a durable queue is asked, too. */
const DURABLE = ["task", "defer", "buffer"];

async function measure(tasks: object, rows: readonly Row[], note: string): Promise<void> {
  const server = Bun.spawn([process.execPath, APP], {
    env: { ...process.env, BENCH_TASKS: JSON.stringify(tasks) },
    stdout: "pipe",
    stderr: "inherit",
  });
  try {
    const { value } = await server.stdout.getReader().read();
    const port = Number(new TextDecoder().decode(value));
    for (const { what, call, times, rounds } of rows) {
      const ask = async (count: number): Promise<number[]> => {
        const response = await fetch(`http://127.0.0.1:${port}/${call}?times=${times}&rounds=${count}`);
        return (await response.json()) as number[];
      };
      await ask(Math.ceil(rounds / 3));
      const taken = median(await ask(rounds));
      const each = call === "broadcast" ? taken : taken / times;
      console.log(`| ${what}${note} | ${(each * 1000).toFixed(each < 0.1 ? 1 : 0)} µs |`);
    }
  } finally {
    server.kill();
    await server.exited;
  }
}

const directory = mkdtempSync(join(tmpdir(), "tercet-bench-"));
try {
  console.log("| | each |\n|---|---:|");
  await measure({}, ROWS, "");
  const durable = { durable: join(directory, "tasks.db") };
  await measure(
    durable,
    ROWS.filter(({ call }) => DURABLE.includes(call)),
    ", durable",
  );
} finally {
  rmSync(directory, { recursive: true, force: true });
}
