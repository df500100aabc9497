/** When a worker that says nothing is taken for stuck. No I/O. */

/** Not sooner, however short `requestTimeout` is. Milliseconds. */
const MIN_STUCK_AFTER = 1000;
/** Without a `requestTimeout` it is only told of, after so long. Milliseconds. */
const TOLD_STUCK_AFTER = 5000;

/** Milliseconds. @param requestTimeout milliseconds; 0 for none */
export function stuckAfter(requestTimeout: number): number {
  return requestTimeout === 0 ? TOLD_STUCK_AFTER : Math.max(requestTimeout, MIN_STUCK_AFTER);
}
