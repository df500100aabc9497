/** A server's status as lines for a terminal of 80 columns. No terminal, no clock. */
import type { ServerStatus } from "../manager/control.ts";
import type { ProcessStats } from "../manager/messages.ts";

/** What a row tells of a process; what a kind of process does not count is left out. */
interface Row extends Omit<ProcessStats, "id" | "restarts"> {
  readonly process: string;
  readonly state: string;
  readonly requests?: number;
  readonly inFlight?: number;
  readonly queued?: number | undefined;
  readonly restarts?: number;
}

interface Column<T> {
  readonly title: string;
  readonly align: "left" | "right";
  text(row: T): string;
}

const NOTHING = "-";
const SECONDS_PER_MINUTE = 60;
const SECONDS_PER_HOUR = 3600;
const SECONDS_PER_DAY = 86_400;
const MIB = 1024 * 1024;
/** Counts up to it are told whole. */
const MAX_WHOLE_COUNT = 99_999_999;

const left = <T>(title: string, text: (row: T) => string): Column<T> => ({ title, align: "left", text });
const right = <T>(title: string, text: (row: T) => string): Column<T> => ({ title, align: "right", text });

const PROCESS_COLUMNS: readonly Column<Row>[] = [
  left("PROCESS", ({ process }) => process),
  right("PID", ({ pid }) => String(pid)),
  left("STATE", ({ state }) => state),
  right("UPTIME", ({ uptime }) => duration(uptime)),
  right("REQUESTS", ({ requests }) => count(requests)),
  right("IN FLIGHT", ({ inFlight }) => count(inFlight)),
  right("QUEUED", ({ queued }) => count(queued)),
  right("RSS", ({ rss }) => `${Math.round(rss / MIB)}M`),
  right("CPU", ({ cpu }) => `${Math.round(cpu * 100)}%`),
  right("RESTARTS", ({ restarts }) => count(restarts)),
];

type Total = readonly [protocol: string, counts: ServerStatus["totals"]["HTTP/1.1"]];

const TOTAL_COLUMNS: readonly Column<Total>[] = [
  left("PROTOCOL", ([protocol]) => protocol),
  right("IN FLIGHT", ([, { active }]) => count(active)),
  right("COMPLETED", ([, { completed }]) => count(completed)),
  right("ABORTED", ([, { aborted }]) => count(aborted)),
  right("FAILED", ([, { failed }]) => count(failed)),
  right("REJECTED", ([, { rejected }]) => count(rejected)),
];

/** @param columns of the terminal */
export function statusLines(status: ServerStatus, columns: number): string[] {
  const { version, state, port, protocols, runDirectory, manager, reactors, workers, taskWorkers } = status;
  const spoken = new Set<string>(protocols);
  // In the mode `base` a worker is its own reactor, and one process.
  const ofWorkers = new Set(workers.map(({ pid }) => pid));
  const queues = new Map(reactors.map(({ pid, queued }) => [pid, queued]));
  const rows: Row[] = [
    { process: "manager", state, ...manager },
    ...reactors
      .filter(({ pid }) => !ofWorkers.has(pid))
      .map((reactor) => ({
        process: `reactor ${reactor.id}`,
        requests: Object.values(reactor.protocols).reduce((sum, counts) => sum + received(counts), 0),
        ...reactor,
      })),
    ...workers.map((worker) => ({
      process: `worker ${worker.id}`,
      queued: queues.get(worker.pid),
      ...worker,
    })),
    ...taskWorkers.map((worker) => ({ process: `task ${worker.id}`, requests: worker.tasks, ...worker })),
  ];
  const totals = Object.entries(status.totals).filter(([protocol]) => spoken.has(protocol));
  return [
    `tercet ${version}, ${state} on port ${port} (${protocols.join(", ") || "not listening yet"})`,
    `run directory ${runDirectory}`,
    "",
    ...table(rows, PROCESS_COLUMNS, columns),
    ...(totals.length === 0 ? [] : ["", ...table(totals, TOTAL_COLUMNS, columns)]),
  ].map(plain);
}

function received({ active, completed, aborted, failed, rejected }: Total[1]): number {
  return active + completed + aborted + failed + rejected;
}

/** Two spaces between columns, or one where the line would be too long. */
function table<T>(rows: readonly T[], columns: readonly Column<T>[], width: number): string[] {
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => columns.map(({ text }) => text(row))),
  ];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]?.length ?? 0)));
  const total = widths.reduce((sum, each) => sum + each, 0);
  const gap = total + 2 * (columns.length - 1) > width ? " " : "  ";
  return cells.map((line) =>
    columns
      .map(({ align }, i) => {
        const cell = line[i] ?? "";
        return align === "left" ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0);
      })
      .join(gap)
      .trimEnd(),
  );
}

function count(value: number | undefined): string {
  if (value === undefined) return NOTHING;
  return value > MAX_WHOLE_COUNT ? `${(value / 1e6).toFixed(0)}M` : String(value);
}

/** The two largest units of it: 12s, 5m07s, 3h04m, 12d03h. */
function duration(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < SECONDS_PER_MINUTE) return `${seconds}s`;
  if (seconds < SECONDS_PER_HOUR) return pair(seconds, SECONDS_PER_MINUTE, "m", 1, "s");
  if (seconds < SECONDS_PER_DAY) return pair(seconds, SECONDS_PER_HOUR, "h", SECONDS_PER_MINUTE, "m");
  return pair(seconds, SECONDS_PER_DAY, "d", SECONDS_PER_HOUR, "h");
}

function pair(seconds: number, large: number, largeUnit: string, small: number, smallUnit: string): string {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)}${largeUnit}${String(rest).padStart(2, "0")}${smallUnit}`;
}

/** Whoever answered, nothing of it moves the terminal's cursor. */
function plain(line: string): string {
  return line.replaceAll(/\p{Cc}/gu, "?");
}
