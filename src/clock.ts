/** The time by which requests are measured: finer than `Date.now()`, and never set back. */

/** Milliseconds since the Unix epoch, with a fraction. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}
