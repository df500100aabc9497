/** Runs a handler on an exchange, and answers for it when it fails. */
import { BodyLostError, type Exchange, requestOf } from "../exchange.ts";
import { HttpError } from "../http/http-error.ts";
import { answerFailure } from "../http/semantics.ts";
import { describe } from "../log.ts";
import type { ResolvedOptions } from "../options.ts";
import { HttpRequest } from "./request.ts";
import { HttpResponse } from "./response.ts";
import { settledValue } from "./settled.ts";

export type ExchangeHandler = (exchange: Exchange) => unknown;

export type RequestHandler = (request: HttpRequest, response: HttpResponse) => unknown;

/** Marks a function of which `tercet serve` cannot tell that it is a request handler: `tercet/node` makes such. */
export const REQUEST_HANDLER: unique symbol = Symbol.for("tercet.requestHandler");

/**
 * The event form of a handler: `server.on("request", (request, response) => …)`. What an `async` one leaves open when
 * it is done is ended for it, as Swoole does.
 */
export function requestHandler(handler: RequestHandler, { upload }: ResolvedOptions): ExchangeHandler {
  return (exchange) => {
    const request = new HttpRequest(exchange, upload);
    const response = new HttpResponse(exchange);
    const result = handler(request, response);
    if (!(result instanceof Promise)) {
      mustBeNoAnswer(result, response);
      return;
    }
    const pending = settledValue(result);
    if (!(pending instanceof Promise)) {
      mustBeNoAnswer(pending, response);
      response.finish();
      return;
    }
    if (response.ended) return pending;
    HttpRequest.handling(request);
    return pending.then(
      (returned) => {
        try {
          mustBeNoAnswer(returned, response);
          response.finish();
        } finally {
          HttpRequest.handled(request);
        }
      },
      (error: unknown) => {
        HttpRequest.handled(request);
        throw error;
      },
    );
  };
}

/** @throws TypeError for the web-standard form, whose client would wait for ever, or get nothing */
function mustBeNoAnswer(returned: unknown, response: HttpResponse): void {
  if (returned === undefined || !response.isUnsaid || !(returned instanceof Response)) return;
  throw new TypeError(
    "the handler returned a Response: in the event form it calls the methods of its second argument",
  );
}

/**
 * What a handler throws, or rejects with, becomes a 500 without detail, or a reset where the response had begun; the
 * error goes to the log, under the exchange's name. An HttpError becomes the answer that it names.
 */
export function run(exchange: Exchange, handler: ExchangeHandler, log: (line: string) => void): void {
  try {
    const result = handler(exchange);
    if (result instanceof Promise) result.catch((error: unknown) => fail(exchange, error, log));
  } catch (error) {
    fail(exchange, error, log);
  }
}

function fail(exchange: Exchange, error: unknown, log: (line: string) => void): void {
  if (exchange.aborted && tellsOfAbort(error)) return;
  const { sink } = exchange;
  const answer = error instanceof HttpError && !sink.headSent ? error : null;
  if (answer === null || answer.status >= 500) logFailure(exchange, error, log);
  if (sink.headSent) {
    sink.abort("the handler failed");
    return;
  }
  answerFailure(exchange, answer?.status ?? 500, answer?.message ?? null);
}

function logFailure(exchange: Exchange, error: unknown, log: (line: string) => void): void {
  log(`error in ${requestOf(exchange)}: ${describe(error)}`);
}

/** A handler that was waiting for its client may well fail with just this, and need not be told of twice. */
function tellsOfAbort(error: unknown): boolean {
  return error instanceof BodyLostError || (error instanceof Error && error.name === "AbortError");
}
