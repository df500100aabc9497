/** Bytes on a connection, for what no well-behaved client would send. */
import net from "node:net";
import tls from "node:tls";
import { inTime } from "./poll.ts";

export type RawOptions = tls.ConnectionOptions & { readonly allowHalfOpen?: boolean };

export class RawConnection implements Disposable {
  readonly #socket: net.Socket;
  #received = "";
  #isClosed = false;
  #changed = Promise.withResolvers<void>();

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => {
      this.#received += text;
      this.#tell();
    });
    const closed = () => {
      this.#isClosed = true;
      this.#tell();
    };
    // A reset is one way for the server to close.
    socket.on("end", closed).on("close", closed).on("error", closed);
  }

  /** @param alpn "http/1.1" or "h2" */
  static async open(port: number, alpn = "http/1.1", options: RawOptions = {}): Promise<RawConnection> {
    const socket = tls.connect({
      host: "127.0.0.1",
      port,
      servername: "localhost",
      rejectUnauthorized: false,
      ALPNProtocols: [alpn],
      ...options,
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    socket.once("secureConnect", resolve).once("error", reject);
    await inTime("the TLS handshake", 5_000, promise);
    return new RawConnection(socket);
  }

  /** The same without TLS. */
  static async openPlain(port: number): Promise<RawConnection> {
    const socket = net.connect(port, "127.0.0.1");
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    socket.once("connect", resolve).once("error", reject);
    await inTime("the connection", 5_000, promise);
    return new RawConnection(socket);
  }

  #tell(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  /** Everything that has come so far. */
  get received(): string {
    return this.#received;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  send(bytes: string | Uint8Array): void {
    if (typeof bytes === "string") this.#socket.write(bytes, "latin1");
    else this.#socket.write(bytes);
  }

  /** Closes this side, and reads on. */
  end(): void {
    this.#socket.end();
  }

  /** Reads no more until `resume`: what the server sends fills the buffers between. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Waits until what was received matches, or the server has closed the connection. */
  async untilReceived(pattern: RegExp, within = 5_000): Promise<string> {
    const wait = async () => {
      while (!pattern.test(this.#received) && !this.#isClosed) await this.#changed.promise;
      return this.#received;
    };
    return inTime(`${pattern} to be received, not ${JSON.stringify(this.#received)}`, within, wait());
  }

  async untilClosed(within = 5_000): Promise<string> {
    const wait = async () => {
      while (!this.#isClosed) await this.#changed.promise;
      return this.#received;
    };
    return inTime("the server to close the connection", within, wait());
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
