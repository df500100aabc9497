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

test("what a machine that stood still has taken is told, and nothing is checked at once", async () => {
  const told: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  let stood = 0;
  let from = 0;
  checkRegularly(
    200,
    () => {
      told.push("check");
      if (told.length > 1) return resolve();
      from = performance.now();
      Bun.sleepSync(150);
    },
    (milliseconds) => {
      // A machine that does other work may stand still before, and again.
      if (told.length !== 1) return;
      stood = milliseconds;
      told.push("stood still");
    },
  );
  await promise;
  expect(told).toEqual(["check", "stood still", "check"]);
  expect(stood).toBeGreaterThan(100);
  expect(stood).toBeLessThan(performance.now() - from);
});

test("on a machine that stands still again and again every other look checks", async () => {
  const told: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const tell = (what: string) => {
    if (told.push(what) < 6) Bun.sleepSync(60);
    else resolve();
  };
  checkRegularly(
    200,
    () => tell("check"),
    () => tell("stood still"),
  );
  await promise;
  const held = told.slice(told.indexOf("stood still"));
  expect(held.slice(0, 4)).toEqual(["stood still", "stood still", "check", "stood still"]);
});
