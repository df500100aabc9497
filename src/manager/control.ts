/**
 * The control socket: whoever may open it (this user, by the run directory's mode) asks a running server for its status,
 * for a reload, or for its end. One JSON object a line each way, as docs/architecture.md says. What is no such request
 * gets one answer that says so, and costs nobody else anything.
 */
import { chmodSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import type { Protocol } from "../exchange.ts";
import type { ReactorStats, ServerStats } from "./messages.ts";

const CONTROL_COMMANDS = ["status", "reload", "stop"] as const;
export type ControlCommand = (typeof CONTROL_COMMANDS)[number];

export type ControlAnswer =
  | { readonly ok: true; readonly value: unknown }
  /** @param error a line that says why */
  | { readonly ok: false; readonly error: string };

/** What `tercet status --json` prints: names are added to it, and none is taken away. */
export interface ServerStatus extends Omit<ServerStats, "pid" | "reactors"> {
  /** Of Tercet. */
  readonly version: string;
  readonly state: "starting" | "serving" | "reloading" | "stopping";
  readonly host: string;
  readonly port: number;
  /** Empty while it starts. */
  readonly protocols: readonly Protocol[];
  readonly runDirectory: string;
  readonly manager: {
    readonly pid: number;
    /** Milliseconds since it was started. */
    readonly uptime: number;
    /** Resident memory, bytes. */
    readonly rss: number;
    /** Cores that it kept busy in the last second. */
    readonly cpu: number;
  };
  readonly reactors: readonly Omit<ReactorStats, "exchanges">[];
}

export interface ControlHandlers {
  status(): Promise<ServerStatus>;
  /** @throws Error (as a rejection) whose message says why the old code still serves */
  reload(): Promise<void>;
  /** Begins to stop the server. */
  stop(): void;
}

/** A request is a fraction of it. */
const MAX_LINE_BYTES = 4096;
const MAX_CONNECTIONS = 32;
/** Milliseconds that a client may take to send a request, or to take an answer. */
const CLIENT_TIMEOUT = 10_000;
/** Milliseconds that a client which is refused may go on sending: it is read, and dropped. */
const REFUSED_FOR = 1000;
const NEWLINE = 0x0a;

export class ControlServer {
  readonly #server: Server;
  readonly #connections: Set<ControlConnection>;

  /**
   * @param path where nothing is
   * @throws the system's error (as a rejection)
   */
  static async listen(path: string, handlers: ControlHandlers): Promise<ControlServer> {
    const connections = new Set<ControlConnection>();
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      const connection = new ControlConnection(socket, handlers, () => connections.delete(connection));
      if (connections.size >= MAX_CONNECTIONS) connection.refuse("there are too many control connections");
      else connections.add(connection);
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(path, resolve);
    });
    chmodSync(path, 0o600);
    return new ControlServer(server, connections);
  }

  private constructor(server: Server, connections: Set<ControlConnection>) {
    this.#server = server;
    this.#connections = connections;
  }

  /** Closes every connection, by which those who asked for the end learn of it. */
  close(): void {
    this.#server.close();
    for (const connection of this.#connections) connection.end();
  }
}

/** One client, and one request of it at a time. */
class ControlConnection {
  readonly #socket: Socket;
  readonly #handlers: ControlHandlers;
  #received: Buffer = Buffer.alloc(0);
  #isBusy = false;
  /** The client will send no more. */
  #hasEnded = false;
  #isRefused = false;

  constructor(socket: Socket, handlers: ControlHandlers, closed: () => void) {
    this.#socket = socket;
    this.#handlers = handlers;
    socket.setTimeout(CLIENT_TIMEOUT, () => socket.destroy());
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("end", () => {
      this.#hasEnded = true;
      this.#next();
    });
    // A client that has gone is told of by what follows, 'close'.
    socket.on("error", () => {});
    socket.on("close", closed);
  }

  /** Answers with an error, and is done with this client. */
  refuse(error: string): void {
    if (this.#isRefused) return;
    this.#isRefused = true;
    this.#write({ ok: false, error });
    this.#socket.end();
    // It is let finish what it sends: closed at once, it would find its connection reset, and no answer.
    const late = setTimeout(() => this.#socket.destroy(), REFUSED_FOR);
    this.#socket.once("close", () => clearTimeout(late));
  }

  /** No more requests; what was answered is sent. */
  end(): void {
    this.#isRefused = true;
    this.#socket.destroySoon();
  }

  #receive(chunk: Buffer): void {
    if (this.#isRefused) return;
    this.#received = Buffer.concat([this.#received, chunk]);
    this.#next();
  }

  #next(): void {
    if (this.#isBusy || this.#isRefused || this.#socket.destroyed) return;
    const end = this.#received.indexOf(NEWLINE);
    if (end > MAX_LINE_BYTES || (end === -1 && this.#received.length > MAX_LINE_BYTES)) {
      this.refuse(`a control message has at most ${MAX_LINE_BYTES} bytes`);
      return;
    }
    if (end === -1) {
      if (!this.#hasEnded) {
        this.#socket.resume();
        return;
      }
      if (this.#received.length > 0) this.refuse("a control message ends with a newline");
      else this.#socket.end();
      return;
    }
    const line = this.#received.toString("utf8", 0, end);
    this.#received = this.#received.subarray(end + 1);
    const command = commandIn(line);
    if (command === null) {
      this.refuse(
        `a control message is a line such as {"command":"status"}; there are ${CONTROL_COMMANDS.join(", ")}`,
      );
      return;
    }
    void this.#carryOut(command);
  }

  async #carryOut(command: ControlCommand): Promise<void> {
    this.#isBusy = true;
    // What comes meanwhile waits with the client, and it may wait for us as long as it takes.
    this.#socket.pause();
    this.#socket.setTimeout(0);
    const answer = await this.#answer(command);
    this.#socket.setTimeout(CLIENT_TIMEOUT);
    if (!this.#write(answer)) await drained(this.#socket);
    if (command === "stop") {
      // It is told by the end of the connection when all is over.
      this.#socket.setTimeout(0);
      return;
    }
    this.#isBusy = false;
    this.#next();
  }

  async #answer(command: ControlCommand): Promise<ControlAnswer> {
    const { status, reload, stop } = this.#handlers;
    try {
      switch (command) {
        case "status":
          return { ok: true, value: await status() };
        case "reload":
          await reload();
          return { ok: true, value: null };
        case "stop":
          stop();
          return { ok: true, value: null };
      }
    } catch (error) {
      return { ok: false, error: (error as Error).message };
    }
  }

  #write(answer: ControlAnswer): boolean {
    return !this.#socket.writable || this.#socket.write(`${JSON.stringify(answer)}\n`);
  }
}

function commandIn(line: string): ControlCommand | null {
  try {
    const { command } = JSON.parse(line);
    return CONTROL_COMMANDS.includes(command) ? command : null;
  } catch {
    // It is no JSON, or null.
    return null;
  }
}

/** The client has taken what was written. Of one that has gone nothing follows. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.once("drain", resolve);
  });
}
