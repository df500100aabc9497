/** The time by which whatever lasts is measured: finer than `Date.now()`, and never set, as the system's clock may be. */

/** Milliseconds since the Unix epoch, with a fraction. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}
