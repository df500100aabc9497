/** What a scenario is: something is broken on purpose for a while, and what was promised is held against what happened. */

export interface Outcome {
  /** What happened, in figures. */
  readonly measured: string;
  /** Promises that were not kept; empty where all were. */
  readonly broken: readonly string[];
}

export interface Scenario {
  /** By which it can be picked on the command line. */
  readonly name: string;
  /** What is broken, and what is promised all the same. */
  readonly promise: string;
  /** @param say tells how far it has come */
  run(say: (line: string) => void): Promise<Outcome>;
}

/** Why a promise does not hold, where it does not. */
export function brokenOf(promises: Readonly<Record<string, boolean>>): string[] {
  return Object.entries(promises).flatMap(([promise, isKept]) => (isKept ? [] : [promise]));
}
