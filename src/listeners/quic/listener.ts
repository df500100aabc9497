/**
 * HTTP/3 by `node:quic` (Bun's, on lsquic): every control, and every rule. Owns the endpoint and its connections. What
 * the engine cannot do is written in docs/architecture.md.
 */

import type { SocketAddress } from "node:net";
import {
  listen,
  type QuicEndpoint,
  type QuicError,
  type QuicSession,
  type QuicStream,
  type SessionHandshakeInfo,
  type SessionOptions,
} from "node:quic";
import type { ConnectionInfo } from "../../connection.ts";
import { contentLength, malformedTrailers, readRequestSection, trailersOf } from "../../http/fields.ts";
import type { ResolvedQuic } from "../../http3-options.ts";
import type { Certificates, Listener, ListenerHost, ListenerOptions } from "../listener.ts";
import { bindUdp } from "../ports.ts";
import { Admission } from "./admission.ts";
import { Arrivals } from "./arrival.ts";
import { type ConnectionOwner, QuicConnection } from "./connection.ts";
import { Diagnostics } from "./diagnostics.ts";
import { QuicExchange, type QuicServices } from "./exchange.ts";
import { linesOf, QuicHeads, type Section } from "./heads.ts";
import { engineOptions, identities, ignoredOptions, lateBlockList } from "./options.ts";
import { Outbox } from "./outbox.ts";
import { breakOff, Http3Error } from "./reset.ts";
import { SpoolSpace } from "./spool.ts";

/** What the engine `quic` is told beside the options of every listener. */
export interface QuicListenerOptions extends ListenerOptions {
  readonly quic: ResolvedQuic;
  /** Where bodies wait that are not read in time. */
  readonly directory: string;
  readonly maxBodyBytes: number;
}

/** All bodies of one listener that wait on the disk, bytes. */
const SPOOL_BYTES = 1024 ** 3;
/**
 * A stream that has closed may have its last packets under way, or to be sent again: a connection is closed this long
 * after its last one. Milliseconds.
 */
const LINGER = 1000;
/** Milliseconds. */
const DRAIN_CHECK_INTERVAL = 20;
/** Milliseconds: how often connections are looked at, within their timeouts. */
const MIN_LOOK_INTERVAL = 250;
const MAX_LOOK_INTERVAL = 10_000;
const LOOKS_PER_TIMEOUT = 4;
/** RFC 9000 §20.1. */
const CONNECTION_REFUSED = 2n;

export async function listenHttp3Quic(options: QuicListenerOptions, host: ListenerHost): Promise<Listener> {
  const { tls, quic, host: address, port } = options;
  if (tls === null) throw new TypeError("HTTP/3 needs TLS (RFC 9114 §3.1)");
  // The engine's own error does not say that the port is in use.
  await bindUdp(address, port);
  for (const line of ignoredOptions(quic)) host.log(line);
  const listener = new QuicListener(options, host);
  await listener.listen(engineOptions(options, quic, address, port, tls));
  return listener;
}

class QuicListener implements Listener, ConnectionOwner {
  readonly protocols = ["HTTP/3"] as const;
  readonly idleTimeout: number;
  readonly maxFieldSectionSize: number | undefined;
  readonly bodies: ConnectionOwner["bodies"];
  port = 0;
  readonly #options: QuicListenerOptions;
  readonly #host: ListenerHost;
  readonly #services: QuicServices;
  readonly #admission: Admission;
  readonly #maxRequests: number;
  readonly #connections = new Map<QuicSession, QuicConnection>();
  readonly #arrivals: Arrivals;
  readonly #diagnostics: Diagnostics;
  #endpoint: QuicEndpoint | null = null;
  #looks: NodeJS.Timeout | null = null;
  #count = 0;
  #draining = false;

  constructor(options: QuicListenerOptions, host: ListenerHost) {
    const { quic, directory, maxBodyBytes } = options;
    this.#options = options;
    this.#host = host;
    this.idleTimeout = quic.idleTimeout;
    this.maxFieldSectionSize = quic.maxFieldSectionSize ?? undefined;
    this.bodies = { directory, maxBodyBytes, space: new SpoolSpace(SPOOL_BYTES) };
    this.#maxRequests = options.maxRequestsPerConnection || Number.POSITIVE_INFINITY;
    this.#admission = new Admission(quic, options.connectionLimits, lateBlockList(quic), performance.now());
    const log = (line: string) => host.log(line);
    this.#services = {
      outbox: new Outbox(),
      heads: new QuicHeads(),
      trailers: new WeakMap(),
      log,
    };
    this.#arrivals = new Arrivals(host);
    this.#diagnostics = new Diagnostics(quic, log);
  }

  /** Rejects where the socket cannot be had. */
  async listen(options: SessionOptions): Promise<void> {
    const listener = this;
    this.#endpoint = await listen((session) => this.#connected(session), {
      ...options,
      // Without these two the engine fails requests, and lets what a peer does wrong end the process.
      onstream: () => {},
      onerror: () => {},
      onheaders(section) {
        listener.#headers(this, section);
      },
      ontrailers(section) {
        listener.#trailers(this, section);
      },
      onhandshake(info) {
        listener.#shook(this, info);
      },
      onpathvalidation(result, _local, remote) {
        if (result === "success") listener.#connections.get(this)?.migrated(remote);
      },
      onkeylog: (line) => this.#diagnostics.secret(line),
      onqlog(data) {
        const connection = listener.#connections.get(this);
        if (connection !== undefined) listener.#diagnostics.record(connection.id, data);
      },
    });
    this.port = (this.#endpoint.address as SocketAddress).port;
    try {
      const { mendSocket } = await import("./socket.ts");
      mendSocket(this.port);
    } catch (error) {
      const { message } = error as Error;
      this.#host.log(
        `the UDP socket cannot be mended, so that clients which vanish hold up others: ${message}`,
      );
    }
    const { keepAliveTimeout } = this.#options;
    const interval = Math.min(keepAliveTimeout, this.idleTimeout) / LOOKS_PER_TIMEOUT;
    const bounded = Math.min(Math.max(MIN_LOOK_INTERVAL, interval), MAX_LOOK_INTERVAL);
    this.#looks = setInterval(() => this.#look(), bounded);
  }

  get tell(): ConnectionOwner["tell"] {
    return this.#host.tellConnection;
  }

  get localPort(): number {
    return this.port;
  }

  connection(id: string): ConnectionInfo | null {
    for (const connection of this.#connections.values()) {
      if (connection.id === id && connection.state !== "greeting") return connection.info();
    }
    return null;
  }

  async setCertificates(tls: Certificates): Promise<void> {
    this.#endpoint?.setSNIContexts(identities(tls), { replace: true });
  }

  async drain(_gently: boolean): Promise<void> {
    this.#draining = true;
    if (this.#endpoint !== null && !this.#endpoint.destroyed) this.#endpoint.busy = true;
    for (const [session, connection] of this.#connections) {
      this.#leave(session, connection, "the server is shutting down");
    }
    while (this.#connections.size > 0) {
      await new Promise((resolve) => setTimeout(resolve, DRAIN_CHECK_INTERVAL));
      for (const [session, connection] of this.#connections) endWhereQuiet(session, connection);
    }
  }

  async close(): Promise<void> {
    if (this.#looks !== null) clearInterval(this.#looks);
    for (const [session, connection] of this.#connections) {
      connection.closing ??= "the server has shut down";
      endSession(session);
    }
    const endpoint = this.#endpoint;
    if (endpoint !== null && !endpoint.destroyed) await endpoint.close().catch(() => {});
    await this.#diagnostics.close();
  }

  /** GOAWAY where requests are open (RFC 9114 §5.2); a connection without any is closed when it has been quiet. */
  #leave(session: QuicSession, connection: QuicConnection, reason: string): void {
    connection.closing = reason;
    if (connection.state === "open") connection.state = "leaving";
    // What it promises by then, an end when the last stream has closed, it does not keep: `drain` does.
    if (connection.open > 0) session.close().catch(() => {});
  }

  /** It has had as many requests as it may have. */
  #retire(session: QuicSession, connection: QuicConnection): void {
    this.#leave(session, connection, "maxRequestsPerConnection");
    const look = setInterval(() => {
      if (connection.state === "closed") clearInterval(look);
      else endWhereQuiet(session, connection);
    }, LINGER);
  }

  #connected(session: QuicSession): void {
    const id = `q${process.pid}-${++this.#count}`;
    const connection = new QuicConnection(id, session, this);
    this.#connections.set(session, connection);
    session.closed.then(
      () => this.#closed(session, connection, null),
      (error: QuicError) => this.#closed(session, connection, error),
    );
  }

  #shook(session: QuicSession, info: SessionHandshakeInfo): void {
    const connection = this.#connections.get(session);
    if (connection === undefined) return;
    connection.locate(info);
    this.#diagnostics.begin(connection.id);
    const refusal = this.#draining
      ? "the server is shutting down"
      : this.#admission.admit(connection.remoteAddress, performance.now());
    if (refusal === null) {
      connection.admittedFrom = connection.remoteAddress;
      connection.opened(info);
      return;
    }
    connection.state = "refused";
    session.close({ code: CONNECTION_REFUSED, type: "transport", reason: refusal }).catch(() => {});
  }

  #closed(session: QuicSession, connection: QuicConnection, error: QuicError | null): void {
    this.#connections.delete(session);
    connection.closed(error);
    this.#diagnostics.end(connection.id);
    const { admittedFrom } = connection;
    if (admittedFrom !== null) this.#admission.release(admittedFrom, performance.now());
  }

  /** A request's head has come. */
  #headers(stream: QuicStream, section: Section): void {
    try {
      const connection = stream.session === null ? undefined : this.#connections.get(stream.session);
      if (connection === undefined || connection.state === "refused") {
        stream.destroy();
      } else if (connection.state === "leaving") {
        breakOff(stream, Http3Error.requestRejected);
      } else {
        this.#request(stream, section, connection);
      }
    } catch (error) {
      this.#host.log(`error: ${(error as Error).stack}`);
      breakOff(stream, Http3Error.internalError);
    }
  }

  #request(stream: QuicStream, section: Section, connection: QuicConnection): void {
    const lines = linesOf(section);
    if (stream.early && section["early-data"] === undefined) lines.push("early-data", "1");
    const head = readRequestSection(lines);
    connection.streamOpened();
    if (connection.total === this.#maxRequests) this.#retire(stream.session as QuicSession, connection);
    const exchange = new QuicExchange(this.#host.nextId(), stream, head, connection, this.#services);
    const length = head.malformed === null ? contentLength(head.fields) : 0;
    const pieces = stream[Symbol.asyncIterator]();
    const reading = { pieces, first: pieces.next() };
    // The engine tells of trailers behind the end, when a request without a body has been handed over.
    const hasTrailers = section.trailer !== undefined;
    if (length === undefined && !hasTrailers) {
      this.#arrivals.add(exchange, reading);
      return;
    }
    if (hasTrailers || length !== 0) exchange.receive(length, reading);
    // What has an end only now is let go by.
    else reading.first.catch(() => {});
    this.#host.accept(exchange);
  }

  #trailers(stream: QuicStream, section: Section): void {
    const lines = linesOf(section);
    if (malformedTrailers(lines) === null) this.#services.trailers.set(stream, trailersOf(lines));
    else breakOff(stream, Http3Error.messageError);
  }

  /** Closes what has had no request for too long, and keeps the others. */
  #look(): void {
    const now = performance.now();
    for (const [session, connection] of this.#connections) {
      connection.listen(now);
      const { state, open, lastUsed } = connection;
      if (state !== "open") continue;
      if (open > 0 || now - lastUsed < this.#options.keepAliveTimeout) {
        void connection.stir(now);
        continue;
      }
      connection.closing = "no request for keepAliveTimeout";
      session.close({ code: BigInt(Http3Error.noError), type: "application" }).catch(() => {});
    }
  }
}

/** Ends a connection that is leaving when nothing of its last streams can be under way any more. */
function endWhereQuiet(session: QuicSession, { open, lastUsed }: QuicConnection): void {
  if (open === 0 && lastUsed <= performance.now() - LINGER) endSession(session);
}

function endSession(session: QuicSession): void {
  if (session.destroyed) return;
  session.destroy(undefined, { code: BigInt(Http3Error.noError), type: "application" });
}
