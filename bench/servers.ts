/** The servers: what each is called, what it speaks, and how it is started, in processes of its own and on a free port. */
import { join } from "node:path";
import type { ServerOptions } from "../src/index.ts";
import { BODY_LIMIT, FILE_VARIABLE, GREETING, HEAD_LIMIT, IDLE_SECONDS } from "./apps/answers.ts";
import { BenchError, PROTOCOLS, type Protocol } from "./load.ts";
import { type ProxyKind, startProxy } from "./proxies.ts";
import { startListening } from "./service.ts";

const ROOT = join(import.meta.dir, "..");
/** Milliseconds for a server to answer its first request. */
const ANSWER_LIMIT = 20_000;
/** Of every server on Bun that is not Tercet, whose own processes have theirs from `maxHeaderBytes`. */
const HEADS = `--max-http-header-size=${HEAD_LIMIT}`;

export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** Commands, as programs and their arguments; null where there is none. */
export interface Programs {
  readonly node: readonly string[] | null;
  readonly nginx: readonly string[] | null;
  readonly caddy: readonly string[] | null;
}

export interface Place {
  readonly certificate: Certificate;
  /** The response to `/file`. */
  readonly file: string;
  /** For files that are needed as long as a server runs. */
  readonly folder: string;
  readonly programs: Programs;
  /** The server behind nginx and Caddy. */
  readonly upstream: Running | null;
  /** Options of Tercet beside those that make the kind. */
  readonly options: ServerOptions;
}

interface Running extends AsyncDisposable {
  readonly port: number;
  /** The first process of each command. */
  readonly pids: readonly number[];
}

export interface RunningServer extends Running {
  readonly name: ServerName;
}

interface ServerKind {
  readonly label: string;
  readonly protocols: readonly Protocol[];
  /** What it is beside the others: ours · a bare server of the runtime · what others put there. */
  readonly group: "tercet" | "bare" | "other";
  /** What must be installed for it. */
  readonly needs?: keyof Programs;
  readonly launch: (place: Place) => Promise<Running>;
}

const TCP: readonly Protocol[] = ["HTTP/2", "HTTP/1.1"];

/** In the order in which they are loaded: what is compared is near to each other. */
const KINDS = {
  raw: { label: "Bun.serve", protocols: PROTOCOLS, group: "bare", launch: bun("raw") },
  "node-http2": { label: "node:http2", protocols: TCP, group: "bare", launch: bun("node-http2") },
  process: { label: "Tercet", protocols: PROTOCOLS, group: "tercet", launch: tercet({ mode: "process" }) },
  base: { label: "Tercet, base", protocols: PROTOCOLS, group: "tercet", launch: tercet({ mode: "base" }) },
  fetch: { label: "Tercet, fetch form", protocols: ["HTTP/3"], group: "tercet", launch: fetchForm },
  "node-quic": { label: "node:quic", protocols: ["HTTP/3"], group: "bare", launch: bun("node-quic") },
  quic: {
    label: "Tercet, quic",
    protocols: ["HTTP/3"],
    group: "tercet",
    launch: tercet({ mode: "process", http3: "quic", reactors: 1 }),
  },
  nginx: proxy("nginx", "nginx, return", false),
  caddy: proxy("caddy", "Caddy, respond", false),
  "nginx-node": proxy("nginx", "nginx → node:http", true),
  "caddy-node": proxy("caddy", "Caddy → node:http", true),
  currentspace: {
    label: "@currentspace/http3",
    protocols: ["HTTP/3"],
    group: "other",
    needs: "node",
    launch: node("currentspace"),
  },
} as const satisfies Record<string, ServerKind>;

export type ServerName = keyof typeof KINDS;
export const SERVERS: Readonly<Record<ServerName, ServerKind>> = KINDS;
export const SERVER_NAMES = Object.keys(KINDS) as readonly ServerName[];

/** @throws {BenchError} where the server does not become ready, or greets in another way; nothing is left running then. */
export async function startServer(name: ServerName, place: Place): Promise<RunningServer> {
  const running = await SERVERS[name].launch(place);
  try {
    for (const protocol of SERVERS[name].protocols) await greeted(name, running.port, protocol);
    return { ...running, name };
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

/** What nginx and Caddy have behind them. It runs on Node.js where there is one, and else on Bun. */
export function startUpstream(place: Place): Promise<Running> {
  return place.programs.node === null ? bun("node-http")(place) : node("node-http")(place);
}

function bun(app: string): ServerKind["launch"] {
  return (place) => start(app, [process.execPath, HEADS, `bench/apps/${app}.ts`], place);
}

/** Node.js runs no TypeScript before its version 22: it gets JavaScript. */
function node(app: string): ServerKind["launch"] {
  return async (place) => {
    const { node } = place.programs;
    if (node === null) throw new BenchError(`${app} needs Node.js`);
    // Beside the packages that it imports.
    const outdir = join(ROOT, "node_modules/.cache/tercet-bench");
    const entrypoints = [join(ROOT, `bench/apps/${app}.ts`)];
    await Bun.build({ entrypoints, outdir, target: "node", packages: "external", naming: "[name].mjs" });
    return start(app, [...node, join(outdir, `${app}.mjs`)], place);
  };
}

function tercet(kind: object): ServerKind["launch"] {
  return (place) => {
    const options = JSON.stringify({ ...place.options, ...kind });
    return start("tercet", [process.execPath, "bench/apps/tercet.ts"], place, [options]);
  };
}

function fetchForm(place: Place): Promise<Running> {
  const { certificate, options } = place;
  const serve = ["src/cli/main.ts", "serve", "bench/apps/hello.ts", "--workers", "1"];
  const reactors = options.reactors === undefined ? [] : ["--reactors", `${options.reactors}`];
  const where = ["--host", "127.0.0.1", "--port", "0", "--cert", certificate.cert, "--key", certificate.key];
  const limits = ["--keep-alive-timeout", `${IDLE_SECONDS * 1000}`, "--max-body-bytes", `${BODY_LIMIT}`];
  return listen("tercet serve", [process.execPath, ...serve, ...reactors, ...where, ...limits], place);
}

function proxy(kind: ProxyKind, label: string, proxies: boolean) {
  const launch = async ({ programs, upstream, certificate, folder }: Place): Promise<Running> => {
    const program = programs[kind];
    if (program === null || (proxies && upstream === null)) throw new BenchError(`${label} is not there`);
    const behind = proxies ? upstream : null;
    const service = await startProxy(kind, program, certificate, behind?.port ?? null, folder);
    return { ...service, pids: [service.pid, ...(behind?.pids ?? [])] };
  };
  return { label, protocols: PROTOCOLS, group: "other", needs: kind, launch } as const;
}

function start(
  app: string,
  command: readonly string[],
  place: Place,
  options: readonly string[] = [],
): Promise<Running> {
  const { cert, key } = place.certificate;
  return listen(app, [...command, cert, key, ...options], place);
}

async function listen(name: string, command: readonly string[], { file }: Place): Promise<Running> {
  const service = await startListening(name, command, { cwd: ROOT, env: { [FILE_VARIABLE]: file } });
  return { ...service, pids: [service.pid] };
}

/** Waits until it greets as the others do. Bun's client has no HTTP/2: over TCP it asks by HTTP/1.1. */
async function greeted(name: ServerName, port: number, protocol: Protocol): Promise<void> {
  let last = "nothing";
  for (const until = performance.now() + ANSWER_LIMIT; performance.now() < until; await Bun.sleep(50)) {
    try {
      const response = await ask(port, "/", protocol);
      const text = await response.text();
      if (response.status === 200 && text === GREETING) return;
      throw new BenchError(
        `${name} answered ${response.status} and ${JSON.stringify(text)} over ${protocol}`,
      );
    } catch (error) {
      if (error instanceof BenchError) throw error;
      last = String(error);
    }
  }
  throw new BenchError(`${name} did not answer over ${protocol}: ${last}`);
}

export function ask(port: number, path: string, protocol: Protocol, fields: Record<string, string> = {}) {
  return fetch(`https://127.0.0.1:${port}${path}`, {
    headers: fields,
    tls: { rejectUnauthorized: false },
    decompress: false,
    signal: AbortSignal.timeout(ANSWER_LIMIT),
    ...(protocol === "HTTP/3" ? { protocol: "http3" } : {}),
  });
}
