/** The arguments that `npm run bench` and `npm run bench:scale` have in common. */
import { parseArgs } from "node:util";
import { BenchError } from "./load.ts";
import { SERVER_NAMES, type ServerName } from "./servers.ts";

const OPTIONS = {
  quick: { type: "boolean", default: false },
  servers: { type: "string" },
  only: { type: "string", default: "" },
  reactors: { type: "string" },
  resume: { type: "string" },
  publish: { type: "string" },
} as const;

export interface Settings {
  readonly quick: boolean;
  /** Null: all of them. */
  readonly servers: readonly ServerName[] | null;
  /** Of Tercet. Null: as many as it has by itself. */
  readonly reactors: number | null;
  /** A file of results to go on with. */
  readonly resume: string | null;
  /** A file of results to show in the documentation; then nothing is measured. */
  readonly publish: string | null;
  /** Whether a comparison of that name is asked for. */
  wants(comparison: string): boolean;
}

/** @throws {BenchError} for what is no argument, or none of its values */
export function parseSettings(args: readonly string[] = process.argv.slice(2)): Settings {
  const { quick, servers, only, reactors, resume, publish } = parse(args);
  const parts = only.split(",").map(bare);
  return {
    quick,
    servers: servers?.split(",").map(serverNamed) ?? null,
    reactors: reactors === undefined ? null : countOf(reactors),
    resume: resume ?? null,
    publish: publish ?? null,
    wants: (comparison) => parts.some((part) => bare(comparison).includes(part)),
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS }).values;
  } catch (cause) {
    throw new BenchError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

/** `http3` finds `HTTP/3 10 × 10`. */
function bare(text: string): string {
  return text.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
}

function countOf(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1)
    throw new BenchError(`--reactors is ${text}, and must be 1 or more`);
  return count;
}

function serverNamed(text: string): ServerName {
  const name = SERVER_NAMES.find((name) => name === text);
  if (name === undefined) {
    throw new BenchError(`there is no server ${text}; there are ${SERVER_NAMES.join(", ")}`);
  }
  return name;
}
