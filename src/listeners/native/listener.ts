/**
 * HTTP/3 by the engine inside Bun (engine.ts). That engine keeps the certificate that it began with, so another certificate
 * is another engine beside it, on the same port; udp-group.ts leads each client to its own. No exchanges.
 */
import { SeenConnections } from "../connection-limits.ts";
import type { Certificate, Listener, ListenerHost, ListenerOptions } from "../listener.ts";
import { bindUdp } from "../ports.ts";
import { NativeEngine } from "./engine.ts";
import type { Engine, GroupTimes, UdpGroup } from "./udp-group.ts";

/**
 * The engine closes a connection on which no stream has moved for 60 s, whatever else its client sends, and gives a
 * handshake 10 s.
 */
const TIMES: GroupTimes = { catching: 65_000, handshake: 10_000, check: 5_000 };

/** One for each certificate that connections were opened with and still have. Each costs a socket and its buffers. */
const MAX_ENGINES = 16;

export async function listenHttp3Native(
  options: ListenerOptions,
  host: ListenerHost,
  times: GroupTimes = TIMES,
): Promise<Listener> {
  const { tls } = options;
  if (tls === null) throw new TypeError("HTTP/3 needs TLS (RFC 9114 §3.1)");
  // The engine itself would share the port with whoever has it, and say nothing.
  if (!options.reusePort) await bindUdp(options.host, options.port);
  return new NativeListener(options, tls, host, times);
}

class NativeListener implements Listener {
  readonly protocols = ["HTTP/3"] as const;
  readonly port: number;
  readonly #options: ListenerOptions;
  readonly #host: ListenerHost;
  readonly #times: GroupTimes;
  readonly #first: Engine;
  /** One for all engines; null where nothing is limited. */
  readonly #seen: SeenConnections | null;
  #tls: Certificate;
  /** Each has a certificate of its own. */
  readonly #engines = new Set<NativeEngine>();
  /** Null until there is more than one engine. */
  #group: Promise<UdpGroup> | null = null;

  constructor(options: ListenerOptions, tls: Certificate, host: ListenerHost, times: GroupTimes) {
    this.#tls = tls;
    this.#host = host;
    this.#times = times;
    const { connectionLimits, keepAliveTimeout } = options;
    this.#seen = connectionLimits.areSet ? new SeenConnections(connectionLimits, keepAliveTimeout) : null;
    this.#first = this.#open(options, tls);
    const [engine] = this.#engines;
    this.port = (engine as NativeEngine).port;
    this.#options = { ...options, port: this.port };
  }

  async setCertificates(tls: Certificate): Promise<void> {
    if (tls.cert === this.#tls.cert && tls.key === this.#tls.key) return;
    // The program that chooses is one for the sockets of all processes, and no process knows those of the others.
    if (this.#options.reusePort)
      throw new Error("where reactors share the port, another certificate takes a restart of the server");
    if (this.#engines.size >= MAX_ENGINES) {
      throw new Error(`connections with ${MAX_ENGINES} earlier certificates are still open`);
    }
    this.#group ??= this.#formGroup();
    const group = await this.#group.catch((error: unknown) => {
      this.#group = null;
      throw error;
    });
    await group.advance(() => this.#open({ ...this.#options, reusePort: true }, tls));
    this.#tls = tls;
  }

  async drain(): Promise<void> {
    await (await this.#group)?.hold();
    await Promise.all([...this.#engines].map((engine) => engine.drain()));
  }

  async close(): Promise<void> {
    await Promise.all([...this.#engines].map((engine) => engine.close()));
    (await this.#group)?.close();
  }

  async #formGroup(): Promise<UdpGroup> {
    // Loaded where they are needed, and where there are no such system calls it fails by itself.
    const { addressOf, SOCKET_OPTIONS, setSocketOption, udpSocketsOf } = await import("../udp-socket.ts");
    const { UdpGroup } = await import("./udp-group.ts");
    const [descriptor = -1] = udpSocketsOf(this.port);
    const address = addressOf(descriptor);
    if (address === null) throw new Error(`no socket of this process has UDP port ${this.port}`);
    setSocketOption(descriptor, SOCKET_OPTIONS.reusePort, 1);
    const log = (line: string) => this.#host.log(line);
    return new UdpGroup(address, this.#first, this.#times, log);
  }

  #open(options: ListenerOptions, tls: Certificate): Engine {
    const engine = new NativeEngine(options, tls, this.#host, this.#seen);
    this.#engines.add(engine);
    return {
      close: () => {
        this.#engines.delete(engine);
        return engine.close();
      },
    };
  }
}
