/** The web-standard form of a handler: `fetch(request: Request): Response | Promise<Response>`. */
import type { Exchange, Sink } from "../exchange.ts";
import { toBytes } from "../http/body.ts";
import { isConnectionSpecific } from "../http/fields.ts";
import { forbidsBody } from "../http/semantics.ts";
import { bodyStreamOf, onAbort } from "./request.ts";
import type { ExchangeHandler } from "./run.ts";

export type FetchHandler = (request: Request) => Response | Promise<Response>;

/** Methods that a web `Request` refuses to hold. */
const FORBIDDEN_METHODS = new Set(["TRACE", "TRACK", "CONNECT"]);

export function fetchHandler(fetch: FetchHandler): ExchangeHandler {
  return (exchange) => {
    if (FORBIDDEN_METHODS.has(exchange.method)) {
      exchange.sink.respond({ status: 501, fields: ["content-length", "0"] }, null);
      return;
    }
    const request = webRequest(exchange);
    if (request === null) {
      exchange.sink.respond({ status: 400, fields: ["content-length", "0"] }, null);
      return;
    }
    const answer = fetch(request);
    return answer instanceof Response
      ? send(exchange, answer)
      : answer.then((response) => send(exchange, response));
  };
}

/** Null where scheme, authority and path make no URL. */
function webRequest(exchange: Exchange): Request | null {
  const url = `${exchange.scheme}://${exchange.authority}${exchange.path === "*" ? "" : exchange.path}`;
  if (!URL.canParse(url)) return null;
  const headers = new Headers();
  const { fields } = exchange;
  for (let i = 0; i < fields.length; i += 2) headers.append(fields[i] as string, fields[i + 1] as string);
  if (!headers.has("host")) headers.set("host", exchange.authority);
  const abort = new AbortController();
  onAbort(exchange, () => abort.abort());
  const body = bodyStreamOf(exchange);
  const init: RequestInit = { method: exchange.method, headers, signal: abort.signal };
  return new Request(url, body === null ? init : ({ ...init, body, duplex: "half" } as RequestInit));
}

async function send(exchange: Exchange, response: Response): Promise<void> {
  if (!(response instanceof Response)) {
    throw new TypeError(`fetch returned ${response === null ? "null" : typeof response}, not a Response`);
  }
  const { sink } = exchange;
  const fields: string[] = [];
  response.headers.forEach((value, name) => {
    // Frameworks written for HTTP/1.1 set these; here the connection is the reactor's.
    if (!isConnectionSpecific(name)) fields.push(name, value);
  });
  const head = { status: response.status, fields };
  const { body } = response;
  if (body === null || forbidsBody(exchange.method, head.status)) {
    body?.cancel();
    if (
      body === null &&
      head.status !== 204 &&
      head.status !== 304 &&
      !response.headers.has("content-length")
    ) {
      if (exchange.method !== "HEAD") fields.push("content-length", "0");
    }
    sink.respond(head, null);
    return;
  }
  const reader = body.getReader();
  onAbort(exchange, () => reader.cancel().catch(() => {}));
  sink.head(head);
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    if (!sink.data(toBytes(next.value)) && !exchange.aborted) await drained(sink);
  }
  sink.end();
}

function drained(sink: Sink): Promise<void> {
  return new Promise((resolve) => {
    sink.onDrain = resolve;
  });
}
