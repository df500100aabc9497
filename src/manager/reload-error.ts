/** A reload that failed, so that what was there still serves: the message says why in one line. */
export class ReloadError extends Error {
  readonly code = "TERCET_RELOAD";
  override readonly name = "ReloadError";
}
