/** How often requests are looked at that may be overdue. */

/** Times within `requestTimeout`, but not more often than every 20 ms. */
const CHECKS_PER_TIMEOUT = 10;
const MIN_INTERVAL = 20;
/** Milliseconds between two looks where there is no `requestTimeout`, for what else there is to see. */
const IDLE_INTERVAL = 1000;

/** Milliseconds. */
export function checkInterval(requestTimeout: number): number {
  return requestTimeout === 0 ? IDLE_INTERVAL : Math.max(MIN_INTERVAL, requestTimeout / CHECKS_PER_TIMEOUT);
}
