/** A task as its client knows it, from the call of `server.task` or `server.defer` to its end. */
import type { Parts } from "../clone/parts.ts";
import type { RemoteTaskWorker } from "./remote.ts";
import type { TaskOptions } from "./task.ts";

/**
 * `unsent`: there is no task worker to send it to · `sent` · `accepted`: it is in a queue, and has not begun as far as is
 * known · `begun`: it runs, or has run.
 */
export type CallStage = "unsent" | "sent" | "accepted" | "begun";

export class Call {
  readonly id: string;
  /** Of this client's tasks, from 1. */
  readonly number: number;
  readonly isAwaited: boolean;
  readonly options: Required<TaskOptions>;
  /** Of the result, or that a queue has the task. */
  readonly promise: Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  stage: CallStage = "unsent";
  /** A queue had it once: it is not refused any more. */
  wasAccepted = false;
  attempt = 1;
  /** Null when it will not be sent again. */
  data: Parts | null;
  /** Where it is. */
  worker: RemoteTaskWorker | null = null;
  /** Where it is to go when it comes back. */
  #destination: RemoteTaskWorker | null = null;
  /** Task workers whose queue was full. */
  readonly fullAt = new Set<RemoteTaskWorker>();
  timer: NodeJS.Timeout | null = null;

  constructor(id: string, number: number, isAwaited: boolean, options: Required<TaskOptions>, data: Parts) {
    this.id = id;
    this.number = number;
    this.isAwaited = isAwaited;
    this.options = options;
    this.data = data;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.promise = promise;
    this.resolve = resolve;
    this.reject = reject;
  }

  /** It was asked back, for another task worker; or, with null, that is over. */
  move(destination: RemoteTaskWorker | null): void {
    if (this.#destination === destination) return;
    this.#destination?.coming.delete(this);
    this.worker?.going.delete(this);
    this.#destination = destination;
    if (destination === null) return;
    destination.coming.add(this);
    this.worker?.going.add(this);
  }

  /** No queue has it yet. */
  get isPending(): boolean {
    return this.stage === "unsent" || this.stage === "sent";
  }
}

export function taskId(clientId: string, number: number): string {
  return `${clientId}-${number}`;
}

/** Of a task's id: who handed it over, and its number among theirs. */
export function originOf(id: string): { readonly clientId: string; readonly number: number } {
  const dash = id.lastIndexOf("-");
  return { clientId: id.slice(0, dash), number: Number(id.slice(dash + 1)) };
}
