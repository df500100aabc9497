/** The server could not start: the message says why in one line. */
export class StartError extends Error {
  readonly code = "TERCET_START";
  override readonly name = "StartError";
}
