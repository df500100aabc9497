/** What a listener promises to its reactor, and a reactor to its listeners. One file an engine stands beside this. */
import type { ConnectionEvent, ConnectionInfo } from "../connection.ts";
import type { Exchange, ExchangeId, Protocol } from "../exchange.ts";
import type { ConnectionLimits } from "./connection-limits.ts";

export interface ListenerHost {
  /** The id of the next exchange. */
  nextId(): ExchangeId;
  /** Takes an exchange whose head has arrived. What is wrong with it is found, and answered, here. */
  accept(exchange: Exchange): void;
  /** Answers an exchange whose connection is one too many, where the listener could not refuse the connection itself. */
  turnAway(exchange: Exchange): void;
  log(line: string): void;
  /** Takes what has happened to a connection; null while nobody listens to it. */
  readonly tellConnection: ((event: ConnectionEvent) => void) | null;
}

/** PEM texts: a certificate with those that lead to its root, and its key. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** What a server shows: for a name of `sni` (RFC 6066 §3) the one that it has there, and its own for every other. */
export interface Certificates extends Certificate {
  /** By name, in lower case; `*.example.com` is any one label before it. */
  readonly sni: Readonly<Record<string, Certificate>>;
}

export interface ListenerOptions {
  /** An address. */
  readonly host: string;
  /** 0: one that the system picks. */
  readonly port: number;
  /** Several processes share the port (`SO_REUSEPORT`). */
  readonly reusePort: boolean;
  /** Null for plain HTTP/1.1. */
  readonly tls: Certificates | null;
  readonly maxHeaderBytes: number;
  /** Milliseconds without a request after which a connection is closed. */
  readonly keepAliveTimeout: number;
  readonly connectionLimits: ConnectionLimits;
  /** Descriptors of this process that connections leave to others; 0 where they may have all of them. */
  readonly spareDescriptors: number;
  /** Requests after which a connection is told to come to an end; 0 for no limit. */
  readonly maxRequestsPerConnection: number;
  /** What TCP responses say in `alt-svc` (RFC 7838) for a port; null where there is no HTTP/3. */
  readonly altSvc: ((port: number) => string) | null;
}

export interface Listener {
  readonly port: number;
  readonly protocols: readonly Protocol[];
  /**
   * Has connections from now on get other certificates; those that are open stay as they are. Where it rejects, they are
   * the ones before.
   */
  setCertificates(tls: Certificates): Promise<void>;
  /**
   * Takes no more connections, and tells those that are open to come to an end (GOAWAY, `connection: close`). Resolves
   * when none is left.
   * @param gently another listener has taken over: idle connections of TCP are not closed at once, which could cross a
   * request on its way, but answer what still comes
   */
  drain(gently: boolean): Promise<void>;
  /** Closes everything at once; after `drain` too. */
  close(): Promise<void>;
  /** How a connection is, where its engine tells; null where there is none of that id. */
  connection?(id: string): ConnectionInfo | null;
}

/** An IPv4 address as such, where a socket of both families gives it inside an IPv6 one (RFC 4291 §2.5.5.2). */
export function plainAddress(address: string): string {
  return address.startsWith("::ffff:") ? address.slice("::ffff:".length) : address;
}

/** An engine's own limit of a head, in bytes: above ours, so that a head that is too large gets our 431. */
export function engineHeaderBytes(maxHeaderBytes: number): number {
  return maxHeaderBytes * 4;
}
