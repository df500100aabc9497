/** What a handler throws to have its request answered with an error of HTTP, rather than with a bare 500. */
import { inspect } from "node:util";

/**
 * Thrown out of a handler it is the answer: the status, and its message as `text/plain`, without the fields that were set
 * before. What the client did wrong (4xx) is no failure of the handler, and stays out of the log.
 */
export class HttpError extends Error {
  readonly code = "TERCET_HTTP";
  override readonly name = "HttpError";
  readonly status: number;

  /**
   * @param status from 400 to 599 (RFC 9110 §15.5, §15.6)
   * @param message one line, which the client will read
   * @throws RangeError for another status
   */
  constructor(status: number, message: string, options?: ErrorOptions) {
    super(message, options);
    if (!Number.isInteger(status) || status < 400 || status > 599) {
      throw new RangeError(`HttpError: ${inspect(status)} is not a status from 400 to 599`);
    }
    this.status = status;
  }
}
