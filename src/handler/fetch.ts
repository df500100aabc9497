/** The web-standard form of a handler: `fetch(request, env, context): Response | Promise<Response>`. */
import type { Exchange, ResponseHead } from "../exchange.ts";
import { byteLength, drained, toBytes } from "../http/body.ts";
import { validatorsOf } from "../http/conditional.ts";
import {
  fieldValue,
  isConnectionSpecific,
  isLength,
  unsendableFieldLine,
  withoutField,
} from "../http/fields.ts";
import { type ByteRange, contentRange, requestedRanges } from "../http/ranges.ts";
import { forbidsBody, forbidsLength } from "../http/semantics.ts";
import type { Server } from "../server.ts";
import { FetchContext, FetchEnv } from "./fetch-context.ts";
import { bodyStreamOf, onAbort, signalOf } from "./request.ts";
import type { ExchangeHandler } from "./run.ts";
import { settledValue } from "./settled.ts";
import { blobOf, isDecoded, wholeBodyOf } from "./web-response.ts";

export type FetchHandler = (
  request: Request,
  env: FetchEnv,
  context: FetchContext,
) => Response | Promise<Response>;

/** The answer is wrong, and no line of code: on the stack there is nothing of the application's any more. */
class AnswerError extends TypeError {
  override readonly stack = this.message;
}

const GONE = "the client has gone, or the server has given the request up";

/** Methods that a web `Request` refuses to hold. */
const FORBIDDEN_METHODS = new Set(["TRACE", "TRACK"]);

/** @param server that `env.tercet` is */
export function fetchHandler(fetch: FetchHandler, server: Server): ExchangeHandler {
  return (exchange) => {
    if (FORBIDDEN_METHODS.has(exchange.method)) {
      exchange.sink.respond({ status: 501, fields: ["content-length", "0"] }, null);
      return;
    }
    const request = webRequestOf(exchange);
    if (request === null) {
      exchange.sink.respond({ status: 400, fields: ["content-length", "0"] }, null);
      return;
    }
    // Bun makes a GET of a method that it does not know, and of a "get", which is another (RFC 9110 §9.1).
    if (request.method !== exchange.method) {
      exchange.sink.respond({ status: 501, fields: ["content-length", "0"] }, null);
      return;
    }
    const given = fetch(request, new FetchEnv(exchange, server), new FetchContext(exchange));
    const answer = given instanceof Promise ? settledValue(given) : given;
    if (answer instanceof Promise) return answer.then((response) => send(exchange, response));
    return send(exchange, answer);
  };
}

/** Null where scheme, authority and path make no URL. */
function webRequestOf(exchange: Exchange): Request | null {
  // HTTP/1.0 asks without a host, and a URL without one would take the path's first segment for it (RFC 9112 §3.3).
  const authority = exchange.authority || `localhost:${exchange.localPort}`;
  const url = `${exchange.scheme}://${authority}${exchange.path === "*" ? "" : exchange.path}`;
  try {
    const request = new ExchangeRequest(exchange, url, initOf(exchange));
    addHeaders(request.headers, exchange);
    return request;
  } catch (error) {
    if (URL.canParse(url)) throw error;
    return null;
  }
}

/** Without one a `Request` is made in a third of the time. */
function initOf(exchange: Exchange): RequestInit | undefined {
  const { method } = exchange;
  const body = bodyStreamOf(exchange);
  if (body !== null) return { method, body, duplex: "half" } as RequestInit;
  return method === "GET" ? undefined : { method };
}

/** As the constructor would from a record, in half the time; lines of one field are joined. */
function addHeaders(headers: Headers, { fields, authority }: Exchange): void {
  let hasHost = false;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    headers.append(name, fields[i + 1] as string);
    hasHost ||= name === "host";
  }
  if (!hasHost && authority !== "") headers.append("host", authority);
}

/** A `Request` that makes its signal when it is asked for: most handlers never do. */
class ExchangeRequest extends Request {
  static override readonly name = "Request";

  readonly #exchange: Exchange;
  #signal: AbortSignal | null = null;

  constructor(exchange: Exchange, url: string, init?: RequestInit) {
    super(url, init);
    this.#exchange = exchange;
  }

  /** Aborts with this one, as the Fetch standard has it. */
  override clone(): ReturnType<Request["clone"]> {
    return new ExchangeRequest(this.#exchange, this.url, super.clone() as unknown as RequestInit);
  }

  static {
    // The types declare properties, which a class may not override with what the platform has: an accessor, and a method.
    Object.defineProperty(ExchangeRequest.prototype, "signal", {
      get(this: ExchangeRequest) {
        this.#signal ??= signalOf(this.#exchange);
        return this.#signal;
      },
    });
    // Of the type that content-type says, as the Fetch standard has it: Bun gives what was streamed none.
    Object.defineProperty(ExchangeRequest.prototype, "blob", {
      async value(this: ExchangeRequest): Promise<Blob> {
        const type = this.headers.get("content-type");
        const blob = await Request.prototype.blob.call(this);
        // A slice would have the type in lower case, the boundary of a form as well.
        return type === null ? blob : new Response(blob, { headers: { "content-type": type } }).blob();
      },
    });
  }
}

function send(exchange: Exchange, response: Response): void | Promise<void> {
  if (!isResponse(response)) {
    throw new AnswerError(`fetch returned ${response === null ? "null" : typeof response}, not a Response`);
  }
  const { status } = response;
  if (status < 200) {
    const what = status === 0 ? "Response.error()" : `a Response with ${status}, which is no final status`;
    throw new AnswerError(`fetch returned ${what}`);
  }
  const fields: string[] = [];
  let declared = null as number | null;
  const decoded = isDecoded(response);
  response.headers.forEach((value, name) => {
    // Frameworks written for HTTP/1.1 set these; here the connection is the reactor's.
    if (isConnectionSpecific(name)) return;
    if (decoded && (name === "content-encoding" || name === "content-length")) return;
    const wrong = unsendableFieldLine(name, value);
    if (wrong !== null) throw new AnswerError(`the response's header: ${wrong}`);
    if (name === "content-length") {
      // What 304 says is of the response that it stands for.
      if (forbidsLength(status)) return;
      // To HEAD of a stream of texts Elysia says NaN: of use to nobody, and no reason for a 500 where GET has none.
      if (exchange.method === "HEAD" && !isLength(value)) return;
      declared = declaredLength(value);
    }
    fields.push(name, value);
  });
  // After the headers: once the body was asked for, Bun has no longer the content-type that a blob or form implies.
  const whole = wholeBodyOf(response);
  if (whole === null && (response.bodyUsed || response.body?.locked)) {
    throw new AnswerError("fetch returned a Response whose body was read already, or is being read");
  }
  const head = { status, fields };
  const body = whole === null ? response.body : null;
  if (body !== null) {
    const blob = blobOf(response);
    const range = blob === null ? null : rangeOf(exchange, head, blob.size);
    if (blob !== null && range !== null) return sendRange(exchange, head, blob, range);
    // The size of a pipe is 0 or infinite, and says nothing.
    const tells = blob !== null && declared === null && !forbidsLength(status);
    if (tells && blob.size > 0 && Number.isFinite(blob.size)) {
      fields.push("content-length", String(blob.size));
    }
    if (!forbidsBody(exchange.method, status)) return stream(exchange, head, body, declared, blob !== null);
    // A pipe may have nothing to read yet.
    const isFile = blob !== null && Number.isFinite(blob.size);
    if (isFile && !forbidsBody("GET", status)) return sendHeadOf(exchange, head, body);
    // Nobody hears of a failure of what nobody reads.
    body.cancel().catch(() => {});
    exchange.sink.respond(head, null);
    return;
  }
  // To HEAD a handler may well give no body: that says nothing of the length.
  const isKnown = whole !== null || exchange.method !== "HEAD";
  if (isKnown && !forbidsLength(status) && status !== 304) {
    const length = whole === null ? 0 : byteLength(whole);
    if (declared === null) fields.push("content-length", String(length));
    else if (declared !== length) throw wrongLength(`${length} bytes`, declared);
  }
  exchange.sink.respond(head, forbidsBody(exchange.method, status) ? null : whole);
}

/**
 * What of a file, or another blob, is asked for, where the handler leaves that to us with a 200 (RFC 9110 §14.2). Null for all of it:
 * several ranges are, as Bun's own server has it, and what is empty may be a file that is not there.
 */
function rangeOf(exchange: Exchange, head: ResponseHead, size: number): ByteRange | "not satisfiable" | null {
  if (head.status !== 200 || size === 0 || !Number.isFinite(size)) return null;
  if (fieldValue(head.fields, "content-range") !== undefined) return null;
  const ranges = requestedRanges(exchange, () => validatorsOf(head.fields), size, Date.now());
  if (ranges === null || ranges === "not satisfiable") return ranges;
  const [first, second] = ranges;
  return second === undefined ? (first ?? null) : null;
}

function sendRange(
  exchange: Exchange,
  head: ResponseHead,
  blob: Blob,
  range: ByteRange | "not satisfiable",
): void | Promise<void> {
  if (range === "not satisfiable") {
    const fields = ["content-range", contentRange(null, blob.size), "content-length", "0"];
    exchange.sink.respond({ status: 416, fields }, null);
    return;
  }
  const { offset, length } = range;
  const fields = withoutField(head.fields, "content-length");
  fields.push("accept-ranges", "bytes", "content-range", contentRange(range, blob.size));
  fields.push("content-length", String(length));
  const body = blob.slice(offset, offset + length).stream();
  return stream(exchange, { status: 206, fields }, body, length, true);
}

/** To HEAD a file that cannot be read is the 500 that it is to GET (RFC 9110 §9.3.2), and shows at its first bytes. */
async function sendHeadOf(
  exchange: Exchange,
  head: ResponseHead,
  body: ReadableStream<Uint8Array>,
): Promise<void> {
  const reader = body.getReader();
  await reader.read();
  reader.cancel().catch(() => {});
  exchange.sink.respond(head, null);
}

/**
 * @param declared bytes, by `content-length`
 * @param isBlob the body may be a file, which can be missing
 */
async function stream(
  exchange: Exchange,
  head: ResponseHead,
  body: ReadableStream<Uint8Array>,
  declared: number | null,
  isBlob: boolean,
): Promise<void> {
  const { sink } = exchange;
  const reader = body.getReader();
  // The reader's own `read` tells what failed; a cancel has nothing to add.
  // With a reason: whoever writes to the other end of a TransformStream is given it as an error.
  onAbort(exchange, () => reader.cancel(new DOMException(GONE, "AbortError")).catch(() => {}));
  let sent = 0;
  const next = async () => {
    const { done, value } = await reader.read();
    if (done) return null;
    const bytes = toBytes(value);
    sent += bytes.length;
    if (declared !== null && sent > declared) throw wrongLength(`${sent} bytes or more`, declared);
    return bytes;
  };
  try {
    // Whether a file can be read, or is too long, shows at its first bytes: before them there is time for a 500.
    const waits = isBlob || declared !== null;
    let bytes = waits ? await next() : null;
    sink.head(head);
    if (!waits) bytes = await next();
    for (; bytes !== null; bytes = await next()) {
      if (!sink.data(bytes) && !exchange.aborted) await drained(sink);
    }
    if (declared !== null && sent < declared && !exchange.aborted) {
      throw wrongLength(`${sent} bytes`, declared);
    }
  } catch (error) {
    // Its source may hold a file, a query, a connection, and is told by nobody else that nobody reads on.
    reader.cancel(error).catch(() => {});
    throw error;
  }
  sink.end(null);
}

function declaredLength(value: string): number {
  if (!isLength(value)) {
    throw new AnswerError(`the response's content-length is "${value}", not a number of bytes`);
  }
  return Number(value);
}

/** Sent as it is, what follows on the connection would be taken for a part of it (RFC 9112 §6.3). */
function wrongLength(has: string, declared: number): AnswerError {
  return new AnswerError(`the response's body has ${has}, and its content-length says ${declared}`);
}

/** Also what another realm, or another implementation of the web's `fetch`, calls a `Response`. */
function isResponse(value: unknown): value is Response {
  return value instanceof Response || Object.prototype.toString.call(value) === "[object Response]";
}
