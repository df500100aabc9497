/**
 * HTTP/3 by Bun's `node:quic`.
 *
 * Why node:quic: it keeps exactly the connections it is told to, at 30–38 k requests/s.
 * `fetch(url, { protocol: "http3" })` is faster (47–67 k) but opens connections as it likes (one to four for 10 × 10);
 * `@currentspace/http3` makes 10 k, with some streams left waiting for seconds, and `impit` 9 k.
 */
import { createReadStream } from "node:fs";
import { connect, QuicEndpoint, type QuicSession, type QuicStream } from "node:quic";
import { rootCertificates } from "node:tls";
import type { Load } from "../load.ts";
import { type Connection, check, fieldsOf } from "./connection.ts";

/** Any: nothing is verified. Without one, each session reads all of the system's, for 6 ms. */
const ANY_CERTIFICATE = Buffer.from(rootCertificates[0] ?? "");

/** Milliseconds; as long as a server keeps a connection. */
const IDLE_TIMEOUT = 250_000;

/** @param endpoint the UDP socket: of its own, or shared with other connections */
export async function connectHttp3(
  port: number,
  failed: (error: unknown) => void,
  endpoint: QuicEndpoint = new QuicEndpoint(),
): Promise<Connection> {
  const session = await connect(`127.0.0.1:${port}`, {
    alpn: "h3",
    servername: "localhost",
    verifyPeer: "manual",
    ca: ANY_CERTIFICATE,
    endpoint,
    transportParams: { maxIdleTimeout: IDLE_TIMEOUT },
    onstream() {}, // the server's control streams: without a listener requests fail
    onerror: failed,
  });
  session.closed.catch(failed);
  await session.opened;
  return { request: (load) => request(session, port, load), close: () => void session.close() };
}

async function request(session: QuicSession, port: number, load: Load): Promise<void> {
  let status = "none";
  const headers = fieldsOf(port, load);
  const onheaders = (fields: Record<string, unknown>) => {
    status = String(fields[":status"]);
  };
  const { upload } = load;
  let stream: QuicStream;
  if (upload === undefined) {
    stream = await session.createBidirectionalStream({ headers, onheaders });
  } else {
    // Given both at once, it takes no body that is read as it goes.
    stream = await session.createBidirectionalStream({ onheaders });
    stream.sendHeaders(headers);
    stream.setBody(chunksOf(upload.file));
  }
  let received = 0;
  for await (const chunks of stream) for (const chunk of chunks) received += chunk.byteLength;
  check(status, received, load);
}

/** An iterable and no more: it takes a stream for a body that is there already. */
async function* chunksOf(file: string): AsyncGenerator<Uint8Array> {
  yield* createReadStream(file);
}
