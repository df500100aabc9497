/** Requests are looked at by the clock that they are measured by. */
import { afterEach, expect, setSystemTime, test } from "bun:test";
import { now } from "../../src/clock.ts";
import { checkRegularly } from "../../src/reactor/regular-check.ts";

afterEach(() => {
  setSystemTime();
});

test("a system clock that is set makes no request overdue", async () => {
  const { promise, resolve } = Promise.withResolvers<number>();
  setSystemTime(new Date(Date.now() + 3_600_000));
  checkRegularly(200, resolve);
  expect(Math.abs((await promise) - now())).toBeLessThan(1_000);
});
