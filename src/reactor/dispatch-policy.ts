/** Which of the workers gets an exchange (option `dispatch`). No sockets, no queue: what waits is the dispatcher's. */
import { nameOfSession, type RequestHead } from "../exchange.ts";
import type { DispatchFunction, ResolvedOptions } from "../options.ts";

export interface Candidate {
  /** From 1. */
  readonly workerId: number;
  /** Exchanges that it has and has not ended. */
  readonly inFlight: number;
  /** It takes one more: it is below its `concurrency`, and not late. */
  takes(now: number): boolean;
}

/** Picks a worker that takes one more, or null where the exchange has to wait. */
export type Pick<Worker extends Candidate> = (
  head: RequestHead,
  workers: readonly Worker[],
  now: number,
) => Worker | null;

export interface DispatchPolicy<Worker extends Candidate> {
  readonly pick: Pick<Worker>;
  /** Each exchange has a worker of its own, for which it waits though others may be free. */
  readonly isBound: boolean;
}

/** What a reactor is told of the policy: a function crosses as its source. */
export type DispatchSetting =
  | { readonly policy: Exclude<ResolvedOptions["dispatch"], DispatchFunction> }
  | { readonly source: string };

export function dispatchSettingOf(dispatch: ResolvedOptions["dispatch"]): DispatchSetting {
  return typeof dispatch === "function" ? { source: String(dispatch) } : { policy: dispatch };
}

/**
 * @param evenly the policy `least-busy` takes workers in turn where several are equally busy; else the first, so that the
 * last of them are seen to be idle
 * @param log told, once, of a function that fails
 * @throws Error where the source is no function that stands alone
 */
export function dispatchPolicy<Worker extends Candidate>(
  setting: DispatchSetting,
  evenly: boolean,
  log: (line: string) => void,
): DispatchPolicy<Worker> {
  if ("source" in setting) {
    return { pick: custom(compileDispatch(setting.source), leastBusy(evenly), log), isBound: true };
  }
  switch (setting.policy) {
    case "least-busy":
      return { pick: leastBusy(evenly), isBound: false };
    case "round-robin":
      return { pick: roundRobin(), isBound: false };
    case "connection":
      return { pick: byKey(nameOfSession), isBound: true };
    case "address":
      return { pick: byKey((head) => head.remoteAddress), isBound: true };
  }
}

/** @throws Error where the source, evaluated by itself, gives no function */
export function compileDispatch(source: string): DispatchFunction {
  let compiled: unknown;
  try {
    compiled = new Function(`"use strict"; return (${source});`)();
  } catch {
    // A method of an object has no expression of its own: as part of one it has.
    compiled = Object.values(new Function(`"use strict"; return ({${source}});`)() as object)[0];
  }
  if (typeof compiled !== "function") throw new Error("it gives no function");
  return compiled as DispatchFunction;
}

function leastBusy<Worker extends Candidate>(evenly: boolean): Pick<Worker> {
  let next = 0;
  return (_head, workers, now) => {
    const count = workers.length;
    let best: Worker | null = null;
    let bestIndex = 0;
    for (let i = 0; i < count; i++) {
      const index = (next + i) % count;
      const worker = workers[index] as Worker;
      if ((best === null || worker.inFlight < best.inFlight) && worker.takes(now)) {
        best = worker;
        bestIndex = index;
      }
    }
    if (evenly && best !== null) next = bestIndex + 1;
    return best;
  };
}

function roundRobin<Worker extends Candidate>(): Pick<Worker> {
  let next = 0;
  return (_head, workers, now) => {
    for (let i = 0; i < workers.length; i++) {
      const index = (next + i) % workers.length;
      const worker = workers[index] as Worker;
      if (!worker.takes(now)) continue;
      next = index + 1;
      return worker;
    }
    return null;
  };
}

/** Rendezvous hashing: when one of the workers goes, only what was its own goes to others. */
function byKey<Worker extends Candidate>(keyOf: (head: RequestHead) => string): Pick<Worker> {
  return (head, workers, now) => {
    const key = hashOf(keyOf(head));
    let best: Worker | null = null;
    let highest = -1;
    for (const worker of workers) {
      const weight = mix(key ^ Math.imul(worker.workerId, 0x9e37_79b1));
      if (weight <= highest) continue;
      best = worker;
      highest = weight;
    }
    return best?.takes(now) ? best : null;
  };
}

function custom<Worker extends Candidate>(
  dispatch: DispatchFunction,
  otherwise: Pick<Worker>,
  log: (line: string) => void,
): Pick<Worker> {
  let isTold = false;
  return (head, workers, now) => {
    let id: unknown;
    try {
      id = dispatch(
        head,
        workers.map(({ workerId, inFlight }) => ({ id: workerId, inFlight })),
      );
    } catch (error) {
      if (!isTold)
        log(`the function of option "dispatch" fails, and the least busy worker is taken: ${error}`);
      isTold = true;
    }
    const named = workers.find(({ workerId }) => workerId === id);
    if (named === undefined) return otherwise(head, workers, now);
    return named.takes(now) ? named : null;
  };
}

/** FNV-1a. */
function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  return hash;
}

/** MurmurHash3's finalizer: from 0 to 2^32 - 1. */
function mix(hash: number): number {
  let mixed = hash ^ (hash >>> 16);
  mixed = Math.imul(mixed, 0x85eb_ca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2_ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
