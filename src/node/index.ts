/// <reference types="node" preserve="true" />
/** `tercet/node`: handlers written for `node:http`, Express among them, on every protocol. */
import { channel } from "node:diagnostics_channel";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
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

/** `node:http` tells of each request by it before it emits it: Sentry has a scope for each by this. */
const STARTED = channel("http.server.request.start");

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
  const call = callerOf(listener);
  const handler = (request: HttpRequest, response: HttpResponse) => {
    response.detach();
    return serve(HttpRequest.exchangeOf(request), call);
  };
  return Object.assign(handler, { [REQUEST_HANDLER]: true } as const);
}

/**
 * Calls the listener as `node:http` does: by an event of a server, though this one listens nowhere. Instrumentation wraps
 * `emit`, that of OpenTelemetry on the prototype, and would not see a mere call.
 */
function callerOf(listener: NodeListener): NodeListener {
  const server = createServer();
  let result: unknown;
  server.on("request", (req, res) => {
    result = listener(req, res);
  });
  return (request, response) => {
    // Who wraps `emit` may answer by itself.
    result = undefined;
    if (STARTED.hasSubscribers) STARTED.publish({ request, response, socket: request.socket, server });
    server.emit("request", request, response);
    return result;
  };
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
