/// <reference types="node" preserve="true" />
/** `tercet/node`: handlers written for `node:http`, Express among them, on every protocol. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Exchange } from "../exchange.ts";
import { HttpRequest, onAbort } from "../handler/request.ts";
import type { HttpResponse } from "../handler/response.ts";
import { REQUEST_HANDLER, type RequestHandler } from "../handler/run.ts";
import { installKnownResponse } from "../handler/web-response.ts";
import { NodeRequest } from "./request.ts";
import { NodeResponse } from "./response.ts";
import { NodeSocket } from "./socket.ts";

/** A listener of `node:http`'s `request` event: an Express app, or any `(req, res)` function. */
export type NodeListener = (req: IncomingMessage, res: ServerResponse) => unknown;

/** For `server.on("request", …)`, and for `export default` under `tercet serve`. */
export type NodeHandler = RequestHandler & { readonly [REQUEST_HANDLER]: true };

/**
 * Makes a handler of a `node:http` listener. `req` and `res` are an `IncomingMessage` and a `ServerResponse` over the
 * request's exchange, with back pressure both ways. What the listener throws, or rejects with, becomes a 500 without
 * detail.
 * @throws TypeError for what is no function
 */
export function nodeHandler(listener: NodeListener): NodeHandler {
  if (typeof listener !== "function") {
    throw new TypeError(
      `nodeHandler takes a function (req, res), such as an Express app, not ${typeof listener}`,
    );
  }
  // Astro, React Router and their kin answer with a web Response, whose text has a content-type everywhere but in Bun's own.
  installKnownResponse();
  const handler = (request: HttpRequest, response: HttpResponse) => {
    response.detach();
    return serve(HttpRequest.exchangeOf(request), listener);
  };
  return Object.assign(handler, { [REQUEST_HANDLER]: true } as const);
}

/** Resolves when both the response and the listener are done, and rejects with what goes wrong before that. */
function serve(exchange: Exchange, listener: NodeListener): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      reject(error);
      // By then the failure was answered.
      setImmediate(() => response.destroy());
    };
    const socket = new NodeSocket(exchange, () => response);
    const request = new NodeRequest(exchange, socket);
    const response = new NodeResponse(request, exchange, socket, fail);
    // Not at once: what a listener throws would cost others what the worker has yet to read.
    onAbort(exchange, () => process.nextTick(() => response.exchangeOver()));
    try {
      // Its types have a `req` that may be undefined, which this one is not.
      const result = listener(request, response as ServerResponse);
      if (result instanceof Promise) result.catch(fail);
      response.once("close", () => resolve(result));
    } catch (error) {
      fail(error);
    }
  });
}
