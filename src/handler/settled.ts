/**
 * Promises that are fulfilled when they are first seen, as those of `async` functions that wait for nothing: their value is
 * taken at once, where a `then` would cost a third of what a whole small request costs its worker. The only file that
 * knows `Bun.peek`; without it nothing is known before its time.
 */

const peek = process.versions.bun === undefined ? null : Bun.peek;

/** The promise's value where it is fulfilled; else the promise. */
export function settledValue<Value>(promise: Promise<Value>): Value | Promise<Value> {
  return peek !== null && peek.status(promise) === "fulfilled" ? peek(promise) : promise;
}
