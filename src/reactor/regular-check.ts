/** How often requests are looked at that may be overdue. */
import { now as clockNow } from "../clock.ts";

/** Times within `requestTimeout`, but not more often than every 20 ms. */
const CHECKS_PER_TIMEOUT = 10;
const MIN_INTERVAL = 20;
/** Milliseconds between two looks where there is no `requestTimeout`, for what else there is to see. */
const IDLE_INTERVAL = 1000;

/**
 * @param requestTimeout milliseconds, or 0 for none
 * @param check is given the time, in milliseconds since the Unix epoch
 * @param stoodStill is told for how many milliseconds nothing went on, up to now
 */
export function checkRegularly(
  requestTimeout: number,
  check: (now: number) => void,
  stoodStill: (milliseconds: number, now: number) => void = () => {},
): void {
  const interval =
    requestTimeout === 0 ? IDLE_INTERVAL : Math.max(MIN_INTERVAL, requestTimeout / CHECKS_PER_TIMEOUT);
  let last = clockNow();
  let wasHeldUp = false;
  setInterval(() => {
    const now = clockNow();
    // After the machine stood still, requests look overdue whose answers are about to be read: they get until the next look.
    const isHeldUp = now - last > 2 * interval;
    if (isHeldUp) stoodStill(now - last - interval, now);
    wasHeldUp = !wasHeldUp && isHeldUp;
    last = now;
    if (!wasHeldUp) check(now);
  }, interval);
}
