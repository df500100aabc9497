/** What has to be set right of the socket that `node:quic` opens. To be imported where it is used, as udp-socket.ts is. */
import {
  SOCKET_OPTIONS,
  type SocketOption,
  SystemCallError,
  setSocketOption,
  udpSocketsOf,
} from "../udp-socket.ts";

/** Bytes that the system keeps of what arrives, and of what leaves; it may allow less. */
const BUFFER_BYTES = 4 * 1024 ** 2;

/**
 * The engine has ICMP errors reported (IP_RECVERR). A client that has vanished then makes the next send fail, to whomever
 * it goes, and the engine sends nothing to anybody for a second. What it takes for the sizes of the socket's buffers has no
 * effect either.
 * @throws Error where the socket is not found
 */
export function mendSocket(port: number): void {
  const sockets = udpSocketsOf(port);
  if (sockets.length === 0) throw new Error("it is not found in /proc");
  const { ipReceiveErrors, ipv6ReceiveErrors, ...buffers } = SOCKET_OPTIONS;
  const sizes = [
    [buffers.receiveBufferForced, buffers.receiveBuffer],
    [buffers.sendBufferForced, buffers.sendBuffer],
  ] as const;
  for (const fd of sockets) {
    for (const option of [ipReceiveErrors, ipv6ReceiveErrors]) set(fd, option, 0);
    // What the system forbids as a whole it may still allow in part.
    for (const [forced, plain] of sizes) if (!set(fd, forced, BUFFER_BYTES)) set(fd, plain, BUFFER_BYTES);
  }
}

/** True where the system took it. */
function set(fd: number, option: SocketOption, value: number): boolean {
  try {
    setSocketOption(fd, option, value);
    return true;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return false;
  }
}
