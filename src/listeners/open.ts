/** Opens what a process listens on: one port number, for TCP and, where HTTP/3 is on, for UDP. */
import type { ConnectionInfo } from "../connection.ts";
import type { ResolvedQuic } from "../http3-options.ts";
import { addressOf } from "./address.ts";
import { type ConnectionBounds, ConnectionLimits } from "./connection-limits.ts";
import type { Certificates, Listener, ListenerHost, ListenerOptions } from "./listener.ts";
import { listenHttp3Native } from "./native/listener.ts";
import { listenTcp } from "./tcp.ts";

export interface ListenConfig extends ConnectionBounds {
  readonly host: string;
  /** 0: one that the system picks. */
  readonly port: number;
  /** Several processes share the port (`SO_REUSEPORT`). */
  readonly reusePort: boolean;
  /** Null for plain HTTP/1.1. */
  readonly tls: Certificates | null;
  readonly http3: "native" | "quic" | "off";
  /** Of the engine `quic`; null with another. */
  readonly quic: ResolvedQuic | null;
  /** Bytes of a request's body: of an engine that cannot hold its clients back no more are kept. */
  readonly maxBodyBytes: number;
  /** Where bodies wait that are not read in time. */
  readonly directory: string;
  readonly maxHeaderBytes: number;
  /** Milliseconds. */
  readonly keepAliveTimeout: number;
  readonly maxRequestsPerConnection: number;
  /** As in `ListenerOptions`. */
  readonly spareDescriptors: number;
}

/** How often a port is tried that is free on TCP and must be on UDP too. */
const PORT_ATTEMPTS = 20;
const ALT_SVC_SECONDS = 86_400;

/** Rejects with the system's error: see `reasonOf`. */
export async function openListeners(
  config: ListenConfig,
  listenerHost: ListenerHost,
): Promise<readonly Listener[]> {
  const { tls } = config;
  const withHttp3 = tls !== null && config.http3 !== "off";
  const altSvc = withHttp3 ? (port: number) => `h3=":${port}"; ma=${ALT_SVC_SECONDS}` : null;
  const connectionLimits = new ConnectionLimits(config);
  const host = await addressOf(config.host);
  const options: ListenerOptions = { ...config, host, altSvc, connectionLimits };
  for (let attempt = 1; ; attempt++) {
    const tcp = await listenTcp(options, listenerHost);
    if (!withHttp3) return [tcp];
    try {
      return [tcp, await listenHttp3({ ...options, port: tcp.port }, config, listenerHost)];
    } catch (error) {
      await tcp.close();
      // The system picked a port for TCP that something else has on UDP: another will do.
      if (config.port !== 0 || attempt === PORT_ATTEMPTS) throw error;
    }
  }
}

/** How a connection is, by the listener that has it; null where none has. */
export function connectionOf(listeners: readonly Listener[], id: string): ConnectionInfo | null {
  for (const listener of listeners) {
    const info = listener.connection?.(id) ?? null;
    if (info !== null) return info;
  }
  return null;
}

async function listenHttp3(
  options: ListenerOptions,
  { quic, maxBodyBytes, directory }: ListenConfig,
  listenerHost: ListenerHost,
): Promise<Listener> {
  if (quic === null) return listenHttp3Native(options, listenerHost);
  // Loaded where it is used: it brings a foreign function along.
  const { listenHttp3Quic } = await import("./quic/listener.ts");
  return listenHttp3Quic({ ...options, quic, maxBodyBytes, directory }, listenerHost);
}

/** Why it could not be opened, in one line. */
export function reasonOf(error: Error & { code?: string }, { host, port }: ListenConfig): string {
  if (error.code === "EADDRINUSE") return `port ${port} on ${host} is in use`;
  if (error.code === "EACCES") return `port ${port} on ${host} may not be opened by this user`;
  if (["EADDRNOTAVAIL", "ENOTFOUND", "EAI_AGAIN"].includes(error.code ?? ""))
    return `${host} is no address of this machine`;
  return `cannot listen on ${host} port ${port}: ${error.message}`;
}
