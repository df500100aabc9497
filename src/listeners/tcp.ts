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
import { createSecureContext, type SecureContext, TLSSocket, type Server as TlsServer } from "node:tls";
import type { Protocol } from "../exchange.ts";
import type { ConnectionLimits } from "./connection-limits.ts";
import { mostConnections } from "./descriptors.ts";
import { gatherWrites, Http1Exchange, parseBehindUpgrades, passOverUpgrade } from "./http1.ts";
import { Http2Exchange, rawHeaders, refuseStream, unwrittenBytes } from "./http2.ts";
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

/**
 * Requests that one connection may have open at a time, lest it take all that a reactor may have. Of HTTP/2 (RFC 9113 §6.5.2, which
 * has 100 at least): Bun's client, which does not wait to be told, loses its connection where a first burst is larger by 100. Of
 * HTTP/1.1, where they come one behind the other: with one more the connection is cut off.
 */
const MAX_OPEN = 1000;
/** Of a GOAWAY that refuses no stream yet. */
const LAST_STREAM_ID = 2 ** 31 - 1;
/** Milliseconds between that and the one that does: more than a round trip. */
const GOAWAY_NOTICE = 1000;
/** Milliseconds that a client is given to close its side of a connection that is over. */
const CLOSE_WITHIN = 1000;
/** Milliseconds between two looks whether all of a connection that is over has been written. */
const LOOKS_EVERY = 50;

export function listenTcp(options: ListenerOptions, host: ListenerHost): Promise<Listener> {
  const listener = new TcpListener(options, host);
  return listener.listen(options);
}

/** What is kept of a connection from request to request. */
interface Connection {
  readonly facts: ConnectionFacts;
  readonly socket: Socket;
  /** Runs while no request is open, from before the TLS handshake on; what is less than a request does not wind it up. */
  readonly idle: ReturnType<typeof setTimeout>;
  /** Of HTTP/2, once it has begun. */
  session: ServerHttp2Session | null;
  /** Of HTTP/2: that of the last request. */
  lastStream: number;
  /** Further streams of HTTP/2 are refused, and further requests of HTTP/1.1 passed over. */
  isLeaving: boolean;
  /** Of HTTP/2: bytes that were still to be written when it was last found idle. */
  unwritten: number;
  /** Requests so far. */
  requests: number;
  /** Those that are not over: of HTTP/2, not answered to the end. */
  open: number;
  /** Of HTTP/2: those that are not closed, too, as more of a request's body may come behind its answer. */
  streams: number;
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
  /** For want of descriptors. */
  readonly #most: number;
  #isFull = false;
  readonly #maxRequests: number;
  readonly #connections = new Map<Socket, Connection>();
  /** Those of HTTP/2. */
  readonly #sessions = new Map<ServerHttp2Session, Connection>();
  /** By server name, as in `Certificates`. */
  #named: ReadonlyMap<string, SecureContext> = new Map();
  #altSvc: string | null = null;
  /** Takes no more connections. The server's own `close` cuts off responses, too, that are not all written. */
  #stopListening: (() => void) | null = null;
  #connectionCount = 0;
  #draining: "at once" | "gently" | null = null;
  readonly #drained = Promise.withResolvers<void>();

  constructor(options: ListenerOptions, host: ListenerHost) {
    this.#host = host;
    this.#altSvcOf = options.altSvc;
    this.#keepAliveTimeout = options.keepAliveTimeout;
    this.#limits = options.connectionLimits;
    this.#most = mostConnections(options.spareDescriptors);
    this.#maxRequests = options.maxRequestsPerConnection || Number.POSITIVE_INFINITY;
    this.#scheme = options.tls === null ? "http" : "https";
    this.protocols = options.tls === null ? ["HTTP/1.1"] : ["HTTP/1.1", "HTTP/2"];
    this.#server = options.tls === null ? this.#plain(options) : this.#secure(options, options.tls);
    // Over TLS it is told before the handshake, which is the dear part of a connection.
    this.#server.on("connection", (socket: Socket) => {
      // Node.js tells of what is below TLS: there the connection is known from its handshake on.
      if (this.#admit(socket) && (options.tls === null || socket instanceof TLSSocket))
        this.#connected(socket);
    });
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
      if (options.tls === null && process.versions.bun !== undefined)
        this.#stopListening = listenPlain(server, { host, port, reusePort });
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
    for (const connection of [...this.#connections.values()]) {
      if (connection.session !== null) {
        if (gently) this.#end(connection);
        else this.#leave(connection);
      } else if (!gently && connection.open === 0) connection.socket.destroy();
    }
    if (this.#connections.size === 0) this.#drained.resolve();
    return this.#drained.promise;
  }

  async close(): Promise<void> {
    this.#server.close();
    for (const session of this.#sessions.keys()) session.destroy();
    for (const socket of this.#connections.keys()) socket.destroy();
  }

  #admit(socket: Socket): boolean {
    const address = plainAddress(socket.remoteAddress ?? "");
    const isAdmitted = this.#hasRoom() && this.#limits.admit(address);
    if (isAdmitted) socket.once("close", () => this.#limits.release(address));
    else socket.destroy();
    return isAdmitted;
  }

  /** False where one more would take a descriptor that something else needs. */
  #hasRoom(): boolean {
    const { size } = this.#connections;
    if (size < this.#most / 2) this.#isFull = false;
    if (size < this.#most) return true;
    if (!this.#isFull)
      this.#host.log(
        `${size} connections, and more are closed at once: a process may open no more files; raise the limit (ulimit -n, LimitNOFILE)`,
      );
    this.#isFull = true;
    return false;
  }

  #plain(options: ListenerOptions): Server {
    const server = createServer({
      maxHeaderSize: engineHeaderBytes(options.maxHeaderBytes),
      // By default the engine ends a request that has not come within five minutes, an upload that moves on as well.
      requestTimeout: 0,
    });
    server.keepAliveTimeout = options.keepAliveTimeout;
    // How many lines there may be follows from `maxHeaderBytes`, which counts 32 for each.
    server.maxHeadersCount = 0;
    // With no listener the engine closes each connection on which nothing moves, one that waits for a handler too.
    server.on("timeout", () => {});
    server.on("request", (request, response) => this.#request(request, response));
    server.on("checkExpectation", (request, response) => this.#request(request, response));
    server.on("checkContinue", (request, response) => this.#request(request, response, true));
    server.on("connect", (_request, socket) => this.#refuseTunnel(socket as Socket));
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
      settings: { maxHeaderListSize: maxHeaderSize, maxConcurrentStreams: MAX_OPEN },
      // How many lines there may be follows from `maxHeaderBytes`, which counts 32 for each.
      maxHeaderListPairs: maxHeaderSize,
      // biome-ignore lint/suspicious/noExplicitAny: handed on to node:http's parser, which the types leave out
      ...({ maxHeaderSize } as any),
    });
    // For HTTP/1.1, where the types leave them out. The timeout is not kept to, but told to clients.
    Object.assign(server, {
      keepAliveTimeout: options.keepAliveTimeout,
      maxHeadersCount: 0,
      shouldUpgradeCallback: passOverUpgrade,
    });
    server.on("secureConnection", (socket) => {
      if (socket.alpnProtocol === "h2") return;
      gatherWrites(socket);
      parseBehindUpgrades(socket, maxHeaderSize);
      // Bun writes a head, and nothing else, as a string: without this in UTF-8, but fields are latin1.
      socket.setDefaultEncoding("latin1");
      this.#connectionOf(socket);
    });
    for (const event of ["request", "checkExpectation", "checkContinue"]) {
      server.on(event, (request: IncomingMessage, response: ServerResponse) =>
        this.#request(request, response, event === "checkContinue"),
      );
    }
    // Listening to 'request' adds a listener that builds node:http's objects for every stream of HTTP/2: not needed.
    server.removeAllListeners("stream");
    server.on("stream", (stream, headers, flags, raw?: unknown) => {
      this.#stream(stream as ServerHttp2Stream, headers, flags, raw);
    });
    server.on("session", (session) => {
      // A proxy, which keeps `destroy` from us, for the socket that was told of.
      const socket = session.socket?.valueOf() as Socket | undefined;
      if (socket === undefined || socket.destroyed) {
        session.destroy();
        return;
      }
      const connection = this.#connectionOf(socket);
      connection.session = session;
      this.#sessions.set(session, connection);
      session.on("close", () => this.#sessions.delete(session));
      // Bun closes it upon its client's GOAWAY, and then drops what is still to be written.
      if (process.versions.bun !== undefined) session.close = () => this.#leave(connection);
      session.on("error", () => session.destroy());
      if (this.#draining !== null) this.#end(connection);
    });
    server.on("sessionError", () => {});
    server.on("tlsClientError", (_error, socket) => socket.destroy());
    server.on("connect", (_request, socket) => this.#refuseTunnel(socket as Socket));
    server.on("clientError", (error, socket) => this.#refuse(error, socket as Socket));
    return server;
  }

  #connectionOf(socket: Socket): Connection {
    return this.#connections.get(socket) ?? this.#connected(socket);
  }

  #connected(socket: Socket): Connection {
    const connection: Connection = {
      facts: {
        session: String(++this.#connectionCount),
        remoteAddress: plainAddress(socket.remoteAddress ?? ""),
        remotePort: socket.remotePort ?? 0,
        localPort: this.port,
        scheme: this.#scheme,
      },
      socket,
      // Not the engine's: over TLS those of HTTP/1.1 begin anew with each byte, and those of HTTP/2 with each frame.
      idle: setTimeout(() => this.#isIdle(connection), this.#keepAliveTimeout),
      session: null,
      lastStream: 0,
      isLeaving: false,
      unwritten: 0,
      requests: 0,
      open: 0,
      streams: 0,
      latest: null,
      ending: null,
    };
    this.#connections.set(socket, connection);
    socket.once("close", () => {
      clearTimeout(connection.idle);
      this.#connections.delete(socket);
      if (this.#draining !== null && this.#connections.size === 0) this.#drained.resolve();
    });
    return connection;
  }

  #isIdle(connection: Connection): void {
    const { session, socket, unwritten } = connection;
    // The end of the last request starts it again.
    if (connection.open > 0) return;
    if (session === null) {
      socket.destroy();
      return;
    }
    connection.unwritten = unwrittenBytes(session);
    // Streams are over when their last piece is handed over. Who has taken none of it since is not reading.
    if (connection.unwritten === 0) this.#leave(connection);
    else if (connection.unwritten === unwritten) socket.destroy();
    else connection.idle.refresh();
  }

  #request(request: IncomingMessage, response: ServerResponse, waits = false): void {
    const { socket } = request;
    const connection = this.#connectionOf(socket);
    if (connection.open === MAX_OPEN) {
      connection.isLeaving = true;
      socket.destroy();
    }
    if (connection.isLeaving) {
      request.resume();
      return;
    }
    const id = this.#host.nextId();
    const stream = connection.requests++;
    connection.isLeaving = connection.requests >= this.#maxRequests || this.#draining !== null;
    let isTold = false;
    const closing = (mustClose: boolean) => {
      const isLast = connection.isLeaving || mustClose || this.#draining !== null;
      // Whatever was taken is answered, and nothing behind an answer that says so (RFC 9112 §9.6).
      isTold = isLast && connection.latest === response;
      connection.isLeaving ||= isTold;
      return isTold;
    };
    connection.open++;
    connection.latest = response;
    response.once("close", () => {
      if (--connection.open > 0) return;
      connection.latest = null;
      connection.idle.refresh();
      if (connection.ending !== null) connection.ending();
      // One that was not told may send its next request at this moment.
      else if (isTold || this.#draining === "at once") socket.end();
      if (this.#draining === "at once") destroySoon(socket);
    });
    this.#host.accept(
      new Http1Exchange(id, connection.facts, stream, request, response, this.#altSvc, waits, closing),
    );
  }

  /** What came is no HTTP/1.1. Whole requests before it are answered first: its own answer would be taken for theirs. */
  #refuse(error: Error & { code?: string }, socket: Socket): void {
    const connection = this.#connections.get(socket);
    const latest = connection?.latest ?? null;
    // Who has left in the middle of a request has left those before it, too.
    const hasLeft = error.code === "HPE_INVALID_EOF_STATE";
    if (connection === undefined || latest === null) refuseGarbage(error, socket);
    else if (latest.req.complete && !hasLeft) {
      // Behind a request with `connection: close` nothing is answered any more (RFC 9112 §9.6).
      connection.ending ??=
        error.code === "HPE_CLOSED_CONNECTION" ? () => socket.end() : () => refuseGarbage(error, socket);
    } else if (latest.req.complete || latest.headersSent || connection.open > 1) {
      // It would be taken for more of the body, or for the answer to an earlier request.
      socket.destroy();
    } else refuseGarbage(error, socket);
  }

  /** CONNECT is no request to the engine, which would close the connection without a word (RFC 9110 §9.3.6). */
  #refuseTunnel(socket: Socket): void {
    const refuse = () => endWith(socket, "501 Not Implemented");
    const connection = this.#connections.get(socket);
    if (connection === undefined || connection.latest === null) {
      refuse();
      return;
    }
    // As in `#refuse`: its answer would be taken for that of what came before it.
    connection.ending ??= refuse;
    // The engine has let go of the socket: what comes, the client's leaving too, is read by nobody else.
    socket.once("end", () => socket.destroy()).resume();
  }

  #stream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, raw: unknown): void {
    const connection = stream.session && this.#sessions.get(stream.session as ServerHttp2Session);
    if (!connection) {
      stream.destroy();
      return;
    }
    const streamId = stream.id as number;
    if (streamId <= connection.lastStream) {
      // RFC 9113 §5.1.1. To Bun's engine a stream that it has forgotten is a new one.
      stream.on("error", () => {});
      connection.session?.destroy(new Error("its stream is over"), constants.NGHTTP2_PROTOCOL_ERROR);
      return;
    }
    if (connection.isLeaving) {
      refuseStream(stream);
      return;
    }
    connection.lastStream = streamId;
    connection.open++;
    connection.streams++;
    const isAnswered = () => {
      if (--connection.open === 0) connection.idle.refresh();
      this.#closeIfOver(connection);
    };
    stream.once("finish", isAnswered);
    stream.once("close", () => {
      connection.streams--;
      if (stream.writableFinished) this.#closeIfOver(connection);
      else isAnswered();
    });
    if (++connection.requests === this.#maxRequests) this.#end(connection);
    const id = this.#host.nextId();
    this.#host.accept(
      new Http2Exchange(id, connection.facts, stream, flags, rawHeaders(headers, raw), this.#altSvc),
    );
  }

  /** Tells that the connection ends, and ends it when what its client had sent by then has come: RFC 9113 §6.8. */
  #end(connection: Connection): void {
    connection.session?.goaway(constants.NGHTTP2_NO_ERROR, LAST_STREAM_ID);
    unlessClosed(connection.socket, GOAWAY_NOTICE, () => this.#leave(connection));
  }

  /** Tells which streams are still answered, and ends the connection when they are over. */
  #leave(connection: Connection): void {
    const { session } = connection;
    if (session === null || session.destroyed || connection.isLeaving) return;
    connection.isLeaving = true;
    if (!this.#closeIfOver(connection)) session.goaway(constants.NGHTTP2_NO_ERROR, connection.lastStream);
  }

  /** The session's own `close` would not wait for a request of which only a part has come, nor for what is still to be written. */
  #closeIfOver(connection: Connection, isPatient = true): boolean {
    const { session, socket } = connection;
    if (session === null || session.destroyed || !connection.isLeaving || connection.open > 0) return false;
    if (unwrittenBytes(session) > 0) {
      // Nothing tells when they are.
      setTimeout(() => this.#closeIfOver(connection, isPatient), LOOKS_EVERY);
      return false;
    }
    if (connection.streams > 0 && isPatient) {
      // A client that still sends would lose the answer that it has not read, as the connection would be reset.
      unlessClosed(socket, CLOSE_WITHIN, () => this.#closeIfOver(connection, false));
      return false;
    }
    session.destroy();
    destroySoon(socket);
    return true;
  }
}

/** For a client that does not close its side of a connection, or has vanished. */
function destroySoon(socket: Socket): void {
  unlessClosed(socket, CLOSE_WITHIN, () => socket.destroy());
}

/** Does something after so many milliseconds, unless the connection is closed by then. */
function unlessClosed(socket: Socket, after: number, act: () => void): void {
  const timer = setTimeout(act, after);
  socket.once("close", () => clearTimeout(timer));
}

/** What is no HTTP/1.1 gets the status that says so, and the connection closes: RFC 9112 §2.2, §9.6. */
function refuseGarbage(error: Error & { code?: string }, socket: import("node:stream").Duplex): void {
  const status =
    error.code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
  endWith(socket, status);
}

function endWith(socket: import("node:stream").Duplex, status: string): void {
  const date = new Date().toUTCString();
  if (!socket.writable) socket.destroy();
  else socket.end(`HTTP/1.1 ${status}\r\ndate: ${date}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
}

function contextsOf(sni: Certificates["sni"]): ReadonlyMap<string, SecureContext> {
  return new Map(Object.entries(sni).map(([name, pem]) => [name, createSecureContext(pem)]));
}

/** What belongs to a name: itself, or `*` in place of its first label (RFC 9525 §6.3). */
function byServerName<Value>(named: ReadonlyMap<string, Value>, name: string): Value | undefined {
  const lower = name.toLowerCase();
  return named.get(lower) ?? named.get(lower.replace(/^[^.]+/, "*"));
}
