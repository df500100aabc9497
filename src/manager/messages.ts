/** What the manager says to its processes, and they to it, over the IPC channel of `node:child_process`. */

import type { BaseConfig } from "../base/base-server.ts";
import type { Parts } from "../clone/parts.ts";
import type { Protocol } from "../exchange.ts";
import type { Certificates } from "../listeners/listener.ts";
import type { ListenConfig } from "../listeners/open.ts";
import type { ResolvedStatic } from "../options.ts";
import type { DispatchSetting } from "../reactor/dispatch-policy.ts";
import type { ReactorLimits } from "../reactor/reactor.ts";
import type { ExchangeSnapshot, ProtocolCounts } from "../reactor/registry.ts";
import type { TableOperation, TableResult } from "../sharing/operation.ts";
import type { TaskWorkerAddress } from "../tasks/remote.ts";
import type { FolderOptions } from "./folders.ts";
import type { Identity } from "./privileges.ts";

/** Set in a worker's environment: its id. The worker takes it out again, lest its own children be taken for workers. */
export const WORKER_ID_VARIABLE = "TERCET_WORKER_ID";
/** The same of a task worker. */
export const TASK_WORKER_ID_VARIABLE = "TERCET_TASK_WORKER_ID";

export interface ReactorConfig {
  readonly id: number;
  readonly listen: ListenConfig;
  readonly limits: ReactorLimits;
  readonly dispatch: DispatchSetting;
  /** The number of workers follows from the time that requests wait: it has to be told. */
  readonly isElastic: boolean;
  readonly static: readonly ResolvedStatic[];
  /** The unix socket to which workers connect. */
  readonly socketPath: string;
  /** What it removes where the manager has gone. */
  readonly remains: string;
  /** Whom it becomes when it listens; null where it stays what it is. */
  readonly identity: Identity | null;
  /** Folders that it checks when it has become that; null for none. */
  readonly folders: FolderOptions | null;
  /** Files of code that it checks then: workers load them as that user. */
  readonly code: readonly string[];
}

/** What every process of a server is known by. */
export interface ProcessStats {
  /** From 1, among its kind; the same for the process that takes its place. */
  readonly id: number;
  readonly pid: number;
  /** Milliseconds since it was started. */
  readonly uptime: number;
  /** How often a process of this id was replaced since it had died. */
  readonly restarts: number;
  /** Resident memory, bytes. */
  readonly rss: number;
  /** Cores that it kept busy in the last second, a fraction of 1 for each. */
  readonly cpu: number;
}

/** What a process has that owns connections: a reactor, or a worker of the mode `base`. */
export interface ExchangeCounts {
  /** Exchanges from the first header to the last byte. */
  readonly inFlight: number;
  /** Those of them that wait for a worker. */
  readonly queued: number;
  /** Response frames that came after the client had left. */
  readonly droppedFrames: number;
  readonly protocols: Readonly<Record<Protocol, ProtocolCounts>>;
  readonly exchanges: readonly ExchangeSnapshot[];
}

/** What a reactor says of itself. */
export interface ReactorCounts extends ExchangeCounts {
  /** Resident memory, bytes. */
  readonly rss: number;
  /** Milliseconds of processor time since it was started. */
  readonly cpuTime: number;
}

/** Of a reactor; in the mode `base` of a worker, as far as its connections are concerned. */
export interface ReactorStats extends ProcessStats, ExchangeCounts {
  /** `silent`: did not answer within a second; its counts are the last that it told, without exchanges. */
  readonly state: "ready" | "silent";
}

/** What a worker says of itself. */
export interface WorkerCounts {
  /** Resident memory, bytes. */
  readonly rss: number;
  /** Milliseconds of processor time since it was started. */
  readonly cpuTime: number;
  /** Requests that the handler has and has not answered. */
  readonly inFlight: number;
  /** Requests taken since this process started. */
  readonly requests: number;
  /** In the mode `base`; else null. */
  readonly exchanges: ExchangeCounts | null;
}

export interface WorkerStats extends ProcessStats, Omit<WorkerCounts, "cpuTime" | "exchanges"> {
  /**
   * `starting`: takes no requests yet · `ready`: takes them · `retiring`: takes no more, and finishes what it has ·
   * `silent`: did not answer within a second; its counts are the last that it told.
   */
  readonly state: "starting" | "ready" | "retiring" | "silent";
}

/** What a task worker says of itself. */
export interface TaskWorkerCounts {
  /** Resident memory, bytes. */
  readonly rss: number;
  /** Milliseconds of processor time since it was started. */
  readonly cpuTime: number;
  /** Tasks that run. */
  readonly inFlight: number;
  /** Tasks that wait in it; of a durable queue, in all of the file. */
  readonly queued: number;
  /** Tasks begun since this process started. */
  readonly tasks: number;
}

export interface TaskWorkerStats extends ProcessStats, Omit<TaskWorkerCounts, "cpuTime"> {
  /** As a worker's. */
  readonly state: WorkerStats["state"];
}

export interface ServerStats {
  /** The manager's. */
  readonly pid: number;
  readonly inFlight: number;
  /**
   * Exchanges by protocol since the server was started, also those of processes that have ended: what one that died did
   * after it was last asked, which is each second, is not known.
   */
  readonly totals: Readonly<Record<Protocol, ProtocolCounts>>;
  readonly reactors: readonly ReactorStats[];
  readonly workers: readonly WorkerStats[];
  readonly taskWorkers: readonly TaskWorkerStats[];
}

/** Which process has sent a message with `server.broadcast`. */
export interface MessageSender {
  readonly role: "manager" | "worker" | "taskWorker";
  /** From 1; the manager's is 0. */
  readonly id: number;
  readonly pid: number;
}

export type ToReactor =
  | { readonly type: "start"; readonly config: ReactorConfig }
  /** @param detailed with every exchange in flight */
  | { readonly type: "stats"; readonly call: number; readonly detailed: boolean }
  /** Give exchanges to these workers from now on, and to those no more. By process id. */
  | { readonly type: "employ"; readonly used: readonly number[]; readonly retired: readonly number[] }
  /** There is no worker, and for now none can be started. */
  | { readonly type: "unserved" }
  /** Connections from now on get these certificates. Answered when that is so. */
  | { readonly type: "certificate"; readonly tls: Certificates }
  | { readonly type: "shutdown"; readonly timeout: number };

export type FromReactor =
  | { readonly type: "ready"; readonly port: number; readonly protocols: readonly Protocol[] }
  | { readonly type: "failed"; readonly reason: string }
  /** A worker has said nothing for `requestTimeout`. */
  | { readonly type: "stuck"; readonly pid: number }
  /** A worker has broken the rules of the wire: this reactor hears it no more. */
  | { readonly type: "broken"; readonly pid: number }
  /** Requests wait for a worker. @param wait milliseconds that one more would */
  | { readonly type: "waiting"; readonly wait: number }
  /** @param failure where some protocol keeps the certificate before, and why; else null */
  | { readonly type: "certificate"; readonly failure: string | null }
  | { readonly type: "stats"; readonly call: number; readonly stats: ReactorCounts };

/** To workers and task workers alike. */
export type ToProcess =
  /** @param detailed with every exchange in flight */
  | { readonly type: "stats"; readonly call: number; readonly detailed: boolean }
  | { readonly type: "answer"; readonly call: number; readonly value: unknown }
  /** @param reason why what it asked for has failed */
  | { readonly type: "refusal"; readonly call: number; readonly reason: string }
  /** Task workers that take tasks from now on, and, by process id, those that do no more, and those that are gone. */
  | {
      readonly type: "taskWorkers";
      readonly used: readonly TaskWorkerAddress[];
      readonly retired: readonly number[];
      readonly gone: readonly number[];
    }
  /** Somebody has broadcast something. */
  | { readonly type: "message"; readonly from: MessageSender; readonly parts: Parts }
  | { readonly type: "tableAnswer"; readonly call: number; readonly results: readonly TableResult[] }
  /** @param timeout milliseconds for work that goes on after its response, and for tasks */
  | { readonly type: "shutdown"; readonly timeout: number };

export type ToWorker =
  | ToProcess
  | {
      readonly type: "start";
      readonly port: number;
      readonly sockets: readonly string[];
      readonly runDirectory: string;
      /** Requests after which it asks to be replaced; 0 for never. */
      readonly maxRequests: number;
      /** In the mode `base`; else null. */
      readonly base: BaseConfig | null;
      /** The directory for the files that it receives; it makes it when there are any. */
      readonly uploads: string;
    }
  /** A reactor was replaced: connect to the new one. */
  | { readonly type: "connect"; readonly socket: string }
  /** In the mode `base`: open the listeners. */
  | { readonly type: "listen"; readonly config: ListenConfig }
  /** In the mode `base`: take no more connections, finish what there is, and leave. */
  | { readonly type: "retire" };

export type ToTaskWorker =
  | ToProcess
  | {
      readonly type: "start";
      readonly port: number;
      readonly runDirectory: string;
      /** The unix socket to listen on. */
      readonly socket: string;
      /** Tasks after which it asks to be replaced; 0 for never. */
      readonly maxTasks: number;
    }
  /** Another one has taken its place. */
  | { readonly type: "retire" };

/** From workers and task workers alike. */
export type FromProcess =
  /** It listens to messages; before it, none would reach it. */
  | { readonly type: "hello" }
  | { readonly type: "ready" }
  | { readonly type: "failed"; readonly reason: string }
  /** It has answered `maxRequests`, or run `maxTasks`. */
  | { readonly type: "spent" }
  /** Its code asks something of the manager. */
  | { readonly type: "ask"; readonly call: number; readonly what: "stats" | "reload" }
  | { readonly type: "broadcast"; readonly parts: Parts }
  | { readonly type: "table"; readonly call: number; readonly operations: readonly TableOperation[] }
  /** Its code asks for the shutdown of the server. */
  | { readonly type: "shutdownServer" };

export type FromWorker =
  | FromProcess
  /** In the mode `base`. */
  | { readonly type: "listening"; readonly port: number; readonly protocols: readonly Protocol[] }
  /** @param call 0 where nobody has asked: a worker of the mode `base` says it when it ends */
  | { readonly type: "stats"; readonly call: number; readonly stats: WorkerCounts };

export type FromTaskWorker =
  | FromProcess
  | { readonly type: "stats"; readonly call: number; readonly stats: TaskWorkerCounts };

/** As it is sent: by `process.send` the user's code may say something of its own, which is for nobody here. */
interface Sent {
  readonly tercet: FromReactor | FromProcess | FromWorker | FromTaskWorker;
}

/** Tells the manager. @param sent when the system has it, or the manager has gone */
export function tellManager(message: Sent["tercet"], sent: () => void = () => {}): void {
  process.send?.({ tercet: message } satisfies Sent, sent);
}

/** What a process has told; undefined where the user's code has said something. */
export function toldIn(sent: unknown): Sent["tercet"] | undefined {
  return (sent as Partial<Sent> | null)?.tercet;
}
