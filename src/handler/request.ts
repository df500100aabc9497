/** A request as a handler sees it. What a handler does not ask for is not made. */
import { type Exchange, nameOf, type Protocol } from "../exchange.ts";

/** Facts of a request under the names that Swoole gives them. */
export interface ServerVariables {
  readonly server_protocol: Protocol;
  readonly request_method: string;
  /** The path, without the query; as `path_info`. */
  readonly request_uri: string;
  readonly path_info: string;
  /** What stands behind the `?`; empty where there is nothing. */
  readonly query_string: string;
  readonly remote_addr: string;
  readonly remote_port: number;
  readonly server_port: number;
  /** Seconds since the Unix epoch when the head had arrived. */
  readonly request_time: number;
  /** The same, with a fraction. */
  readonly request_time_float: number;
}

export class HttpRequest {
  readonly #exchange: Exchange;
  #header: Readonly<Record<string, string>> | null = null;
  #server: ServerVariables | null = null;
  #body: ReadableStream<Uint8Array> | null = null;
  #content: Promise<Buffer> | null = null;
  #signal: AbortSignal | null = null;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  /** `session id:stream id`: the request's name in logs and in `server.stats()`. */
  get name(): string {
    return nameOf(this.#exchange);
  }

  /**
   * Field values by name in lower case. A field that came more than once is joined with ", " (RFC 9110 §5.3), cookies
   * with "; " (RFC 9113 §8.2.3). `host` is there on every protocol.
   */
  get header(): Readonly<Record<string, string>> {
    this.#header ??= headerOf(this.#exchange);
    return this.#header;
  }

  get server(): ServerVariables {
    this.#server ??= serverVariablesOf(this.#exchange);
    return this.#server;
  }

  /** Aborts when the client goes away, or the server has given the request up. */
  get signal(): AbortSignal {
    this.#signal ??= signalOf(this.#exchange);
    return this.#signal;
  }

  /** The body as a stream, pulled as it is read; null where the request has none. Excludes `rawContent`. */
  get body(): ReadableStream<Uint8Array> | null {
    if (this.#content !== null) throw new TypeError("the body was read by rawContent()");
    this.#body ??= bodyStreamOf(this.#exchange);
    return this.#body;
  }

  /** The whole body; empty where there is none. Rejects when the client goes away. Excludes `body`. */
  rawContent(): Promise<Buffer> {
    if (this.#body !== null) return Promise.reject(new TypeError("the body is read as a stream"));
    this.#content ??= rawContentOf(this.#exchange);
    return this.#content;
  }
}

/** Calls `told` once when the exchange is aborted, at once where it has been. */
export function onAbort(exchange: Exchange, told: () => void): void {
  if (exchange.aborted) {
    told();
    return;
  }
  const before = exchange.onAborted;
  exchange.onAborted = () => {
    before?.(exchange);
    told();
  };
}

/** A new signal that aborts when the exchange is aborted. */
export function signalOf(exchange: Exchange): AbortSignal {
  const abort = new AbortController();
  onAbort(exchange, () => abort.abort());
  return abort.signal;
}

/** A request's body as a web stream: each pull is one read, so that what nobody reads stays with the client. */
export function bodyStreamOf(exchange: Exchange): ReadableStream<Uint8Array> | null {
  const { body } = exchange;
  if (body === null) return null;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const chunk = await body.read();
        if (chunk === null) controller.close();
        else controller.enqueue(chunk);
      },
      cancel() {
        body.cancel();
      },
    },
    { highWaterMark: 0 },
  );
}

async function rawContentOf(exchange: Exchange): Promise<Buffer> {
  if (exchange.body === null) return Buffer.alloc(0);
  const bytes = await exchange.body.readAll();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** See `HttpRequest.header`. */
export function headerOf(exchange: Exchange): Record<string, string> {
  // No prototype: a field may be called "constructor".
  const header: Record<string, string> = Object.create(null);
  const { fields } = exchange;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    const before = header[name];
    header[name] = before === undefined ? value : `${before}${name === "cookie" ? "; " : ", "}${value}`;
  }
  if (header.host === undefined && exchange.authority !== "") header.host = exchange.authority;
  return header;
}

function serverVariablesOf(exchange: Exchange): ServerVariables {
  const { path } = exchange;
  const query = path.indexOf("?");
  const pathInfo = query === -1 ? path : path.slice(0, query);
  const seconds = exchange.receivedAt / 1000;
  return {
    server_protocol: exchange.protocol,
    request_method: exchange.method,
    request_uri: pathInfo,
    path_info: pathInfo,
    query_string: query === -1 ? "" : path.slice(query + 1),
    remote_addr: exchange.remoteAddress,
    remote_port: exchange.remotePort,
    server_port: exchange.localPort,
    request_time: Math.floor(seconds),
    request_time_float: seconds,
  };
}
