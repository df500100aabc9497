/** A stream of HTTP/2 (`node:http2`) as an exchange. */
import {
  constants,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { Exchange, ExchangeId, Fields, FileBody, RequestBody, ResponseHead, Sink } from "../exchange.ts";
import { sendFile } from "../files/send.ts";
import { contentLength, fieldValue, readRequestSection, trailersOf } from "../http/fields.ts";
import { forbidsBody } from "../http/semantics.ts";
import { ReadableBody } from "./readable-body.ts";
import { sectionOf } from "./section.ts";
import { type ConnectionFacts, TcpExchange } from "./tcp-exchange.ts";

/** By which Bun's `node:http2` keeps the engine of a session. */
const ENGINE: unique symbol = Symbol.for("::bunhttp2native::") as never;

export class Http2Exchange extends TcpExchange implements Exchange, Sink {
  readonly protocol = "HTTP/2";
  readonly stream: number;
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly fields: Fields;
  readonly body: RequestBody | null;
  readonly malformed: string | null;

  readonly sendsInterim = true;
  readonly sendsTrailers = true;
  readonly #stream: ServerHttp2Stream;
  #requestTrailers: Fields = [];
  readonly #altSvc: string | null;

  constructor(
    id: ExchangeId,
    facts: ConnectionFacts,
    stream: ServerHttp2Stream,
    flags: number,
    raw: readonly string[],
    altSvc: string | null,
  ) {
    super(id, facts);
    this.stream = stream.id as number;
    this.#stream = stream;
    this.#altSvc = altSvc;
    const head = readRequestSection(raw);
    this.method = head.method;
    this.path = head.path;
    this.authority = head.authority;
    this.fields = head.fields;
    this.malformed = head.malformed;
    const ended = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
    this.body = ended
      ? null
      : new ReadableBody(stream, contentLength(head.fields), stream, () => this.#requestTrailers);
    stream.on("trailers", (headers, _flags, raw: unknown) => {
      this.#requestTrailers = trailersOf(rawHeaders(headers, raw));
    });
    stream.on("close", () => this.closed(this));
    // 'close' follows, and tells all that there is to tell.
    stream.on("error", () => {});
    stream.on("drain", () => this.onDrain?.());
  }

  get sink(): Sink {
    return this;
  }

  proceed(): void {
    if (this.body === null || fieldValue(this.fields, "expect")?.toLowerCase() !== "100-continue") return;
    this.inform({ status: 100, fields: [] });
  }

  respond(head: ResponseHead, body: Uint8Array | string | null): void {
    this.headSent = true;
    this.ended = true;
    if (this.#gone) return;
    if (body === null) {
      this.#stream.respond(this.#headers(head), { endStream: true });
      return;
    }
    this.#stream.respond(this.#headers(head));
    this.#stream.end(body);
  }

  inform(head: ResponseHead): boolean {
    if (this.#gone) return false;
    this.#stream.additionalHeaders({ ":status": head.status, ...sectionOf(head.fields) });
    return true;
  }

  file(head: ResponseHead, body: FileBody): Promise<void> {
    return sendFile(this, head, body);
  }

  head(head: ResponseHead): void {
    this.headSent = true;
    if (this.#gone) return;
    const endStream = forbidsBody(this.method, head.status);
    this.#stream.respond(this.#headers(head), { endStream, waitForTrailers: !endStream });
  }

  data(chunk: Uint8Array): boolean {
    return this.#gone || this.#stream.write(chunk);
  }

  end(trailers: Fields | null): void {
    this.ended = true;
    if (this.#gone) return;
    if (trailers !== null) {
      this.#stream.once("wantTrailers", () => this.#stream.sendTrailers(sectionOf(trailers)));
    }
    this.#stream.end();
  }

  abort(reason: string): void {
    this.ended = true;
    // An error makes it RST_STREAM INTERNAL_ERROR; Bun's `close(code)` ends the stream as if it were whole.
    if (!this.#gone) this.#stream.destroy(new Error(reason));
  }

  get #gone(): boolean {
    return this.#stream.closed || this.#stream.destroyed;
  }

  #headers(head: ResponseHead): Record<string, string | string[] | number> {
    const headers: Record<string, string | string[] | number> = {
      ":status": head.status,
      ...sectionOf(head.fields),
    };
    if (this.#altSvc !== null) headers["alt-svc"] ??= this.#altSvc;
    return headers;
  }
}

/** Nothing was done of its request, which its client may send elsewhere: RFC 9113 §8.7. */
export function refuseStream(stream: ServerHttp2Stream): void {
  stream.on("error", () => {});
  // Bun's `close(code)` sends the end of a body, before any head.
  Object.assign(stream, { rstCode: constants.NGHTTP2_REFUSED_STREAM });
  stream.destroy(new Error("the connection ends"));
}

/** The header block in order, where the engine gives it; else as near as its dictionary comes. */
export function rawHeaders(headers: IncomingHttpHeaders, raw: unknown): readonly string[] {
  if (Array.isArray(raw)) return raw as string[];
  return Object.entries(headers).flatMap(([name, value]) =>
    [value ?? ""].flat().flatMap((single) => [name, String(single)]),
  );
}

/** Bytes that wait for the client to take more. Bun tells of them nowhere else, and drops them when it closes the session. */
export function unwrittenBytes(session: ServerHttp2Session): number {
  const engine = (session as { [ENGINE]?: { bufferSize(): number } | null })[ENGINE];
  return engine?.bufferSize() ?? 0;
}
