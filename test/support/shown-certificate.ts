/** Which certificate a server shows to a new connection, over TCP and over QUIC; and giving it another one. */
import { X509Certificate } from "node:crypto";
import { writeFileSync } from "node:fs";
import { connect } from "node:quic";
import tls from "node:tls";
import type { Pem } from "./certificate.ts";
import { inTime, until } from "./poll.ts";
import type { TestServer } from "./server.ts";

export function fingerprintOf({ cert }: Pem): string {
  return new X509Certificate(cert).fingerprint256;
}

/** The fingerprint of the certificate that a new TLS connection gets. */
export async function shownByTcp(port: number, servername = "localhost"): Promise<string> {
  const socket = tls.connect({ host: "127.0.0.1", port, servername, rejectUnauthorized: false });
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
export async function shownByQuic(port: number, servername = "localhost"): Promise<string> {
  const session = await connect(`127.0.0.1:${port}`, {
    servername,
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

/** Puts the certificate into the files of a server of `fixtures/certificate.ts`, and has it read them. @returns what came of it */
export function replaceCertificate(server: TestServer, { cert, key }: Pem): Promise<string> {
  writeFileSync(server.scratch.cert, cert);
  writeFileSync(server.scratch.key, key);
  return reloadCertificates(server);
}

/** @returns what came of it */
export async function reloadCertificates(server: TestServer): Promise<string> {
  const said = server.stdout.length;
  server.kill("SIGWINCH");
  return until("a word of the certificate", 10_000, () => {
    return /^certificate: (.*)$/m.exec(server.stdout.slice(said))?.[1];
  });
}
