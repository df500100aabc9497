/** What a process of a server can ask of all of it, whichever process it is: the manager itself, or one that asks the manager. */
import type { Parts } from "./clone/parts.ts";
import type { ServerStats } from "./manager/messages.ts";
import type { TableOperation } from "./sharing/operation.ts";
import type { TaskClient } from "./tasks/client.ts";

export interface ServerAccess {
  /** Null where there are no task workers. */
  readonly tasks: TaskClient | null;
  stats(): Promise<ServerStats>;
  /** @throws ReloadError (as a rejection) */
  reload(): Promise<void>;
  /** To every worker and task worker. */
  broadcast(parts: Parts): void;
  /** @throws TableError (as a rejection) */
  operate(operation: TableOperation): Promise<unknown>;
}
