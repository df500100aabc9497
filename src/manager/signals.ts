/** What signals mean to the manager: SIGTERM and SIGINT its end, SIGUSR1 and SIGUSR2 a reload; SIGHUP too, or that its terminal has gone. */
import { isatty } from "node:tty";

export interface SignalEvents {
  /** Leave, in good order. */
  leave(): void;
  /** Who asks twice will not wait. */
  leaveAtOnce(): void;
  reload(): void;
}

/**
 * Milliseconds within which signals are one: a terminal's Ctrl-C reaches every process in front of it, and npm and the
 * launcher hand on what they have received.
 */
const TOGETHER = 200;

/** @returns what ends it */
export function onSignals(events: SignalEvents): () => void {
  // Which of the standard streams are a terminal: none of them is any more once it was closed.
  const terminals = [0, 1, 2].filter((descriptor) => isatty(descriptor));
  let firstAt: number | null = null;
  const leave = () => {
    const now = performance.now();
    if (firstAt === null) {
      firstAt = now;
      events.leave();
    } else if (now - firstAt > TOGETHER) events.leaveAtOnce();
  };
  const hangUp = () => {
    if (terminals.length > 0 && !terminals.some((descriptor) => isatty(descriptor))) leave();
    else events.reload();
  };
  process.on("SIGTERM", leave);
  process.on("SIGINT", leave);
  process.on("SIGHUP", hangUp);
  // As whoever comes from Swoole sends them, the second for task workers alone; left alone they would end this process.
  process.on("SIGUSR1", events.reload);
  process.on("SIGUSR2", events.reload);
  return () => {
    process.off("SIGTERM", leave);
    process.off("SIGINT", leave);
    process.off("SIGHUP", hangUp);
    process.off("SIGUSR1", events.reload);
    process.off("SIGUSR2", events.reload);
  };
}
