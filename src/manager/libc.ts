/**
 * The few calls of the C library that Node's modules have not. The only file of the manager that knows `bun:ffi`. Where
 * no C library can be called, each says so by its value, and its caller goes without.
 */

type Ffi = typeof import("bun:ffi");

/** An import would keep the manager from starting where there is none. */
const ffi = process.getBuiltinModule("bun:ffi") as Ffi | undefined;

/** By their file names: of glibc, of musl, of macOS. */
const LIBRARIES = [
  "libc.so.6",
  `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`,
  "libSystem.B.dylib",
];

const SYMBOLS = {
  flock: { args: ["i32", "i32"], returns: "i32" },
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "buffer", "u32"], returns: "i32" },
  sendto: { args: ["i32", "buffer", "u64", "i32", "buffer", "u32"], returns: "i64" },
  clock_gettime: { args: ["i32", "buffer"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
} as const;

const LOCK_EX = 2;
const LOCK_NB = 4;
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDTIMEO = 21;
const MSG_NOSIGNAL = 0x4000;
const CLOCK_MONOTONIC = 1;
/** `sockaddr_un` has room for so many bytes of a path. */
const SUN_PATH_BYTES = 108;

/** Bytes of a path that a unix socket can have, with the closing NUL. */
export const MAX_SOCKET_PATH_BYTES = SUN_PATH_BYTES - 1;

type Calls = ReturnType<typeof import("bun:ffi").dlopen<typeof SYMBOLS>>["symbols"];

export class Libc {
  readonly #call: Calls;

  /** Null where there is none that can be called. */
  static open(): Libc | null {
    if (ffi === undefined) return null;
    for (const name of LIBRARIES) {
      try {
        return new Libc(ffi.dlopen(name, SYMBOLS).symbols);
      } catch {
        // Another system's: the next one may be there.
      }
    }
    return null;
  }

  private constructor(call: Calls) {
    this.#call = call;
  }

  /**
   * Locks what is open for this process alone, until it closes it or ends, however that may be (flock(2)).
   * @returns false where another has it
   */
  lock(descriptor: number): boolean {
    return this.#call.flock(descriptor, LOCK_EX | LOCK_NB) === 0;
  }

  /**
   * Sends one datagram to a unix socket. Linux alone.
   * @param address a path, or behind an `@` a name that is in no file system (unix(7))
   * @param timeout milliseconds that a receiver who is busy is waited for
   * @returns false where it was not sent
   */
  sendDatagram(address: string, text: string, timeout: number): boolean {
    const name = Buffer.from(address.replace(/^@/, "\0"));
    if (name.length > SUN_PATH_BYTES) return false;
    const sockaddr = Buffer.alloc(2 + name.length);
    sockaddr.writeUInt16LE(AF_UNIX, 0);
    name.copy(sockaddr, 2);
    const socket = this.#call.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket < 0) return false;
    try {
      const timeval = new BigInt64Array([0n, BigInt(timeout) * 1000n]);
      this.#call.setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, timeval, timeval.byteLength);
      const bytes = Buffer.from(text);
      const sent = this.#call.sendto(socket, bytes, bytes.length, MSG_NOSIGNAL, sockaddr, sockaddr.length);
      return Number(sent) === bytes.length;
    } finally {
      this.#call.close(socket);
    }
  }

  /** Microseconds of CLOCK_MONOTONIC. Linux alone. */
  monotonicTime(): bigint {
    const timespec = new BigInt64Array(2);
    this.#call.clock_gettime(CLOCK_MONOTONIC, timespec);
    const [seconds = 0n, nanoseconds = 0n] = timespec;
    return seconds * 1_000_000n + nanoseconds / 1000n;
  }
}
