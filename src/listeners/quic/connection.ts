/** One connection of `node:quic`: who it is with, what becomes of it, and how it is doing. It knows no requests. */
import type { QuicError, QuicSession, SessionHandshakeInfo } from "node:quic";
import type {
  Connection,
  ConnectionClose,
  ConnectionEvent,
  ConnectionHandshake,
  ConnectionInfo,
} from "../../connection.ts";
import { plainAddress } from "../listener.ts";
import type { BodyStore } from "./body.ts";
import { Turns } from "./turns.ts";

const NANOSECONDS = 1e6;
/** The transport's code where the engine itself broke the connection off (RFC 9000 §20.1, INTERNAL_ERROR). */
const ENGINE_ERROR = 1;

/**
 * The engine ends a connection on whose streams nothing has moved for 60 s, whatever its timeouts are and however alive its
 * client: something is moved after so many milliseconds.
 */
const STILL_FOR = 30_000;
/** Milliseconds for which nobody waits for the engine to call for a stream of a connection after it did not. */
const STUCK_FOR = 10_000;
/** A stream of a reserved type, which every client ignores and which is meant for this (RFC 9114 §6.2.3). */
const PADDING = Uint8Array.of(0x21, 0);

/** `socketAddress` of node:net, as far as it is used. */
interface Address {
  readonly address: string;
  readonly port: number;
}

/** What the connections of one listener share. */
export interface ConnectionOwner {
  readonly localPort: number;
  readonly idleTimeout: number;
  readonly maxFieldSectionSize: number | undefined;
  readonly bodies: BodyStore;
  /** Null where nobody listens. */
  readonly tell: ((event: ConnectionEvent) => void) | null;
}

/** `greeting`: the handshake is not done · `open` · `refused`: it is over the limits · `leaving`: it takes no more. */
export type ConnectionState = "greeting" | "open" | "refused" | "leaving" | "closed";

export class QuicConnection implements Connection {
  readonly id: string;
  readonly protocol = "HTTP/3";
  readonly localPort: number;
  readonly maxFieldSectionSize: number | undefined;
  readonly bodies: BodyStore;
  remoteAddress = "";
  remotePort = 0;
  /** The address that it counts for, wherever its client goes on from; null where it was not taken. */
  admittedFrom: string | null = null;
  state: ConnectionState = "greeting";
  /** Streams that are open. */
  open = 0;
  /** Those there were. */
  total = 0;
  /** When the last stream closed, or the connection began, in milliseconds of `performance`. */
  lastUsed = performance.now();
  readonly trailerTurns = new Turns();
  /** Why the server closes it, where it does. */
  closing: string | null = null;
  readonly #session: QuicSession;
  readonly #owner: ConnectionOwner;
  readonly #since = Date.now();
  #localAddress = "";
  #serverName: string | null = null;
  #packets = 0n;
  #heardAt = performance.now();
  #stirredAt = this.#heardAt;
  #stuckUntil = 0;

  constructor(id: string, session: QuicSession, owner: ConnectionOwner) {
    this.id = id;
    this.#session = session;
    this.#owner = owner;
    this.localPort = owner.localPort;
    this.maxFieldSectionSize = owner.maxFieldSectionSize;
    this.bodies = owner.bodies;
  }

  /** The client's address is known: from the handshake on. */
  locate(info: SessionHandshakeInfo): void {
    this.#moved(info.remote as unknown as Address);
    this.#localAddress = plainAddress(
      (this.#session.path?.local as unknown as Address | undefined)?.address ?? "",
    );
    this.#serverName = info.servername || null;
  }

  opened(info: SessionHandshakeInfo): void {
    this.state = "open";
    const { tell } = this.#owner;
    if (tell === null) return;
    tell({ name: "connect", connection: this.#facts() });
    tell({ name: "handshake", connection: this.#facts(), handshake: handshakeOf(info) });
  }

  migrated(to: Address): void {
    const from = { remoteAddress: this.remoteAddress, remotePort: this.remotePort };
    this.#moved(to);
    this.#owner.tell?.({ name: "migrate", connection: this.#facts(), from });
  }

  /** @param error as the engine gives it; null where the connection closed without one */
  closed(error: QuicError | null): void {
    const told = this.state === "open" || this.state === "leaving";
    this.state = "closed";
    if (told) this.#owner.tell?.({ name: "close", connection: this.#facts(), close: this.#closeOf(error) });
  }

  streamOpened(): void {
    this.open++;
    this.total++;
  }

  streamClosed(): void {
    this.open--;
    this.lastUsed = performance.now();
  }

  /** The engine can send nothing of it: its client acknowledges nothing. */
  stuck(): void {
    this.#stuckUntil = performance.now() + STUCK_FOR;
  }

  /** It was stuck a moment ago. */
  get isStuck(): boolean {
    return this.#stuckUntil !== 0 && performance.now() < this.#stuckUntil;
  }

  /**
   * Notes whether anything has come since the last look.
   * @param now milliseconds of `performance`
   */
  listen(now: number): void {
    const { pktRecv } = this.#session.stats as unknown as { pktRecv: bigint };
    if (pktRecv === this.#packets) return;
    this.#packets = pktRecv;
    this.#heardAt = now;
  }

  /**
   * Keeps the engine from giving it up while nothing moves. One of which nothing has come since the last time is left to that.
   * @param now milliseconds of `performance`
   */
  async stir(now: number): Promise<void> {
    if (now - Math.max(this.lastUsed, this.#stirredAt) < STILL_FOR || this.#heardAt < this.#stirredAt) return;
    this.#stirredAt = now;
    try {
      const stream = await this.#session.createUnidirectionalStream({ body: PADDING });
      await stream.closed;
    } catch {
      // The client wants no more of it, or allows none: nothing is lost that was not before.
    }
  }

  info(): ConnectionInfo {
    // The engine's types leave half of them out.
    const stats = this.#session.stats as unknown as Record<string, bigint>;
    const of = (name: string) => Number(stats[name] ?? 0n);
    return {
      ...this.#facts(),
      localAddress: this.#localAddress,
      serverName: this.#serverName,
      since: this.#since,
      rtt: {
        latest: of("latestRtt") / NANOSECONDS,
        min: of("minRtt") / NANOSECONDS,
        smoothed: of("smoothedRtt") / NANOSECONDS,
      },
      bytesReceived: of("bytesRecv"),
      bytesSent: of("bytesSent"),
      packetsReceived: of("pktRecv"),
      packetsSent: of("pktSent"),
      packetsLost: of("pktLost"),
      congestionWindow: of("cwnd"),
      streams: { open: this.open, total: this.total },
    };
  }

  #facts(): Connection {
    const { id, protocol, remoteAddress, remotePort, localPort } = this;
    return { id, protocol, remoteAddress, remotePort, localPort };
  }

  #moved({ address, port }: Address): void {
    this.remoteAddress = plainAddress(address);
    this.remotePort = port;
  }

  #closeOf(error: QuicError | null): ConnectionClose {
    if (this.closing !== null)
      return { by: "server", space: "application", code: 0x100, reason: this.closing };
    if (error === null) {
      // The engine does not tell an end by its own timer from an end by the client.
      const silence = performance.now() - this.#heardAt;
      const by = silence >= this.#owner.idleTimeout * IDLE_SHARE ? "idle" : "client";
      return { by, space: "transport", code: 0, reason: "" };
    }
    const code = Number(error.errorCode);
    const reason = (error as { reason?: string }).reason ?? "";
    const by = error.type === "transport" && code === ENGINE_ERROR && reason !== "" ? "server" : "client";
    return { by, space: error.type, code, reason };
  }
}

/** Of `idleTimeout`: what is seen of it, as connections are looked at every so often. */
const IDLE_SHARE = 0.7;

function handshakeOf(info: SessionHandshakeInfo): ConnectionHandshake {
  const { earlyDataAttempted: attempted, earlyDataAccepted: accepted } = info;
  return {
    protocol: info.protocol,
    cipher: info.cipher,
    serverName: info.servername || null,
    earlyData: accepted ? "accepted" : attempted ? "rejected" : "none",
  };
}
