/** What is installed on this machine beside the project, named by environment variables; and what is not. */
import { h2load } from "./h2load.ts";
import type { Generator, Protocol } from "./load.ts";
import { versionOf } from "./machine.ts";
import { ownGenerator } from "./own.ts";
import type { Missing } from "./results.ts";
import type { Programs } from "./servers.ts";

// Not NODE, which npm sets to its own.
const ADVICE = {
  H2LOAD:
    "set H2LOAD to the command of an h2load 1.70 or later that was built with HTTP/3 (nghttp2, --enable-http3). " +
    "The project's own generator, which took its place, is slower than the fastest servers",
  NGINX:
    "set NGINX to the command of an nginx 1.25.1 or later with HTTP/3 (apt-get install nginx on Debian 13)",
  CADDY: "set CADDY to the command of a Caddy 2.6 or later (apt-get install caddy)",
  NODEJS: "set NODEJS to the command of a Node.js, or put node on the PATH",
} as const;

export interface Installed {
  readonly programs: Programs;
  readonly generators: Readonly<Record<Protocol, Generator>>;
  readonly versions: Readonly<Record<string, string>>;
  readonly missing: readonly Missing[];
}

/** @throws {BenchError} where H2LOAD names what is no h2load with HTTP/3 */
export async function findPrograms(signal: AbortSignal): Promise<Installed> {
  const missing: Missing[] = [];
  const find = (variable: keyof typeof ADVICE, what: string): readonly string[] | null => {
    const command = commandOf(variable);
    if (command === null) missing.push({ what, how: ADVICE[variable] });
    return command;
  };
  const loader = find("H2LOAD", "the generator h2load");
  const programs = {
    node: commandOf("NODEJS") ?? nodeOnPath(),
    nginx: find("NGINX", "nginx, and nginx in front of node:http"),
    caddy: find("CADDY", "Caddy, and Caddy in front of node:http"),
  };
  if (programs.node === null) missing.push({ what: "what runs on Node.js", how: ADVICE.NODEJS });
  const generator = loader === null ? ownGenerator : await h2load(loader, signal);
  return {
    programs,
    generators: { "HTTP/1.1": generator, "HTTP/2": generator, "HTTP/3": generator },
    versions: await versionsOf(programs, signal),
    missing,
  };
}

/** A program and its arguments, separated by spaces: `chroot /srv/debian nginx`. */
function commandOf(variable: keyof typeof ADVICE): readonly string[] | null {
  const command = process.env[variable]?.trim() ?? "";
  return command === "" ? null : command.split(/\s+/);
}

function nodeOnPath(): readonly string[] | null {
  const node = Bun.which("node");
  return node === null ? null : [node];
}

async function versionsOf(programs: Programs, signal: AbortSignal): Promise<Record<string, string>> {
  const { node, nginx, caddy } = programs;
  const asked = { "Node.js": [node, "--version"], nginx: [nginx, "-v"], Caddy: [caddy, "version"] } as const;
  const versions: Record<string, string> = { Bun: Bun.version };
  for (const [name, [program, flag]] of Object.entries(asked)) {
    const version = program === null ? null : await versionOf([...program, flag], signal);
    if (version !== null) versions[name] = version;
  }
  if (node !== null) {
    const path = Bun.resolveSync("@currentspace/http3/package.json", import.meta.dir);
    versions["@currentspace/http3"] = ((await Bun.file(path).json()) as { version: string }).version;
  }
  return versions;
}
