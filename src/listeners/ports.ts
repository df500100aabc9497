/** Whether a port is free, asked by taking it for a moment, alone. Rejects with the system's error where it is not. */
import { createSocket } from "node:dgram";
import { createServer } from "node:net";

export function bindTcp(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen({ host, port }, () => server.close(() => resolve()));
  });
}

export function bindUdp(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
    socket.once("error", reject);
    socket.bind({ address: host, port }, () => socket.close(() => resolve()));
  });
}
