/** `tercet serve app.ts`: serves the module's `fetch`. Every option has its name, unit and default from options.ts. */
import { existsSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Command, Option } from "commander";
import { type FetchHandler, fetchHandler } from "../handler/fetch.ts";
import {
  type ExchangeHandler,
  REQUEST_HANDLER,
  type RequestHandler,
  requestHandler,
} from "../handler/run.ts";
import { installKnownResponse } from "../handler/web-response.ts";
import { inOneLine } from "../log.ts";
import { StartError } from "../manager/start-error.ts";
import { OptionError, type ResolvedOptions, resolveOptions, type ServerOptions } from "../options.ts";
import { Server } from "../server.ts";
import type { TaskHandler } from "../tasks/task.ts";
import { taskWorkerId, workerId } from "../worker/role.ts";
import { defaultLogFile, startDaemon, takeDaemon } from "./daemon.ts";
import { type CertificateFlags, hostFlag, numberOf, portFlag, tlsOf } from "./flags.ts";

type NumberOption = {
  [Name in keyof ResolvedOptions]: ResolvedOptions[Name] extends number ? Name : never;
}[keyof ResolvedOptions];

const NUMBERS: readonly (readonly [name: NumberOption, unit: string, description: string])[] = [
  ["reactors", "n", "reactor processes"],
  ["maxHeaderBytes", "bytes", "of a request's head; over it 431"],
  ["maxBodyBytes", "bytes", "of a request's body; over it 413"],
  ["requestTimeout", "ms", "until a response must have begun; then 504; 0: no limit"],
  ["maxRequests", "n", "requests after which a worker is replaced; 0: never"],
  ["maxMemory", "bytes", "resident memory over which a worker or task worker is replaced; 0: never"],
  ["concurrency", "n", "requests that one worker has at a time; 0: no limit"],
  ["workerIdleTimeout", "ms", "without a request until a worker above the least number leaves"],
  ["reloadTimeout", "ms", "for a new worker to become ready, and for an old one to finish"],
  ["keepAliveTimeout", "ms", "without a request until a connection is closed"],
  ["maxConnections", "n", "connections that one reactor may have; 0: no limit"],
  ["maxConnectionsPerAddress", "n", "the same, from one address; 0: no limit"],
  ["maxRequestsPerConnection", "n", "requests after which a connection ends; 0: no limit"],
  ["maxExchanges", "n", "exchanges that one reactor has with its workers at one time"],
  ["maxQueue", "n", "exchanges that wait in one reactor; one more gets 503"],
  ["queueTarget", "ms", "that a request may be expected to wait in a queue that stands; over it 503"],
  ["shutdownTimeout", "ms", "for requests in flight at shutdown"],
];

type Flags = { [Name in NumberOption]?: string } & CertificateFlags & {
    host: string;
    port: string;
    mode?: string;
    workers?: string;
    dispatch?: string;
    reloadStrategy?: string;
    http3?: string;
    compression: boolean;
    static?: string;
    taskWorkers?: string;
    durableTasks?: string;
    trustProxy?: string;
    runDir?: string;
    pidFile?: string;
    user?: string;
    group?: string;
    watch?: true;
    daemon?: true;
    logFile?: string;
  };

export function serveCommand(): Command {
  const defaults = resolveOptions({});
  const command = new Command("serve")
    .description(
      "serve the module's default export, { fetch(request), task?(data) } or nodeHandler(app), over HTTP/1.1, HTTP/2 and HTTP/3",
    )
    .argument("<module>", "TypeScript or JavaScript file")
    .addOption(hostFlag("name or address to listen on"))
    .addOption(portFlag("for TCP and UDP; 0 lets the system pick"))
    .addOption(
      withDefault(
        "--mode <mode>",
        "whose the sockets are: process (reactors') | base (workers')",
        defaults.mode,
      ),
    )
    .addOption(
      withDefault("--workers <n>", "worker processes, or the least and the most: 2-8", defaults.workers.min),
    )
    .addOption(
      withDefault(
        "--dispatch <policy>",
        "who gets a request: least-busy | round-robin | connection | address",
        "least-busy",
      ),
    )
    .addOption(
      withDefault(
        "--reload-strategy <strategy>",
        "how workers are replaced: all-at-once | one-at-a-time",
        defaults.reloadStrategy,
      ),
    )
    .addOption(withDefault("--http3 <engine>", "engine: native | quic | off", defaults.http3))
    .option("--cert <file>", "PEM certificate (default: a self-signed one for localhost)")
    .option("--key <file>", "PEM private key of the certificate")
    .option("--no-tls", "plain HTTP/1.1, without HTTP/2 and HTTP/3")
    .option("--no-compression", "responses go out as they are")
    .option("--trust-proxy <list>", "addresses and networks of trusted proxies, separated by commas")
    .option("--task-workers <n>", "processes that run the module's task(data, task) (default: none)")
    .option(
      "--durable-tasks <file>",
      "SQLite file that keeps tasks until they are done; needs --task-workers",
    )
    .option("--static <root>", "folder of files that are answered before the module is asked")
    .option("--user <user>", "name or id: bind as root, then become this user; the manager stays root")
    .option("--group <group>", "name or id of the group (default: the user's own)")
    .option(
      "--run-dir <folder>",
      "of the control socket (default: tercet-<uid>-<port> in the temporary folder)",
    )
    .option("--pid-file <file>", "for the manager's process id, beside the one in the run directory")
    .option("--watch", "reload when a file in the module's folder has changed; for development")
    .option("--daemon", "return when the server is ready, and leave it running")
    .option(
      "--log-file <file>",
      "of a daemon (default: <port>.log in /var/log/tercet or ~/.local/state/tercet)",
    );
  for (const [name, unit, description] of NUMBERS) {
    command.addOption(withDefault(`--${kebab(name)} <${unit}>`, description, defaults[name]));
  }
  return command.action(serve);
}

async function serve(path: string, flags: Flags): Promise<void> {
  const file = resolve(path);
  const daemon = takeDaemon();
  // A daemon and a worker have their flags from a process that has checked them.
  if (daemon === null && workerId === null && taskWorkerId === null) {
    checkTogether(flags);
    checkModule(file, path);
  }
  const server = new Server(flags.host, numberOf(flags.port), optionsOf(flags));
  if (flags.daemon) {
    await startDaemon(flags.logFile ?? defaultLogFile(flags.port));
    return;
  }
  server.handleWith((options) => loadHandler(server, file, path, options), path);
  if (flags.taskWorkers !== undefined) server.taskWith(() => loadTask(file, path));
  server.on("start", () => {
    const scheme = flags.tls ? "https" : "http";
    const host = flags.host === "::" || flags.host === "0.0.0.0" ? "localhost" : flags.host;
    const url = `${scheme}://${host.includes(":") ? `[${host}]` : host}:${server.port}`;
    const line = `tercet: ready on ${url} (${server.protocols.join(", ")})`;
    const runDirectory = server.runDirectory ?? "";
    console.log(line);
    daemon?.({ pid: process.pid, runDirectory, line });
    // What is not known by its port cannot be guessed.
    if (flags.port === "0") console.log(`tercet: run directory ${runDirectory}`);
  });
  await server.start();
  if (flags.watch) {
    // Loaded where it is used, which is not in production.
    const { reloadOnChange } = await import("./watch.ts");
    await reloadOnChange(file, server);
  }
}

/** @throws OptionError for flags that say nothing without another, or not with it */
function checkTogether({ daemon, logFile, watch }: Flags): void {
  if (logFile !== undefined && !daemon) throw new OptionError('option "log-file" needs --daemon');
  if (watch && daemon)
    throw new OptionError('option "watch" is for development: it does not go with --daemon');
}

/**
 * What else a module may lack a worker finds, where the manager hears of it.
 * @throws StartError where there is no file
 */
function checkModule(file: string, path: string): void {
  if (path === "" || !existsSync(file)) throw new StartError(`there is no file ${path || '""'}`);
  if (statSync(file).isDirectory())
    throw new StartError(`${path} is a folder: name the file in it that exports the handler`);
}

/** What a module exports by default. */
interface App {
  fetch?: unknown;
  task?: unknown;
  [REQUEST_HANDLER]?: unknown;
}

/**
 * What the module exports, within an object: by itself an app would be waited for that has a `then`, as itty-router's
 * have a method of every name.
 * @throws StartError where the module does not load
 */
async function loadApp(file: string, path: string): Promise<{ readonly app: App | undefined }> {
  try {
    const { default: app } = await import(pathToFileURL(file).href);
    return { app: app instanceof Promise ? await app : app };
  } catch (thrown) {
    throw new StartError(`${path} does not load: ${inOneLine(thrown)}`, { cause: thrown });
  }
}

/** @throws StartError where the module does not load, or has no handler */
async function loadHandler(
  server: Server,
  file: string,
  path: string,
  options: ResolvedOptions,
): Promise<ExchangeHandler> {
  installKnownResponse();
  const { app } = await loadApp(file, path);
  if (app?.[REQUEST_HANDLER] === true) return requestHandler(app as RequestHandler, options);
  if (typeof app?.fetch !== "function") {
    const advice =
      typeof app === "function" ? "; a (req, res) handler is wrapped by nodeHandler of tercet/node" : "";
    throw new StartError(`${path} has no handler: it must export default { fetch(request) { … } }${advice}`);
  }
  const served = app as { fetch: FetchHandler };
  return fetchHandler((request, env, context) => served.fetch(request, env, context), server);
}

/** @throws StartError where the module does not load, or runs no tasks */
async function loadTask(file: string, path: string): Promise<TaskHandler> {
  const { app } = await loadApp(file, path);
  if (typeof app?.task !== "function") {
    throw new StartError(
      `${path} runs no tasks: with --task-workers it must export default { fetch, task(data) { … } }`,
    );
  }
  const served = app as { task: TaskHandler };
  return (data, task) => served.task(data, task);
}

function optionsOf(flags: Flags): ServerOptions {
  // What a flag says is checked where every option is: a wrong one is named there with what is allowed.
  const options: Record<string, unknown> = {};
  for (const [name] of NUMBERS) {
    const value = flags[name];
    if (value !== undefined) options[name] = numberOf(value);
  }
  if (flags.mode !== undefined) options.mode = flags.mode;
  if (flags.workers !== undefined) options.workers = workersOf(flags.workers);
  if (flags.dispatch !== undefined) options.dispatch = flags.dispatch;
  if (flags.reloadStrategy !== undefined) options.reloadStrategy = flags.reloadStrategy;
  if (flags.http3 !== undefined) options.http3 = flags.http3;
  if (flags.runDir !== undefined) options.runDirectory = flags.runDir;
  if (flags.pidFile !== undefined) options.pidFile = flags.pidFile;
  if (flags.user !== undefined) options.user = flags.user;
  if (flags.group !== undefined) options.group = flags.group;
  if (flags.trustProxy !== undefined)
    options.trustProxy = flags.trustProxy.split(",").map((entry) => entry.trim());
  if (flags.static !== undefined) options.static = { root: flags.static };
  options.tasks = tasksOf(flags);
  options.compression = flags.compression;
  options.tls = tlsOf(flags);
  return options;
}

function tasksOf({ taskWorkers, durableTasks: durable }: Flags): unknown {
  if (taskWorkers === undefined && durable !== undefined) {
    throw new OptionError('option "task-workers" is missing: --durable-tasks needs somebody to run them');
  }
  return taskWorkers === undefined ? undefined : { workers: numberOf(taskWorkers), durable };
}

/** `4`, or `2-8`. */
function workersOf(text: string): unknown {
  const span = /^(\d+)-(\d+)$/.exec(text);
  return span === null ? numberOf(text) : { min: Number(span[1]), max: Number(span[2]) };
}

/** Shows the default in the help; it is filled in where every option is. */
function withDefault(flags: string, description: string, value: string | number): Option {
  return new Option(flags, `${description} (default: ${value})`);
}

function kebab(name: string): string {
  return name.replaceAll(/[A-Z0-9]+/g, (part) => `-${part.toLowerCase()}`);
}
