/** Which task worker gets a task, and which gives one back: by how much each has to do. */
import { MessageType } from "./messages.ts";
import type { RemoteTaskWorker } from "./remote.ts";

/**
 * Null where none takes tasks. Among equals it is the next in turn.
 * @param turn where the search begins
 * @param except those that have refused
 */
export function leastBusy(
  workers: readonly RemoteTaskWorker[],
  turn: number,
  except: ReadonlySet<RemoteTaskWorker>,
): RemoteTaskWorker | null {
  let best: RemoteTaskWorker | null = null;
  for (let i = 0; i < workers.length; i++) {
    const worker = workers[(turn + i) % workers.length] as RemoteTaskWorker;
    if (!worker.isGreeted || worker.isRetired || except.has(worker)) continue;
    if (best === null || worker.expectedLoad < best.expectedLoad) best = worker;
  }
  return best;
}

/**
 * Where a task worker has nothing to do and another has more than it can run, the oldest task of this client that waits there is
 * asked back, to be sent to the first.
 * @param concurrency tasks that one runs at a time
 */
export function balance(workers: readonly RemoteTaskWorker[], concurrency: number): void {
  for (;;) {
    let busiest: RemoteTaskWorker | null = null;
    let idle: RemoteTaskWorker | null = null;
    for (const worker of workers) {
      const load = worker.expectedLoad;
      if (load > concurrency && worker.waiting.size > (busiest?.waiting.size ?? 0)) busiest = worker;
      else if (worker.isGreeted && !worker.isRetired && load < concurrency) idle = worker;
    }
    const oldest = busiest?.waiting.values().next().value;
    if (busiest === null || idle === null || oldest === undefined) return;
    busiest.waiting.delete(oldest.number);
    busiest.send(MessageType.recall, oldest.number);
    oldest.move(idle);
  }
}
