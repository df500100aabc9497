/** What is set right of the socket that `node:quic` opens, read back from the system. */
import { expect, test } from "bun:test";
import { createPrivateKey } from "node:crypto";
import type { SocketAddress } from "node:net";
import { listen } from "node:quic";
import { mendSocket } from "../../src/listeners/quic/socket.ts";
import { SOCKET_OPTIONS, socketOption, udpSocketsOf } from "../../src/listeners/udp-socket.ts";
import { CERTIFICATE } from "../support/certificate.ts";

test("ICMP errors are no longer reported, and the buffers are larger", async () => {
  const { cert, key } = await CERTIFICATE;
  const endpoint = await listen(() => {}, {
    alpn: ["h3"],
    sni: { "*": { keys: createPrivateKey(key), certs: Buffer.from(cert) } },
    endpoint: { address: "127.0.0.1:0" },
  });
  try {
    const { port } = endpoint.address as SocketAddress;
    const sockets = udpSocketsOf(port);
    expect(sockets).toHaveLength(1);
    const [fd] = sockets as [number];
    const read = () => ({
      errors: socketOption(fd, SOCKET_OPTIONS.ipReceiveErrors),
      received: socketOption(fd, SOCKET_OPTIONS.receiveBuffer) as number,
      sent: socketOption(fd, SOCKET_OPTIONS.sendBuffer) as number,
    });
    const before = read();
    // Where the engine no longer asks for them, the mend is to go.
    expect(before.errors).toBe(1);
    mendSocket(port);
    const after = read();
    expect(after.errors).toBe(0);
    expect(after.received).toBeGreaterThan(before.received);
    expect(after.sent).toBeGreaterThan(before.sent);
  } finally {
    await endpoint.close();
  }
});

test("a port that has no socket is an error that says so", () => {
  expect(() => mendSocket(1)).toThrow("it is not found in /proc");
});
