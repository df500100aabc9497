/** Which certificate a server shows to a new connection, over TCP and over QUIC. */
import { X509Certificate } from "node:crypto";
import { connect } from "node:quic";
import tls from "node:tls";
import type { Pem } from "./certificate.ts";
import { inTime } from "./poll.ts";

export function fingerprintOf({ cert }: Pem): string {
  return new X509Certificate(cert).fingerprint256;
}

/** The fingerprint of the certificate that a new TLS connection gets. */
export async function shownByTcp(port: number): Promise<string> {
  const socket = tls.connect({ host: "127.0.0.1", port, servername: "localhost", rejectUnauthorized: false });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("secureConnect", resolve).once("error", reject);
  try {
    await inTime("a TLS connection", 5_000, promise);
    return socket.getPeerCertificate().fingerprint256;
  } finally {
    socket.destroy();
  }
}

/** The fingerprint of the certificate that a new QUIC connection gets. */
export async function shownByQuic(port: number): Promise<string> {
  const session = await connect(`127.0.0.1:${port}`, {
    servername: "localhost",
    alpn: "h3",
    verifyPeer: "manual",
  });
  // How it ends does not matter.
  session.closed.catch(() => {});
  try {
    await inTime("a QUIC connection", 5_000, session.opened);
    return session.peerCertificate?.fingerprint256 ?? "none";
  } finally {
    // So that the server learns of it.
    await session.close();
  }
}
