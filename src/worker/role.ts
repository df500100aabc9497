/** Which part this process plays: a worker finds its id in its environment. */
import { WORKER_ID_VARIABLE } from "../manager/messages.ts";

/** From 1 in a worker; null in the process that the user started. */
export const workerId: number | null = takeWorkerId();

function takeWorkerId(): number | null {
  const value = process.env[WORKER_ID_VARIABLE];
  // What the user's code starts in turn is no worker of ours.
  delete process.env[WORKER_ID_VARIABLE];
  return value === undefined || process.send === undefined ? null : Number(value);
}
