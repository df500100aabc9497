/** Runs a handler on an exchange, and answers for it when it fails. */
import { BodyLostError, type Exchange, nameOf } from "../exchange.ts";
import { failureResponse } from "../http/semantics.ts";
import { describe } from "../log.ts";
import type { ResolvedOptions } from "../options.ts";
import { HttpRequest } from "./request.ts";
import { HttpResponse } from "./response.ts";

export type ExchangeHandler = (exchange: Exchange) => unknown;

export type RequestHandler = (request: HttpRequest, response: HttpResponse) => unknown;

/** Under this name a request handler may have one that takes the exchange itself: `tercet/node` makes such. */
export const OWN_EXCHANGE_HANDLER: unique symbol = Symbol.for("tercet.exchangeHandler");

/**
 * The event form of a handler: `server.on("request", (request, response) => …)`. What an `async` one leaves open when
 * it is done is ended for it, as Swoole does.
 */
export function requestHandler(handler: RequestHandler, _options: ResolvedOptions): ExchangeHandler {
  return (exchange) => {
    const response = new HttpResponse(exchange);
    const result = handler(new HttpRequest(exchange), response);
    return result instanceof Promise && !response.ended ? result.then(() => response.finish()) : result;
  };
}

/**
 * What a handler throws, or rejects with, becomes a 500 without detail, or a reset where the response had begun; the
 * error goes to the log, under the exchange's name.
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
  log(`error in ${exchange.method} ${exchange.path} ${nameOf(exchange)}: ${describe(error)}`);
  const { sink } = exchange;
  if (sink.headSent) {
    sink.abort("the handler failed");
    return;
  }
  const { head, body } = failureResponse(exchange.method, 500, null);
  sink.respond(head, body);
}

/** A handler that was waiting for its client may well fail with just this, and need not be told of twice. */
function tellsOfAbort(error: unknown): boolean {
  return error instanceof BodyLostError || (error instanceof Error && error.name === "AbortError");
}
