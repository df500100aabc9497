/** Waiting for a condition with a deadline: the only way these tests wait for anything. */

/** The condition did not come true in time. */
export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
}

const INTERVAL = 20;

/**
 * Resolves with the first value of `probe` that is neither undefined nor false. `within` is in milliseconds.
 * @throws DeadlineError, which names what was waited for and, where the last probe threw, has that error as its cause.
 */
export async function until<T>(
  what: string,
  within: number,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const deadline = performance.now() + within;
  let cause: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (performance.now() > deadline) {
      throw new DeadlineError(`${what}: not within ${within} ms`, { cause });
    }
    await Bun.sleep(INTERVAL);
  }
}

/** The promise's value, or a DeadlineError after `within` milliseconds. */
export async function inTime<T>(what: string, within: number, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new DeadlineError(`${what}: not within ${within} ms`)), within);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** The error the promise rejects with. @throws Error where it resolves, DeadlineError where it does neither in time. */
export async function failureOf(what: string, within: number, promise: Promise<unknown>): Promise<Error> {
  const outcome = promise.then(
    () => null,
    (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
  );
  const error = await inTime(what, within, outcome);
  if (error === null) throw new Error(`${what}: there was none`);
  return error;
}
