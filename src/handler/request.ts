/** A request as a handler sees it. What a handler does not ask for is not made. */
import { type Exchange, type Fields, nameOf, type Protocol } from "../exchange.ts";
import { decodeText, lastValues, mediaTypeOf, parseJson, parseUrlencoded } from "../http/content.ts";
import { cookiesOf } from "../http/cookies.ts";
import { fieldValue } from "../http/fields.ts";
import { HttpError } from "../http/http-error.ts";
import { background } from "./background.ts";
import type { UploadLimits } from "./multipart.ts";
import { UploadedFile } from "./uploads.ts";

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

/** A form that was sent: `application/x-www-form-urlencoded`, or `multipart/form-data` (RFC 7578). */
export interface Form {
  /** The values of its text fields by name; of a name that comes twice the last. See `fields`. */
  readonly post: Readonly<Record<string, string>>;
  /** All its text fields, in their order: `fields.getAll(name)` for a name that comes several times. */
  readonly fields: URLSearchParams;
  /** Its files, in their order. */
  readonly files: readonly UploadedFile[];
}

export class HttpRequest {
  readonly #exchange: Exchange;
  readonly #limits: UploadLimits;
  #header: Readonly<Record<string, string>> | null = null;
  #server: ServerVariables | null = null;
  #body: ReadableStream<Uint8Array> | null = null;
  #content: Promise<Buffer> | null = null;
  #signal: AbortSignal | null = null;
  #query: URLSearchParams | null = null;
  #get: Readonly<Record<string, string>> | null = null;
  #cookie: Readonly<Record<string, string>> | null = null;
  #form: Promise<Form> | null = null;
  #parsed: Form | null = null;
  /** The handler's promise has not settled. */
  #isHandled = false;
  /** Nothing more of the response can be sent. */
  #isOver = false;

  constructor(exchange: Exchange, limits: UploadLimits) {
    this.#exchange = exchange;
    this.#limits = limits;
  }

  /** @internal */
  static exchangeOf(request: HttpRequest): Exchange {
    return request.#exchange;
  }

  /** The handler has returned a promise: what came with a form is kept until `handled`. @internal */
  static handling(request: HttpRequest): void {
    request.#isHandled = true;
  }

  /** The handler's promise has settled. @internal */
  static handled(request: HttpRequest): void {
    request.#isHandled = false;
    request.#release();
  }

  /**
   * Work that goes on after the response: at shutdown the worker stays until the promise has settled, for up to
   * `shutdownTimeout`. What it rejects with goes to the log.
   */
  waitUntil(promise: Promise<unknown>): void {
    background.add(this.#exchange, promise);
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

  get protocol(): Protocol {
    return this.#exchange.protocol;
  }

  /** As it came: methods are in upper case, and one in lower case is another (RFC 9110 §9.1). */
  get method(): string {
    return this.#exchange.method;
  }

  /** The path as it came, percent-encoded, without the query. */
  get pathname(): string {
    return this.server.path_info;
  }

  /** The client's address; behind a proxy of `trustProxy`, the one that the proxy tells. */
  get remoteAddress(): string {
    return this.#exchange.remoteAddress;
  }

  /** By which the client asked; see `remoteAddress`. */
  get scheme(): "http" | "https" {
    return this.#exchange.scheme;
  }

  /** The host that the client asked, with the port where it named one; see `remoteAddress`. */
  get host(): string {
    return this.#exchange.authority;
  }

  /**
   * The request came before its connection's handshake was done (0-RTT, RFC 8470): whoever saw it on its way can have
   * sent it again. Answer with 425 where that would do harm, and the client asks once more. Only methods that are safe
   * come so, and only where the HTTP/3 engine quic has `earlyData`, or a proxy says so.
   */
  get earlyData(): boolean {
    return fieldValue(this.#exchange.fields, "early-data") !== undefined;
  }

  /** All fields of the query, in their order: `query.getAll(name)` for a name that comes several times. */
  get query(): URLSearchParams {
    this.#query ??= queryOf(this.#exchange.path);
    return this.#query;
  }

  /**
   * The fields of the query by name; of a name that comes twice the last value, as in PHP, and `name[]` is a name like
   * any other. What is not percent-encoded UTF-8 is taken as it is, and U+FFFD for its bytes.
   */
  get get(): Readonly<Record<string, string>> {
    this.#get ??= lastValues(this.query);
    return this.#get;
  }

  /** Cookies by name (RFC 6265bis), percent-decoded; of a name that comes twice the first value. */
  get cookie(): Readonly<Record<string, string>> {
    this.#cookie ??= cookiesOf(this.header.cookie);
    return this.#cookie;
  }

  /** The text fields of the form by name. @throws TypeError before `await request.form()` */
  get post(): Readonly<Record<string, string>> {
    return this.#parsedForm("post").post;
  }

  /** The files of the form. @throws TypeError before `await request.form()` */
  get files(): readonly UploadedFile[] {
    return this.#parsedForm("files").files;
  }

  /**
   * The trailer section, by name in lower case; there when the body was read to its end, and empty before. Values of a
   * name that comes twice are joined with ", ". What no trailer section may have is left out (RFC 9110 §6.5.1).
   */
  get trailers(): Readonly<Record<string, string>> {
    return recordOf(this.#exchange.body?.trailers ?? []);
  }

  /** Aborts when the client goes away, or the server has given the request up. */
  get signal(): AbortSignal {
    this.#signal ??= signalOf(this.#exchange);
    return this.#signal;
  }

  /** The body as a stream, pulled as it is read; null where the request has none. Excludes the other ways to read it. */
  get body(): ReadableStream<Uint8Array> | null {
    if (this.#content !== null)
      throw new TypeError("the body was read by rawContent(), text(), json() or form()");
    if (this.#form !== null) throw new TypeError("the body was read by form()");
    this.#body ??= bodyStreamOf(this.#exchange);
    return this.#body;
  }

  /**
   * The whole body; empty where there is none. `text`, `json` and an urlencoded `form` read it, too, and can be called
   * beside it. Rejects when the client goes away.
   */
  rawContent(): Promise<Buffer> {
    if (this.#content !== null) return this.#content;
    if (this.#body !== null) return Promise.reject(new TypeError("the body is read as a stream"));
    if (this.#form !== null) return Promise.reject(new TypeError("the body was read by form()"));
    this.#content = rawContentOf(this.#exchange);
    return this.#content;
  }

  /**
   * The body as text, in the charset that the content-type names; UTF-8 where it names none. What is not in it becomes
   * U+FFFD.
   * @throws HttpError 415 (as a rejection) for a charset that is not known
   */
  async text(): Promise<string> {
    return decodeText(await this.rawContent(), mediaTypeOf(this.header["content-type"]));
  }

  /**
   * The body as JSON.
   * @throws HttpError (as a rejection): 415 where the content-type is neither application/json nor ends in +json, 400
   * for what is no JSON in UTF-8. A handler that lets it through has its request answered so
   */
  async json<T = unknown>(): Promise<T> {
    return parseJson(await this.rawContent(), mediaTypeOf(this.header["content-type"])) as T;
  }

  /**
   * Reads the form that was sent; from then on `post` and `files` are there. Files are on the disk, and are removed when
   * the response is over and the handler's promise has settled, unless they were moved.
   * @throws HttpError (as a rejection): 415 for another content-type, 400 for a broken form, 413 over a limit of
   * `upload`; the system's error where the disk fails. No file is left then. A handler that lets an HttpError through
   * has its request answered so
   */
  form(): Promise<Form> {
    this.#form ??= this.#readForm();
    return this.#form;
  }

  async #readForm(): Promise<Form> {
    const type = mediaTypeOf(this.header["content-type"]);
    if (type.essence === "application/x-www-form-urlencoded") {
      if (this.#body !== null) throw new TypeError("form: the body is read as a stream");
      this.#content ??= rawContentOf(this.#exchange);
      const fields = parseUrlencoded(await this.#content, type, this.#limits);
      this.#parsed = { post: lastValues(fields), fields, files: [] };
      return this.#parsed;
    }
    if (type.essence !== "multipart/form-data") {
      throw new HttpError(
        415,
        "the content-type must be application/x-www-form-urlencoded or multipart/form-data",
      );
    }
    if (this.#body !== null || this.#content !== null) throw new TypeError("form: the body is read already");
    const { body } = this.#exchange;
    if (body === null) throw new HttpError(400, "there is no form: the body is empty");
    onOver(this.#exchange, () => {
      this.#isOver = true;
      this.#release();
    });
    const { receiveMultipart } = await import("./multipart.ts");
    const { fields, files } = await receiveMultipart(
      body,
      this.header["content-type"] as string,
      this.#limits,
    );
    this.#parsed = { post: lastValues(fields), fields, files };
    this.#release();
    return this.#parsed;
  }

  #parsedForm(property: string): Form {
    if (this.#parsed !== null) return this.#parsed;
    throw new TypeError(`request.${property} is there after "await request.form()", which reads the body`);
  }

  /** Removes the files of a form that nobody will ask for any more. */
  #release(): void {
    if (this.#isHandled || !this.#isOver || this.#parsed === null) return;
    for (const file of this.#parsed.files) background.add(this.#exchange, UploadedFile.remove(file));
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

/** Calls `told` once when nothing more of the response can be sent; see `Exchange.onOver`. */
export function onOver(exchange: Exchange, told: () => void): void {
  const before = exchange.onOver;
  exchange.onOver = () => {
    before?.();
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
function headerOf(exchange: Exchange): Record<string, string> {
  const header = recordOf(exchange.fields);
  if (header.host === undefined && exchange.authority !== "") header.host = exchange.authority;
  return header;
}

function recordOf(fields: Fields): Record<string, string> {
  // No prototype: a field may be called "constructor".
  const record: Record<string, string> = Object.create(null);
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    const value = fields[i + 1] as string;
    const before = record[name];
    record[name] = before === undefined ? value : `${before}${name === "cookie" ? "; " : ", "}${value}`;
  }
  return record;
}

function queryOf(path: string): URLSearchParams {
  const at = path.indexOf("?");
  return new URLSearchParams(at === -1 ? "" : path.slice(at + 1));
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
    // Looked up only when it is asked for: some listeners have to ask their engine.
    get remote_addr() {
      return exchange.remoteAddress;
    },
    get remote_port() {
      return exchange.remotePort;
    },
    server_port: exchange.localPort,
    request_time: Math.floor(seconds),
    request_time_float: seconds,
  };
}
