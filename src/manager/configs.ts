/** What the manager is told, and what of that it tells the processes that it starts. */
import { resolve } from "node:path";
import type { BaseConfig } from "../base/base-server.ts";
import type { Certificates } from "../listeners/listener.ts";
import type { ListenConfig } from "../listeners/open.ts";
import type { ResolvedOptions, ResolvedTasks } from "../options.ts";
import { dispatchSettingOf } from "../reactor/dispatch-policy.ts";
import type { ReactorLimits } from "../reactor/reactor.ts";
import type { ReactorConfig } from "./messages.ts";
import type { Identity } from "./privileges.ts";

export interface ManagerConfig {
  readonly host: string;
  readonly port: number;
  readonly options: ResolvedOptions;
  /** Null for plain HTTP/1.1. */
  readonly certificates: Certificates | null;
  /** Whom the other processes become; null where they stay what this one is. */
  readonly identity: Identity | null;
  /** Where the processes meet: they alone can enter it. */
  readonly directory: string;
  /** What they are to remove where this process has gone. */
  readonly remains: string;
  /** What the processes of user code load, where that is not the script itself: a path. */
  readonly module: string | null;
  /** Null where there is nobody to run tasks. */
  readonly tasks: ResolvedTasks | null;
}

const LIMITS = [
  "maxHeaderBytes",
  "maxBodyBytes",
  "requestTimeout",
  "concurrency",
  "maxExchanges",
  "maxQueue",
  "queueTarget",
] as const satisfies (keyof ReactorLimits & keyof BaseConfig["limits"])[];
/** Of a reactor, beside those for its workers, of which there are twice as many during a reload: its own, and files that it sends. */
const SPARE_DESCRIPTORS = 64;
const LISTENER_OPTIONS = [
  "maxBodyBytes",
  "maxHeaderBytes",
  "keepAliveTimeout",
  "maxConnections",
  "maxConnectionsPerAddress",
  "maxRequestsPerConnection",
] as const satisfies (keyof ListenConfig)[];

export function listenConfig(
  { host, options, directory }: ManagerConfig,
  now: Pick<ListenConfig, "port" | "reusePort" | "tls">,
): ListenConfig {
  const { mode, workers, http3, quic, upload } = options;
  // Else clients that wait for one would keep out every worker that takes another's place.
  const spareDescriptors = mode === "base" ? 0 : SPARE_DESCRIPTORS + 2 * workers.max;
  const listened = { host, http3, quic, directory: upload.directory ?? directory, spareDescriptors };
  return { ...listened, ...pick(options, LISTENER_OPTIONS), ...now };
}

/** @param now `isRunning` once the server has started */
export function reactorConfig(
  config: ManagerConfig,
  {
    isRunning,
    ...own
  }: Pick<ReactorConfig, "id" | "listen" | "socketPath"> & { readonly isRunning: boolean },
): ReactorConfig {
  const { options, remains, identity } = config;
  return {
    ...own,
    limits: pick(options, LIMITS),
    dispatch: dispatchSettingOf(options.dispatch),
    isElastic: options.workers.min < options.workers.max,
    static: options.static,
    remains,
    identity,
    folders: foldersToCheck(config, isRunning),
    code: [process.argv[1] ?? "", ...(config.module === null ? [] : [resolve(config.module)])],
  };
}

/** For a worker that listens. */
export function baseConfig(config: ManagerConfig, isRunning: boolean): BaseConfig {
  const { options, remains } = config;
  return {
    limits: pick(options, LIMITS),
    static: options.static,
    folders: foldersToCheck(config, isRunning),
    remains,
  };
}

/** By the process that has become who it will be: the manager, which is root then, may enter all of them. */
function foldersToCheck({ identity, options }: ManagerConfig, isRunning: boolean): ReactorConfig["folders"] {
  return identity === null || isRunning ? null : pick(options, ["static", "upload", "quic"]);
}

function pick<Whole, Name extends keyof Whole>(whole: Whole, names: readonly Name[]): Pick<Whole, Name> {
  return Object.fromEntries(names.map((name) => [name, whole[name]])) as Pick<Whole, Name>;
}
