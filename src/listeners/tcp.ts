/** TCP: HTTP/2 and HTTP/1.1 over TLS by `node:http2`, plain HTTP/1.1 by `node:http`. Owns sockets and sessions. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import {
  constants,
  createSecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { type AddressInfo, Server as NetServer, type Server, type Socket } from "node:net";
import { createSecureContext, type SecureContext, type Server as TlsServer } from "node:tls";
import type { Protocol } from "../exchange.ts";
import type { ConnectionLimits } from "./connection-limits.ts";
import { gatherWrites, Http1Exchange } from "./http1.ts";
import { Http2Exchange, rawHeaders } from "./http2.ts";
import {
  type Certificates,
  engineHeaderBytes,
  type Listener,
  type ListenerHost,
  type ListenerOptions,
  plainAddress,
} from "./listener.ts";
import { listenPlain } from "./plain-listen.ts";
import type { ConnectionFacts } from "./tcp-exchange.ts";

/** Of a GOAWAY that refuses no stream yet. */
const LAST_STREAM_ID = 2 ** 31 - 1;
/** Milliseconds between that and the one that does: more than a round trip. */
const GOAWAY_NOTICE = 1000;

export function listenTcp(options: ListenerOptions, host: ListenerHost): Promise<Listener> {
  const listener = new TcpListener(options, host);
  return listener.listen(options);
}

/** What is kept of a connection from request to request. */
interface Connection {
  readonly facts: ConnectionFacts;
  /** Requests so far. */
  requests: number;
  /** Those that are not over. */
  open: number;
  /** Of HTTP/1.1, while one is open: the answer to the last that came. */
  latest: ServerResponse | null;
  /** What came behind it is no request, or not to be answered: how the connection ends when all are over. */
  ending: (() => void) | null;
}

class TcpListener implements Listener {
  readonly protocols: readonly Protocol[];
  port = 0;
  readonly #host: ListenerHost;
  readonly #server: Server;
  readonly #scheme: "http" | "https";
  readonly #altSvcOf: ListenerOptions["altSvc"];
  readonly #keepAliveTimeout: number;
  readonly #limits: ConnectionLimits;
  readonly #maxRequests: number;
  /** Connections of HTTP/2. */
  readonly #sessions = new Map<ServerHttp2Session, Connection>();
  /** Connections of HTTP/1.1. */
  readonly #sockets = new Map<Socket, Connection>();
  /** By server name, as in `Certificates`. */
  #named: ReadonlyMap<string, SecureContext> = new Map();
  #altSvc: string | null = null;
  /** Takes no more connections, and closes none: the server's own `close` closes idle ones. */
  #stopListening: (() => void) | null = null;
  #connectionCount = 0;
  #draining: "at once" | "gently" | null = null;
  readonly #drained = Promise.withResolvers<void>();

  constructor(options: ListenerOptions, host: ListenerHost) {
    this.#host = host;
    this.#altSvcOf = options.altSvc;
    this.#keepAliveTimeout = options.keepAliveTimeout;
    this.#limits = options.connectionLimits;
    this.#maxRequests = options.maxRequestsPerConnection || Number.POSITIVE_INFINITY;
    this.#scheme = options.tls === null ? "http" : "https";
    this.protocols = options.tls === null ? ["HTTP/1.1"] : ["HTTP/1.1", "HTTP/2"];
    this.#server = options.tls === null ? this.#plain(options) : this.#secure(options, options.tls);
    // Over TLS it is told before the handshake, which is the dear part of a connection.
    this.#server.on("connection", (socket: Socket) => this.#admit(socket));
  }

  listen(options: ListenerOptions): Promise<Listener> {
    const server = this.#server;
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.once("listening", () => {
        server.off("error", reject);
        server.on("error", (error) => this.#host.log(`TCP listener: ${error.message}`));
        this.port = (server.address() as AddressInfo).port;
        this.#altSvc = this.#altSvcOf?.(this.port) ?? null;
        resolve(this);
      });
      const { host, port, reusePort } = options;
      if (options.tls === null) this.#stopListening = listenPlain(server, { host, port, reusePort });
      else {
        server.listen({ host, port, reusePort });
        this.#stopListening = () => NetServer.prototype.close.call(server);
      }
    });
  }

  async setCertificates({ cert, key, sni }: Certificates): Promise<void> {
    if (!("setSecureContext" in this.#server)) throw new TypeError("plain HTTP/1.1 has no certificate");
    const named = contextsOf(sni);
    (this.#server as TlsServer).setSecureContext({ cert, key });
    this.#named = named;
  }

  drain(gently: boolean): Promise<void> {
    this.#draining = gently ? "gently" : "at once";
    this.#stopListening?.();
    if (this.#sessions.size + this.#sockets.size === 0) this.#drained.resolve();
    if (gently) {
      for (const session of this.#sessions.keys()) this.#end(session);
      return this.#drained.promise;
    }
    for (const session of this.#sessions.keys()) session.close();
    for (const [socket, connection] of this.#sockets) {
      if (connection.open === 0) socket.destroy();
    }
    return this.#drained.promise;
  }

  async close(): Promise<void> {
    this.#server.close();
    for (const session of this.#sessions.keys()) session.destroy();
    for (const socket of this.#sockets.keys()) socket.destroy();
  }

  #admit(socket: Socket): void {
    const address = plainAddress(socket.remoteAddress ?? "");
    if (this.#limits.admit(address)) socket.once("close", () => this.#limits.release(address));
    else socket.destroy();
  }

  #plain(options: ListenerOptions): Server {
    const server = createServer({ maxHeaderSize: engineHeaderBytes(options.maxHeaderBytes) });
    server.keepAliveTimeout = options.keepAliveTimeout;
    // How many lines there may be follows from `maxHeaderBytes`, which counts 32 for each.
    server.maxHeadersCount = 0;
    server.on("connection", (socket: Socket) => {
      if (!socket.destroyed) this.#connected(socket);
    });
    // With no listener the engine closes each connection on which nothing moves, one that waits for a handler too.
    server.on("timeout", () => {});
    server.on("request", (request, response) => this.#request(request, response));
    server.on("checkExpectation", (request, response) => this.#request(request, response));
    server.on("connect", refuseTunnel);
    server.on("clientError", (error, socket) => this.#refuse(error, socket as Socket));
    return server;
  }

  #secure(options: ListenerOptions, { cert, key, sni }: Certificates): Server {
    const maxHeaderSize = engineHeaderBytes(options.maxHeaderBytes);
    this.#named = contextsOf(sni);
    const server = createSecureServer({
      allowHTTP1: true,
      cert,
      key,
      ...(this.#named.size > 0 && {
        SNICallback: (name: string, choose: (error: null, context?: SecureContext) => void) => {
          choose(null, byServerName(this.#named, name));
        },
      }),
      settings: { maxHeaderListSize: maxHeaderSize },
      // How many lines there may be follows from `maxHeaderBytes`, which counts 32 for each.
      maxHeaderListPairs: maxHeaderSize,
      // biome-ignore lint/suspicious/noExplicitAny: handed on to node:http's parser, which the types leave out
      ...({ maxHeaderSize } as any),
    });
    // For HTTP/1.1, where the types leave them out. The timeout is not kept to, but told to clients.
    Object.assign(server, { keepAliveTimeout: options.keepAliveTimeout, maxHeadersCount: 0 });
    server.on("secureConnection", (socket) => {
      if (socket.alpnProtocol === "h2") return;
      gatherWrites(socket);
      // Bun writes a head, and nothing else, as a string: without this in UTF-8, but fields are latin1.
      socket.setDefaultEncoding("latin1");
      this.#connected(socket);
    });
    for (const event of ["request", "checkExpectation"]) {
      server.on(event, (request: IncomingMessage, response: ServerResponse) =>
        this.#request(request, response),
      );
    }
    // Listening to 'request' adds a listener that builds node:http's objects for every stream of HTTP/2: not needed.
    server.removeAllListeners("stream");
    server.on("stream", (stream, headers, flags, raw?: unknown) => {
      this.#stream(stream as ServerHttp2Stream, headers, flags, raw);
    });
    server.on("session", (session) => {
      const connection = this.#connection(session.socket as Socket);
      this.#sessions.set(session, connection);
      session.setTimeout(options.keepAliveTimeout, () => {
        if (connection.open === 0) session.close();
      });
      session.on("close", () => {
        this.#sessions.delete(session);
        this.#leftOne();
      });
      session.on("error", () => session.destroy());
    });
    server.on("sessionError", () => {});
    server.on("tlsClientError", (_error, socket) => socket.destroy());
    server.on("connect", refuseTunnel);
    server.on("clientError", (error, socket) => this.#refuse(error, socket as Socket));
    return server;
  }

  /** A connection of HTTP/1.1. It is timed here, because `node:http2` leaves those that it accepts open for good. */
  #connected(socket: Socket): Connection {
    const connection = this.#connection(socket);
    this.#sockets.set(socket, connection);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      this.#leftOne();
    });
    socket.setTimeout(this.#keepAliveTimeout);
    socket.on("timeout", () => {
      if (connection.open === 0) socket.destroy();
    });
    return connection;
  }

  #leftOne(): void {
    if (this.#draining !== null && this.#sessions.size + this.#sockets.size === 0) this.#drained.resolve();
  }

  #request(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    const connection = this.#sockets.get(socket) ?? this.#connected(socket);
    const id = this.#host.nextId();
    const stream = connection.requests++;
    const isLast = connection.requests >= this.#maxRequests;
    let isTold = false;
    const closing = () => {
      isTold = isLast || this.#draining !== null;
      return isTold;
    };
    connection.open++;
    connection.latest = response;
    response.once("close", () => {
      if (--connection.open > 0) return;
      connection.latest = null;
      if (connection.ending !== null) connection.ending();
      // One that was not told may send its next request at this moment.
      else if (isTold || this.#draining === "at once") socket.end();
    });
    this.#host.accept(
      new Http1Exchange(id, connection.facts, stream, request, response, this.#altSvc, closing),
    );
  }

  /** What came is no HTTP/1.1. Whole requests before it are answered first: its own answer would be taken for theirs. */
  #refuse(error: Error & { code?: string }, socket: Socket): void {
    const connection = this.#sockets.get(socket);
    const latest = connection?.latest ?? null;
    if (connection === undefined || latest === null || error.code === "HPE_INVALID_EOF_STATE") {
      refuseGarbage(error, socket);
    } else if (latest.req.complete) {
      // Behind a request with `connection: close` nothing is answered any more (RFC 9112 §9.6).
      connection.ending ??=
        error.code === "HPE_CLOSED_CONNECTION" ? () => socket.end() : () => refuseGarbage(error, socket);
    } else if (latest.headersSent || connection.open > 1) {
      // It would be taken for more of the body, or for the answer to an earlier request.
      socket.destroy();
    } else refuseGarbage(error, socket);
  }

  #stream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, raw: unknown): void {
    const connection = stream.session && this.#sessions.get(stream.session as ServerHttp2Session);
    if (!connection) {
      stream.destroy();
      return;
    }
    connection.open++;
    stream.once("close", () => {
      connection.open--;
    });
    if (++connection.requests === this.#maxRequests) this.#end(stream.session as ServerHttp2Session);
    const id = this.#host.nextId();
    this.#host.accept(
      new Http2Exchange(id, connection.facts, stream, flags, rawHeaders(headers, raw), this.#altSvc),
    );
  }

  /** Tells that the connection ends, and ends it when what its client had sent by then has come: RFC 9113 §6.8. */
  #end(session: ServerHttp2Session): void {
    session.goaway(constants.NGHTTP2_NO_ERROR, LAST_STREAM_ID);
    const timer = setTimeout(() => session.close(), GOAWAY_NOTICE);
    session.once("close", () => clearTimeout(timer));
  }

  #connection(socket: Socket): Connection {
    return {
      facts: {
        session: String(++this.#connectionCount),
        remoteAddress: plainAddress(socket.remoteAddress ?? ""),
        remotePort: socket.remotePort ?? 0,
        localPort: this.port,
        scheme: this.#scheme,
      },
      requests: 0,
      open: 0,
      latest: null,
      ending: null,
    };
  }
}

/** What is no HTTP/1.1 gets the status that says so, and the connection closes: RFC 9112 §2.2, §9.6. */
function refuseGarbage(error: Error & { code?: string }, socket: import("node:stream").Duplex): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const status =
    error.code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
  endWith(socket, status);
}

/** CONNECT is no request to the engine, which would close the connection without a word (RFC 9110 §9.3.6). */
function refuseTunnel(_request: unknown, socket: import("node:stream").Duplex): void {
  if (socket.writable) endWith(socket, "501 Not Implemented");
}

function endWith(socket: import("node:stream").Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
}

function contextsOf(sni: Certificates["sni"]): ReadonlyMap<string, SecureContext> {
  return new Map(Object.entries(sni).map(([name, pem]) => [name, createSecureContext(pem)]));
}

/** What belongs to a name: itself, or `*` in place of its first label (RFC 9525 §6.3). */
function byServerName<Value>(named: ReadonlyMap<string, Value>, name: string): Value | undefined {
  const lower = name.toLowerCase();
  return named.get(lower) ?? named.get(lower.replace(/^[^.]+/, "*"));
}
