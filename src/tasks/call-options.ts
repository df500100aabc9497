/** The options of a single task: checked at each call, and filled in from those of the server. */
import { inspect } from "node:util";
import { MAX_DELAY } from "../option-checks.ts";
import { OptionError, type ResolvedTasks } from "../options.ts";
import { unknownName } from "../unknown-name.ts";
import type { TaskOptions } from "./task.ts";

const MAX_ATTEMPTS = 1000;

const CHECKS: Readonly<
  Record<keyof TaskOptions, readonly [allowed: string, check: (value: unknown) => boolean]>
> = {
  timeout: [
    `a whole number of milliseconds from 1 to ${MAX_DELAY}, or 0 for no limit`,
    (value) => isWhole(value, 0, MAX_DELAY),
  ],
  idempotent: ["true or false", (value) => typeof value === "boolean"],
  attempts: [`a whole number from 1 to ${MAX_ATTEMPTS}`, (value) => isWhole(value, 1, MAX_ATTEMPTS)],
};
const NAMES = Object.keys(CHECKS);

/**
 * @param call `task` or `defer`, for the error
 * @throws OptionError
 */
export function resolveTaskOptions(
  options: TaskOptions | undefined,
  { timeout, attempts }: ResolvedTasks,
  call: string,
): Required<TaskOptions> {
  if (options === undefined) return { timeout, attempts, idempotent: false };
  if (typeof options !== "object" || options === null) {
    throw new OptionError(`${call}: the options are ${inspect(options)}; they must be an object`);
  }
  const fault = unknownName(options, NAMES);
  if (fault !== null) throw new OptionError(`${call}: ${fault}`);
  for (const [name, value] of Object.entries(options)) {
    const [allowed, check] = CHECKS[name as keyof TaskOptions];
    if (value !== undefined && !check(value)) {
      throw new OptionError(`${call}: option "${name}" is ${inspect(value)}; it must be ${allowed}`);
    }
  }
  return {
    timeout: options.timeout ?? timeout,
    attempts: options.attempts ?? attempts,
    idempotent: options.idempotent ?? false,
  };
}

function isWhole(value: unknown, min: number, max: number): boolean {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
}
