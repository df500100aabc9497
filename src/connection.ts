/** What is told of a connection: by the listener that has it, over the wire, to the user's code. No behaviour. */

/** Names of what happens to a connection, as `server.on` takes them. The order is the wire's. */
export const CONNECTION_EVENTS = ["connect", "handshake", "migrate", "close"] as const;

export type ConnectionEventName = (typeof CONNECTION_EVENTS)[number];

export interface Connection {
  /** The session id: the first half of `request.name`, and what `server.connection` takes. Unique in the server. */
  readonly id: string;
  readonly protocol: "HTTP/3";
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localPort: number;
}

/** What client and server agreed on (RFC 8446, RFC 9001). */
export interface ConnectionHandshake {
  /** By ALPN (RFC 7301), such as `h3`. */
  readonly protocol: string;
  /** Such as `TLS_AES_128_GCM_SHA256`. */
  readonly cipher: string;
  /** The name that the client asked for (SNI: RFC 6066 §3); null where it named none. */
  readonly serverName: string | null;
  /** Requests before the end of the handshake (0-RTT). */
  readonly earlyData: "none" | "accepted" | "rejected";
}

/** Where a connection was before its client moved (RFC 9000 §9). */
export interface FormerPath {
  readonly remoteAddress: string;
  readonly remotePort: number;
}

export interface ConnectionClose {
  /** `idle`: nothing came from the client for `idleTimeout`. */
  readonly by: "client" | "server" | "idle";
  /** Whose codes `code` is of (RFC 9000 §20, RFC 9114 §8.1). */
  readonly space: "transport" | "application";
  /** 0 where no error was named; 1, of the transport, where the engine broke the connection off for what `reason` says. */
  readonly code: number;
  /** In words, where there are any. */
  readonly reason: string;
}

/** Something that happened to a connection. */
export type ConnectionEvent =
  | { readonly name: "connect"; readonly connection: Connection }
  | { readonly name: "handshake"; readonly connection: Connection; readonly handshake: ConnectionHandshake }
  /** `connection` says where it is now. */
  | { readonly name: "migrate"; readonly connection: Connection; readonly from: FormerPath }
  | { readonly name: "close"; readonly connection: Connection; readonly close: ConnectionClose };

/** How a connection is doing. */
export interface ConnectionInfo extends Connection {
  readonly localAddress: string;
  /** As in its `handshake`. */
  readonly serverName: string | null;
  /** Milliseconds since the Unix epoch, when its first packet came. */
  readonly since: number;
  /** Round trips, milliseconds with a fraction (RFC 9002 §5). */
  readonly rtt: { readonly latest: number; readonly min: number; readonly smoothed: number };
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly packetsReceived: number;
  readonly packetsSent: number;
  /** Sent, and taken for lost (RFC 9002 §6). */
  readonly packetsLost: number;
  /** Bytes that may be under way to the client (RFC 9002 §7). */
  readonly congestionWindow: number;
  /** Requests that are open, and all that there were. */
  readonly streams: { readonly open: number; readonly total: number };
}
