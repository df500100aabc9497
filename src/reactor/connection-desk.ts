/**
 * Where what happens to connections is handed out to workers, and questions about them are answered. All of one
 * connection goes to the same worker, as long as that lives. No sockets.
 */
import { CONNECTION_EVENTS, type ConnectionEvent, type ConnectionInfo } from "../connection.ts";

/** A worker, as far as it is told of connections. */
export interface Listening {
  sendEvent(event: ConnectionEvent): void;
}

export class ConnectionDesk<Worker extends Listening> {
  /** What a connection is like, by whoever has it. */
  find: (id: string) => ConnectionInfo | null = () => null;
  /** What each worker listens to, as bits in the order of CONNECTION_EVENTS. */
  readonly #listening = new Map<Worker, number>();
  readonly #isEmployed: (worker: Worker) => boolean;
  readonly #workerOf = new Map<string, Worker>();
  #turns = 0;

  /** Takes an event to its worker; null while no worker listens. */
  tell: ((event: ConnectionEvent) => void) | null = null;

  /** @param isEmployed it gets requests: it is not new in a reload that may fail yet, and not retired */
  constructor(isEmployed: (worker: Worker) => boolean) {
    this.#isEmployed = isEmployed;
  }

  listen(worker: Worker, mask: number): void {
    this.#listening.set(worker, mask);
    this.tell = (event) => this.#tell(event);
  }

  /** A worker has gone. */
  leave(worker: Worker): void {
    if (!this.#listening.delete(worker)) return;
    for (const [id, told] of this.#workerOf) if (told === worker) this.#workerOf.delete(id);
    if (this.#listening.size === 0) this.tell = null;
  }

  #tell(event: ConnectionEvent): void {
    const { id } = event.connection;
    const worker = this.#workerOf.get(id) ?? this.#nextWorker();
    if (event.name === "close") this.#workerOf.delete(id);
    else this.#workerOf.set(id, worker);
    const mask = this.#listening.get(worker) ?? 0;
    if ((mask & (1 << CONNECTION_EVENTS.indexOf(event.name))) !== 0) worker.sendEvent(event);
  }

  #nextWorker(): Worker {
    const all = [...this.#listening.keys()];
    const employed = all.filter(this.#isEmployed);
    const workers = employed.length === 0 ? all : employed;
    return workers[this.#turns++ % workers.length] as Worker;
  }
}
