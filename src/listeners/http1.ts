/** A request and response of HTTP/1.1 (`node:http`) as an exchange. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Exchange, ExchangeId, Fields, FileBody, RequestBody, ResponseHead, Sink } from "../exchange.ts";
import { sendFile } from "../files/send.ts";
import { contentLength, malformedFieldLine, trailersOf } from "../http/fields.ts";
import { forbidsBody } from "../http/semantics.ts";
import { ReadableBody } from "./readable-body.ts";
import { type ConnectionFacts, TcpExchange } from "./tcp-exchange.ts";

/** Bytes. A longer piece is not copied to save a write. */
const GATHERED_BYTES = 16 * 1024;

export class Http1Exchange extends TcpExchange implements Exchange, Sink {
  readonly protocol = "HTTP/1.1";
  readonly stream: number;
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly fields: Fields;
  readonly body: RequestBody | null;
  readonly malformed: string | null;
  readonly sendsInterim: boolean;
  readonly sendsTrailers: boolean;

  readonly #response: ServerResponse;
  /** Null where the engine itself writes head and body together: without TLS. */
  readonly #gathering: Socket | null;
  readonly #altSvc: string | null;
  readonly #closing: (mustClose: boolean) => boolean;
  /** The client waits to be told that its body is wanted. */
  #isWaiting: boolean;
  /** It is known where its body ends, if it has one. */
  readonly #isBounded: boolean;
  /** The response comes in chunks: only behind them is there a trailer section (RFC 9112 §7.1.2). */
  #isChunked = false;

  /**
   * @param waits whether the client sends its body when it is told to (RFC 9110 §10.1.1)
   * @param closing says whether the connection is to end with this response (RFC 9112 §9.6), and has it end where it must
   */
  constructor(
    id: ExchangeId,
    facts: ConnectionFacts,
    stream: number,
    request: IncomingMessage,
    response: ServerResponse,
    altSvc: string | null,
    waits: boolean,
    closing: (mustClose: boolean) => boolean,
  ) {
    super(id, facts);
    this.stream = stream;
    this.#response = response;
    this.#altSvc = altSvc;
    this.#closing = closing;
    this.#isWaiting = waits;
    this.method = request.method ?? "";
    const target = splitTarget(request.url ?? "");
    const { fields, host, hosts, framed, isBounded, malformed } = readFields(
      request.rawHeaders,
      target.authority,
    );
    this.#isBounded = isBounded;
    this.fields = fields;
    this.path = target.path;
    this.authority = target.authority ?? host;
    this.malformed =
      request.httpVersionMajor !== 1
        ? `the version is HTTP/${request.httpVersion} on a connection of HTTP/1.1`
        : hosts === 1 || (hosts === 0 && request.httpVersion === "1.0")
          ? malformed
          : `there are ${hosts} host fields, not one (RFC 9112 §3.2)`;
    this.#gathering = facts.scheme === "https" ? request.socket : null;
    // Over TLS the request is Bun's parser in JavaScript: paused, it buffers all that its socket brings. So the socket
    // is paused, and the request alone is not, for its reading would let the socket go on. Plain HTTP is the other way.
    const flow = this.#gathering ?? request;
    this.body = framed
      ? new ReadableBody(request, contentLength(fields), flow, () => trailersOf(request.rawTrailers ?? []))
      : null;
    // HTTP/1.0 has neither interim responses nor chunks for a trailer section to follow.
    this.sendsInterim = request.httpVersion !== "1.0";
    this.sendsTrailers = this.sendsInterim;
    // Over TLS it is read away when the response has finished, which costs less.
    if (!framed && this.#gathering === null) request.resume();
    response.on("close", () => this.closed(this));
    // A body that is lost tells of it before the response does, and the handler must not fail with it first.
    if (framed) {
      request.on("close", () => {
        if (!request.complete) this.closed(this);
      });
    }
    // 'close' follows, and tells all that there is to tell.
    response.on("error", () => {});
    response.on("drain", () => this.onDrain?.());
  }

  get sink(): Sink {
    return this;
  }

  respond(head: ResponseHead, body: Uint8Array | string | null): void {
    this.headSent = true;
    this.ended = true;
    this.#writeHead(head);
    if (body === null) this.#response.end();
    else this.#gathered(body, () => this.#response.end(body));
  }

  proceed(): void {
    if (!this.#isWaiting) return;
    this.#isWaiting = false;
    this.#response.writeContinue();
  }

  inform(head: ResponseHead): boolean {
    this.#response.writeInformation(head.status, head.fields);
    return true;
  }

  file(head: ResponseHead, body: FileBody): Promise<void> {
    return sendFile(this, head, body);
  }

  head(head: ResponseHead): void {
    this.headSent = true;
    this.#writeHead(head);
    const hasLength = this.#response.hasHeader("content-length");
    this.#isChunked = this.sendsTrailers && !hasLength && !forbidsBody(this.method, head.status);
    // Bun refuses to announce trailers where there are no chunks for them to follow.
    if (!this.#isChunked) this.#response.removeHeader("trailer");
    this.#response.flushHeaders();
  }

  data(chunk: Uint8Array): boolean {
    return this.#response.destroyed || this.#gathered(chunk, () => this.#response.write(chunk));
  }

  end(trailers: Fields | null): void {
    this.ended = true;
    if (trailers === null || !this.#isChunked) this.#response.end();
    else endWithTrailers(this.#response, trailers, this.#gathering !== null);
  }

  abort(): void {
    this.ended = true;
    // Without TLS Bun's response, destroyed by itself before its head, is a whole 200.
    this.#response.socket?.destroy();
    this.#response.destroy();
  }

  /** Head and body, or the three parts of a chunk, as one write, where `gatherWrites` was called for the socket. */
  #gathered<Result>(body: Uint8Array | string, write: () => Result): Result {
    if (this.#gathering === null || body.length > GATHERED_BYTES) return write();
    this.#gathering.cork();
    try {
      return write();
    } finally {
      this.#gathering.uncork();
    }
  }

  #writeHead(head: ResponseHead): void {
    const { fields } = head;
    const response = this.#response;
    response.statusCode = head.status;
    for (let i = 0; i < fields.length; i += 2)
      response.appendHeader(fields[i] as string, fields[i + 1] as string);
    if (this.#altSvc !== null && !response.hasHeader("alt-svc")) response.setHeader("alt-svc", this.#altSvc);
    // Of a client that was not told to send its body nobody knows whether it comes.
    if (this.#closing(this.#isWaiting || !this.#isBounded)) response.setHeader("connection", "close");
  }
}

/** Bun's TLS socket makes a record, and a system call, of each piece that it holds; after this it joins them. Node.js does so by itself. */
export function gatherWrites(socket: Socket): void {
  socket._writev ??= (pieces, done) => {
    const bytes = pieces.map(({ chunk, encoding }) =>
      typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk,
    );
    socket._write(Buffer.concat(bytes), "binary", done);
  };
}

/** The parser of Bun's TLS sockets (`node:_http_common`). */
interface Parser {
  initialize(type: number, resource: object, maxHeaderSize: number, lenientFlags: number): void;
  /** @returns how many bytes were read */
  execute(bytes: Uint8Array): number | Error;
  /** The last request that asked for an upgrade, perhaps not all of it here yet. */
  passedOver?: IncomingMessage | null;
}

const REQUEST = 1;
const STRICT = 0;

const parserOf = (socket: Socket) => (socket as unknown as { readonly parser: Parser }).parser;

/** No upgrade is taken: a request that asks for one is answered like any other (RFC 9110 §7.8). */
export function passOverUpgrade(request: IncomingMessage): false {
  parserOf(request.socket).passedOver = request;
  return false;
}

/**
 * Bun's parser stops behind a request that asks for an upgrade, and takes every error from there on for another stop. What had come
 * with it was dropped: a request, or the head of one, whose body was taken for a request then. After this it is read, too.
 */
export function parseBehindUpgrades(socket: Socket, maxHeaderSize: number): void {
  if (process.versions.bun === undefined) return;
  const parser = parserOf(socket);
  const execute = parser.execute.bind(parser);
  parser.execute = (bytes) => {
    for (let rest = bytes; ; ) {
      if (parser.passedOver?.complete) {
        parser.passedOver = null;
        parser.initialize(REQUEST, {}, maxHeaderSize, STRICT);
      }
      const read = execute(rest);
      if (!parser.passedOver || typeof read !== "number" || read === rest.length) return read;
      if (!parser.passedOver.complete) return new Error("the body is broken");
      rest = rest.subarray(read);
    }
  };
}

/** The chunk that ends a body (RFC 9112 §7.1), without a trailer section. */
const LAST_CHUNK = "0\r\n\r\n";

/** Bun's `addTrailers` is forgotten over TLS: there the trailers stand nowhere but in the last chunk, then. */
function endWithTrailers(response: ServerResponse, trailers: Fields, isTls: boolean): void {
  let section = "";
  const pairs: [string, string][] = [];
  for (let i = 0; i < trailers.length; i += 2) {
    pairs.push([trailers[i] as string, trailers[i + 1] as string]);
    section += `${trailers[i]}: ${trailers[i + 1]}\r\n`;
  }
  response.addTrailers(pairs);
  if (isTls && process.versions.bun !== undefined) {
    const { socket } = response;
    const insert = (socket: Socket) => insertTrailers(socket, section);
    if (socket !== null) insert(socket);
    // An earlier request of its connection is still to be answered: this one's is written when it has the socket.
    else response.once("socket", insert);
  }
  response.end();
}

/** Puts the section into the next last chunk, which is that of the response that ends now. */
function insertTrailers(socket: Socket, section: string): void {
  const { write } = socket;
  socket.write = ((data: unknown, ...rest: unknown[]) => {
    if (data !== LAST_CHUNK) return write.apply(socket, [data, ...rest] as never);
    socket.write = write;
    const written = rest.find((each) => typeof each === "function");
    return write.call(socket, `0\r\n${section}\r\n`, "latin1", written as () => void);
  }) as typeof write;
}

/** @param authority of the target, which counts in place of the host field (RFC 9112 §3.2.2) */
function readFields(raw: readonly string[], authority: string | undefined) {
  const fields: string[] = [];
  let host = "";
  let length: string | null = null;
  let hosts = 0;
  let framed = false;
  let isBounded = true;
  let malformed: string | null = null;
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase();
    const value = raw[i + 1] as string;
    malformed ??= malformedFieldLine(name, value);
    if (name === "host") {
      host = value;
      hosts++;
      fields.push(name, authority ?? value);
      continue;
    }
    if (name === "content-length") {
      // Several that agree are one (RFC 9112 §6.3).
      if (value === length) continue;
      length = value;
    }
    fields.push(name, value);
    framed ||= name === "transfer-encoding" || (name === "content-length" && value !== "0");
    // RFC 9112 §6.3. Of an empty one Bun's parser without TLS makes no body at all.
    if (name === "transfer-encoding") isBounded = value.toLowerCase() === "chunked";
  }
  return { fields, host, hosts, framed, isBounded, malformed };
}

/** The absolute form, which every server takes (RFC 9112 §3.2.2), carries the authority before the path. */
function splitTarget(target: string): { path: string; authority?: string } {
  const absolute = /^https?:\/\/([^/?#]+)(.*)$/i.exec(target);
  if (absolute === null) return { path: target };
  const path = absolute[2] as string;
  return { path: path.startsWith("/") ? path : `/${path}`, authority: absolute[1] as string };
}
