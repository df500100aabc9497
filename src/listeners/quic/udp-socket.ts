/**
 * Options of UDP sockets that an engine has opened and does not hand out: finds the sockets of a port in this process
 * by /proc, and sets their options by a call of libc. The only file with a foreign function. It knows sockets and
 * integers, and no engine.
 */
import { dlopen, type Pointer, ptr } from "bun:ffi";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** An option of `setsockopt(2)` on Linux: its level and its number. */
export interface SocketOption {
  readonly level: number;
  readonly option: number;
}

/** ip(7), ipv6(7), socket(7). */
export const SOCKET_OPTIONS = {
  /** An ICMP error about one peer fails the next send to whomever it goes. */
  ipReceiveErrors: { level: 0, option: 11 },
  ipv6ReceiveErrors: { level: 41, option: 25 },
  /** Bytes; the system caps it at `net.core.rmem_max`. */
  receiveBuffer: { level: 1, option: 8 },
  /** Bytes; the system caps it at `net.core.wmem_max`. */
  sendBuffer: { level: 1, option: 7 },
  /** The same without the caps, for a process that may (CAP_NET_ADMIN). */
  receiveBufferForced: { level: 1, option: 33 },
  sendBufferForced: { level: 1, option: 32 },
} as const satisfies Record<string, SocketOption>;

const LIBRARIES = [
  "libc.so.6",
  "libc.so",
  `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`,
];
const SYMBOLS = {
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
  getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
} as const;
const INT_BYTES = 4;
const TABLES = ["/proc/self/net/udp", "/proc/self/net/udp6"];
/** Columns of those tables. */
const LOCAL_ADDRESS = 1;
const INODE = 9;

/** The descriptors of this process's UDP sockets on a port, of IPv4 and IPv6; none where there is no /proc. */
export function udpSocketsOn(port: number): number[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const links = new Set<string>();
  for (const table of TABLES) {
    for (const line of linesOf(table)) {
      const columns = line.trim().split(/\s+/);
      if (columns[LOCAL_ADDRESS]?.endsWith(suffix)) links.add(`socket:[${columns[INODE]}]`);
    }
  }
  return links.size === 0 ? [] : descriptors().filter((fd) => links.has(linkOf(fd)));
}

/** Sets and reads integer options of sockets by their descriptors. */
export class SocketOptions implements Disposable {
  readonly #libc = openLibc();

  /** True where the system took it: not every socket has every option. */
  set(fd: number, { level, option }: SocketOption, value: number): boolean {
    return (
      this.#libc.symbols.setsockopt(fd, level, option, pointer(new Int32Array([value])), INT_BYTES) === 0
    );
  }

  /** Null where the socket has no such option. */
  get(fd: number, { level, option }: SocketOption): number | null {
    const value = new Int32Array(1);
    const size = new Uint32Array([INT_BYTES]);
    const result = this.#libc.symbols.getsockopt(fd, level, option, pointer(value), pointer(size));
    return result === 0 ? (value[0] as number) : null;
  }

  [Symbol.dispose](): void {
    this.#libc.close();
  }
}

/** @throws Error where no C library is found */
function openLibc() {
  let cause: unknown;
  for (const name of LIBRARIES) {
    try {
      return dlopen(name, SYMBOLS);
    } catch (error) {
      // By another name, perhaps: systems differ.
      cause = error;
    }
  }
  throw new Error(`there is no C library by the names ${LIBRARIES.join(", ")}`, { cause });
}

function pointer(bytes: Int32Array | Uint32Array): Pointer {
  return ptr(bytes);
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, "latin1").split("\n");
  } catch {
    // No /proc, or no IPv6: then there are no such sockets to find.
    return [];
  }
}

function descriptors(): number[] {
  return readdirSync("/proc/self/fd").map(Number);
}

function linkOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    // The descriptor that read the list itself is closed by now.
    return "";
  }
}
