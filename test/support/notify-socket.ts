/** Systemd's end of sd_notify(3): a unix datagram socket, which Node has not. */
import { dlopen } from "bun:ffi";
import { until } from "./poll.ts";

const LIBRARIES = ["libc.so.6", `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`];
const SYMBOLS = {
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  bind: { args: ["i32", "buffer", "u32"], returns: "i32" },
  recv: { args: ["i32", "buffer", "u64", "i32"], returns: "i64" },
  close: { args: ["i32"], returns: "i32" },
} as const;
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;
const MAX_BYTES = 4096;

/** A datagram's assignments. */
export type Message = Readonly<Record<string, string>>;

export class NotifySocket implements Disposable {
  readonly address: string;
  /** What has come, in its order. */
  readonly messages: Message[] = [];
  readonly #libc = openLibc();
  readonly #socket: number;

  /** @param address a path, or behind an `@` a name in no file system */
  constructor(address: string) {
    this.address = address;
    const name = Buffer.from(address.replace(/^@/, "\0"));
    const sockaddr = Buffer.concat([Buffer.from([AF_UNIX, 0]), name]);
    this.#socket = this.#libc.symbols.socket(AF_UNIX, SOCK_DGRAM, 0);
    if (this.#libc.symbols.bind(this.#socket, sockaddr, sockaddr.length) !== 0) {
      throw new Error(`the socket ${address} cannot be bound`);
    }
  }

  /** Takes in what has come. */
  receive(): readonly Message[] {
    const buffer = Buffer.alloc(MAX_BYTES);
    for (;;) {
      const length = Number(this.#libc.symbols.recv(this.#socket, buffer, MAX_BYTES, MSG_DONTWAIT));
      if (length < 0) return this.messages;
      const lines = buffer.toString("utf8", 0, length).split("\n");
      this.messages.push(Object.fromEntries(lines.map((line) => line.split(/=(.*)/s, 2))));
    }
  }

  /** The first that has this, and comes behind those that were there. */
  next(name: string, within = 10_000): Promise<Message> {
    const before = this.receive().length;
    return until(name, within, () =>
      this.receive()
        .slice(before)
        .find((message) => name in message),
    );
  }

  [Symbol.dispose](): void {
    this.#libc.symbols.close(this.#socket);
    this.#libc.close();
  }
}

function openLibc() {
  for (const name of LIBRARIES) {
    try {
      return dlopen(name, SYMBOLS);
    } catch {
      // Of another system.
    }
  }
  throw new Error("there is no C library");
}
