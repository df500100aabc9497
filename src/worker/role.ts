/** Which part this process plays: a worker or task worker finds its id in its environment. */
import { TASK_WORKER_ID_VARIABLE, WORKER_ID_VARIABLE } from "../manager/messages.ts";

/** From 1 in a worker; null in any other process. */
export const workerId: number | null = takeId(WORKER_ID_VARIABLE);

/** From 1 in a task worker; null in any other process. */
export const taskWorkerId: number | null = takeId(TASK_WORKER_ID_VARIABLE);

function takeId(variable: string): number | null {
  const value = process.env[variable];
  // What the user's code starts in turn is no worker of ours.
  delete process.env[variable];
  return value === undefined || process.send === undefined ? null : Number(value);
}
