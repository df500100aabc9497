/** The server could not start: the message says why in one line. */
export class StartError extends Error {
  readonly code = "TERCET_START";
  override readonly name = "StartError";
}

/** Why a start has failed that was given up. */
export const SHUT_DOWN = "the server was shut down before it was ready";
