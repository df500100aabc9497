/** Bytes on a control socket, for what no command would send. */
import net from "node:net";
import { join } from "node:path";
import { until } from "./poll.ts";

export class ControlConnection implements Disposable {
  readonly #socket: net.Socket;
  received = "";
  /** The server sends no more. */
  isClosed = false;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => {
      this.received += text;
    });
    // The server may close while more is being sent.
    socket.on("error", () => {});
    const closed = () => {
      this.isClosed = true;
    };
    socket.on("end", closed).on("close", closed);
  }

  static async open(runDirectory: string): Promise<ControlConnection> {
    const socket = net.connect({ path: join(runDirectory, "control.sock"), allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve).once("error", reject);
    });
    return new ControlConnection(socket);
  }

  send(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** No more will be sent; answers are still read. */
  end(): void {
    this.#socket.end();
  }

  /** Nothing is read any more. */
  pause(): void {
    this.#socket.pause();
  }

  /** Bytes that were given to `send` and the other side has not taken. */
  get unsent(): number {
    return this.#socket.writableLength;
  }

  /** Neither does the server take any more. */
  get isCutOff(): boolean {
    return this.#socket.destroyed;
  }

  /** The next answer. */
  async answer(within = 5_000): Promise<{ ok: boolean; error?: string; value?: unknown }> {
    const end = await until("an answer", within, () => {
      const at = this.received.indexOf("\n");
      if (at === -1 && this.isClosed) throw new Error("the connection was closed");
      return at === -1 ? undefined : at + 1;
    });
    const line = this.received.slice(0, end);
    this.received = this.received.slice(end);
    return JSON.parse(line);
  }

  async untilClosed(within = 5_000): Promise<void> {
    await until("the end of the connection", within, () => this.isClosed);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
