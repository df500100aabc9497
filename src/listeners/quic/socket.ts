/** What has to be set right of the socket that `node:quic` opens. */
import { SOCKET_OPTIONS, SocketOptions, udpSocketsOn } from "./udp-socket.ts";

/** Bytes that the system keeps of what arrives, and of what leaves; it may allow less. */
const BUFFER_BYTES = 4 * 1024 ** 2;

/**
 * The engine has ICMP errors reported (IP_RECVERR). A client that has vanished then makes the next send fail, to whomever
 * it goes, and the engine sends nothing to anybody for a second. What it takes for the sizes of the socket's buffers has no
 * effect either.
 * @throws Error where the socket is not found, or the system's library
 */
export function mendSocket(port: number): void {
  const sockets = udpSocketsOn(port);
  if (sockets.length === 0) throw new Error("it is not found in /proc");
  const { ipReceiveErrors, ipv6ReceiveErrors, ...buffers } = SOCKET_OPTIONS;
  const sizes = [
    [buffers.receiveBufferForced, buffers.receiveBuffer],
    [buffers.sendBufferForced, buffers.sendBuffer],
  ] as const;
  using options = new SocketOptions();
  for (const fd of sockets) {
    for (const option of [ipReceiveErrors, ipv6ReceiveErrors]) options.set(fd, option, 0);
    // What the system forbids as a whole it may still allow in part.
    for (const [forced, plain] of sizes)
      if (!options.set(fd, forced, BUFFER_BYTES)) options.set(fd, plain, BUFFER_BYTES);
  }
}
