/** What the manager says to its processes, and they to it, over the IPC channel of `node:child_process`. */

import type { Protocol } from "../exchange.ts";
import type { ResolvedStatic } from "../options.ts";
import type { ReactorLimits } from "../reactor/reactor.ts";
import type { ExchangeSnapshot, ProtocolCounts } from "../reactor/registry.ts";

/** Set in a worker's environment: its id. The worker takes it out again, lest its own children be taken for workers. */
export const WORKER_ID_VARIABLE = "TERCET_WORKER_ID";

export interface ReactorConfig {
  readonly id: number;
  readonly host: string;
  readonly port: number;
  readonly reusePort: boolean;
  readonly tls: { readonly cert: string; readonly key: string } | null;
  readonly http3: "native" | "off";
  readonly keepAliveTimeout: number;
  readonly limits: ReactorLimits;
  readonly static: readonly ResolvedStatic[];
  /** The unix socket to which workers connect. */
  readonly socketPath: string;
}

export interface ReactorStats {
  /** From 1. */
  readonly id: number;
  readonly pid: number;
  /** Resident memory, bytes. */
  readonly rss: number;
  /** Exchanges from the first header to the last byte. */
  readonly inFlight: number;
  /** Those of them that wait for a worker. */
  readonly queued: number;
  /** Response frames that came after the client had left. */
  readonly droppedFrames: number;
  readonly protocols: Readonly<Record<Protocol, ProtocolCounts>>;
  readonly exchanges: readonly ExchangeSnapshot[];
}

/** What a worker says of itself. */
export interface WorkerCounts {
  /** Resident memory, bytes. */
  readonly rss: number;
  /** Requests that the handler has and has not answered. */
  readonly inFlight: number;
  /** Requests taken since this process started. */
  readonly requests: number;
}

export interface WorkerStats extends WorkerCounts {
  /** From 1. */
  readonly id: number;
  readonly pid: number;
  /** `starting`: takes no requests yet · `silent`: did not answer within a second; its counts are 0, for unknown. */
  readonly state: "starting" | "ready" | "silent";
  /** How often a process of this id was replaced. */
  readonly restarts: number;
}

export interface ServerStats {
  /** The manager's. */
  readonly pid: number;
  readonly inFlight: number;
  readonly reactors: readonly ReactorStats[];
  readonly workers: readonly WorkerStats[];
}

export type ToReactor =
  | { readonly type: "start"; readonly config: ReactorConfig }
  | { readonly type: "stats"; readonly call: number }
  | { readonly type: "shutdown"; readonly timeout: number };

export type FromReactor =
  | { readonly type: "ready"; readonly port: number; readonly protocols: readonly Protocol[] }
  | { readonly type: "failed"; readonly reason: string }
  /** A request that the worker has was not answered within `requestTimeout`. */
  | { readonly type: "overdue"; readonly workerId: number }
  | { readonly type: "stats"; readonly call: number; readonly stats: ReactorStats };

export type ToWorker =
  | {
      readonly type: "start";
      readonly port: number;
      readonly sockets: readonly string[];
      /** The directory for the files that it receives; it makes it when there are any. */
      readonly uploads: string;
    }
  /** A reactor was replaced: connect to the new one. */
  | { readonly type: "connect"; readonly socket: string }
  | { readonly type: "stats"; readonly call: number }
  | { readonly type: "serverStats"; readonly call: number; readonly stats: ServerStats }
  /** @param timeout milliseconds for work that goes on after its response */
  | { readonly type: "shutdown"; readonly timeout: number };

export type FromWorker =
  /** It listens to messages; before it, none would reach it. */
  | { readonly type: "hello" }
  | { readonly type: "ready" }
  | { readonly type: "failed"; readonly reason: string }
  | { readonly type: "stats"; readonly call: number; readonly stats: WorkerCounts }
  | { readonly type: "getStats"; readonly call: number }
  /** The handler asks for the shutdown of the server. */
  | { readonly type: "shutdownServer" };
