/** The server's log: lines on standard error, for whatever collects them. */

/** @param part of the server, such as `reactor 1` */
export function logTo(part: string): (line: string) => void {
  return (line) => {
    process.stderr.write(`${new Date().toISOString()} tercet ${part}: ${line}\n`);
  };
}

/** An error's stack, and those of its causes. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\n  caused by ${describe(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}
