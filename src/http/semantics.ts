/** Facts of RFC 9110 that more than one room asks for. */
import { STATUS_CODES } from "node:http";
import type { Exchange, FailureStatus, ResponseHead } from "../exchange.ts";

/** RFC 9110 §9.2.2, and QUERY (draft-ietf-httpbis-safe-method-w-body): may be sent again when the answer was lost. */
const IDEMPOTENT = new Set(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "QUERY"]);

/** RFC 9110 §9.2.1, and QUERY: asks for nothing to be changed, so that a replay does no harm. */
const SAFE = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"]);

export function isSafe(method: string): boolean {
  return SAFE.has(method);
}

export function isIdempotent(method: string): boolean {
  return IDEMPOTENT.has(method);
}

/** RFC 9110 §8.6, §15.3.6: these statuses have no content-length, or none that could be anything but 0. */
export function forbidsLength(status: number): boolean {
  return status === 204 || status === 205;
}

/** RFC 9110 §6.4.1, §15.3.6: an answer to HEAD, and these statuses, never carry a body. */
export function forbidsBody(method: string, status: number): boolean {
  return method === "HEAD" || status === 204 || status === 205 || status === 304 || status < 200;
}

/**
 * The answer where no handler can give one: the status and its name, and for what the client did wrong the reason;
 * nothing about the server.
 */
export function failureResponse(
  method: string,
  status: number,
  reason: string | null,
): { head: ResponseHead; body: Uint8Array | null } {
  const body = Buffer.from(
    `${status} ${STATUS_CODES[status] ?? "Error"}${reason === null ? "" : `: ${reason}`}\n`,
  );
  const fields = ["content-type", "text/plain; charset=utf-8", "content-length", String(body.length)];
  if (status === 503) fields.push("retry-after", "1");
  return { head: { status, fields }, body: forbidsBody(method, status) ? null : body };
}

export function answerFailure(exchange: Exchange, status: number, reason: string | null): void {
  const { head, body } = failureResponse(exchange.method, status, reason);
  exchange.sink.respond(head, body);
}

/** Answers a request that no handler will see, or ends it without an answer where its listener would rather do that. */
export function refuse(exchange: Exchange, status: FailureStatus, reason: string): void {
  if (status === 400 && exchange.sink.refuse !== undefined) exchange.sink.refuse();
  else answerFailure(exchange, status, reason);
  exchange.body?.cancel();
}
