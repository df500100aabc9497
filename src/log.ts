/** The server's log: lines on standard error, for whatever collects them. */

/** @param part of the server, such as `reactor 1` */
export function logTo(part: string): (line: string) => void {
  return (line) => {
    process.stderr.write(`${new Date().toISOString()} tercet ${part}: ${line}\n`);
  };
}
