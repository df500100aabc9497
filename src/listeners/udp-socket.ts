/**
 * What neither `node:dgram` nor an engine lets one say to a UDP socket, said by system calls through `bun:ffi`; Linux. It
 * knows sockets and integers, and no engine. To be imported where it is used: without a C library the import fails.
 */
import { dlopen, type Pointer, ptr, read } from "bun:ffi";
import { readdirSync } from "node:fs";
import { getSystemErrorName } from "node:util";

/** Of glibc, and of musl. */
const LIBRARIES = [
  "libc.so.6",
  "libc.so",
  `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`,
];
const SYMBOLS = {
  getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
  getsockname: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  __errno_location: { args: [], returns: "ptr" },
} as const;
const libc = openLibc().symbols;

/** An option of `setsockopt(2)`: its level and its number. */
export interface SocketOption {
  readonly level: number;
  readonly option: number;
}

const SOL_SOCKET = 1;

/** Of Linux: ip(7), ipv6(7), socket(7). */
export const SOCKET_OPTIONS = {
  reusePort: { level: SOL_SOCKET, option: 15 },
  /** An ICMP error about one peer fails the next send to whomever it goes. */
  ipReceiveErrors: { level: 0, option: 11 },
  ipv6ReceiveErrors: { level: 41, option: 25 },
  /** Bytes; the system caps it at `net.core.rmem_max`. */
  receiveBuffer: { level: SOL_SOCKET, option: 8 },
  /** Bytes; the system caps it at `net.core.wmem_max`. */
  sendBuffer: { level: SOL_SOCKET, option: 7 },
  /** The same without the caps, for a process that may (CAP_NET_ADMIN). */
  receiveBufferForced: { level: SOL_SOCKET, option: 33 },
  sendBufferForced: { level: SOL_SOCKET, option: 32 },
} as const satisfies Record<string, SocketOption>;

const TYPE: SocketOption = { level: SOL_SOCKET, option: 3 };
const SOCK_DGRAM = 2;
const SO_ATTACH_REUSEPORT_CBPF = 51;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCKADDR_BYTES = 128;
const INSTRUCTION_BYTES = 8;

/** A socket's own address. */
export interface SocketAddress {
  readonly family: "udp4" | "udp6";
  readonly address: string;
  readonly port: number;
}

/** The descriptors of this process's UDP sockets that are bound to the port. */
export function udpSocketsOf(port: number): number[] {
  return readdirSync("/proc/self/fd")
    .map(Number)
    .filter((fd) => isUdpSocketOf(port, fd));
}

/** Whether the descriptor is, still, one of these. */
export function isUdpSocketOf(port: number, fd: number): boolean {
  return socketOption(fd, TYPE) === SOCK_DGRAM && addressOf(fd)?.port === port;
}

/** Null for what has no address of IPv4 or IPv6, or is no socket. */
export function addressOf(fd: number): SocketAddress | null {
  const address = new DataView(new ArrayBuffer(SOCKADDR_BYTES));
  const length = new Uint32Array([SOCKADDR_BYTES]);
  if (libc.getsockname(fd, ptr(address), ptr(length)) !== 0) return null;
  const family = address.getUint16(0, true);
  const port = address.getUint16(2);
  if (family === AF_INET) {
    const bytes = Array.from({ length: 4 }, (_, i) => address.getUint8(4 + i));
    return { family: "udp4", address: bytes.join("."), port };
  }
  if (family !== AF_INET6) return null;
  const groups = Array.from({ length: 8 }, (_, i) => address.getUint16(8 + 2 * i).toString(16));
  return { family: "udp6", address: groups.join(":"), port };
}

/** A system call that failed: `code` is the system's name of the error. */
export class SystemCallError extends Error {
  override readonly name = "SystemCallError";
  readonly code: string;

  constructor(call: string) {
    const code = getSystemErrorName(-read.i32(libc.__errno_location() as Pointer, 0));
    super(`${call}: ${code}`);
    this.code = code;
  }
}

/** @throws SystemCallError: not every socket has every option, and not every process may set it */
export function setSocketOption(fd: number, { level, option }: SocketOption, value: number): void {
  const integer = new Int32Array([value]);
  if (libc.setsockopt(fd, level, option, ptr(integer), integer.byteLength) !== 0) {
    throw new SystemCallError(`setsockopt(${level}, ${option}, ${value})`);
  }
}

/** Null where the socket has no such option, or it is no socket. */
export function socketOption(fd: number, { level, option }: SocketOption): number | null {
  const value = new Int32Array(1);
  const length = new Uint32Array([value.byteLength]);
  return libc.getsockopt(fd, level, option, ptr(value), ptr(length)) === 0 ? (value[0] as number) : null;
}

/**
 * Has a program of the classic BPF say which of the sockets that share the socket's port gets a datagram, in place of
 * the program before it. Needs no privilege.
 * @param program its instructions, each a `struct sock_filter`
 * @throws SystemCallError; ENOMEM where the program is larger than net.core.optmem_max allows
 */
export function attachReuseportProgram(fd: number, program: Uint8Array): void {
  // struct sock_fprog: the count, and behind padding the address.
  const header = new DataView(new ArrayBuffer(16));
  header.setUint16(0, program.byteLength / INSTRUCTION_BYTES, true);
  header.setBigUint64(8, BigInt(ptr(program)), true);
  if (libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, ptr(header), header.byteLength) !== 0) {
    throw new SystemCallError("setsockopt(SO_ATTACH_REUSEPORT_CBPF)");
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
