/**
 * The project's own load generator, for machines without h2load: a process of its own, on Bun's `node:quic`. Run as
 * `bun generator.ts PORT PATH CONNECTIONS STREAMS REQUESTS BYTES [ACCEPT-ENCODING]`; its last words are one line of JSON on stdout.
 *
 * Why node:quic: it keeps exactly the connections it is told to, each on a UDP socket of its own, at 30–38 k requests/s.
 * `fetch(url, { protocol: "http3" })` is faster (47–67 k) but opens connections as it likes (one to four for 10 × 10);
 * `@currentspace/http3` makes 10 k, with some streams left waiting for seconds, and `impit` 9 k.
 */
import { connect, QuicEndpoint, type QuicSession } from "node:quic";
import { percentile } from "./statistics.ts";

export interface GeneratorReport {
  readonly failures: number;
  /** What the first failure was, or null. */
  readonly failure: string | null;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly p50: number;
  readonly p99: number;
}

async function open(port: number, failed: (error: unknown) => void): Promise<QuicSession> {
  const session = await connect(`127.0.0.1:${port}`, {
    alpn: "h3",
    servername: "localhost",
    verifyPeer: "manual",
    endpoint: new QuicEndpoint(),
    onstream() {}, // the server's control streams: without a listener requests fail
    onerror: failed,
  });
  session.closed.catch(failed);
  await session.opened;
  return session;
}

/** One request, to the end of its answer. @throws where that is not 2xx with a body of the expected length. */
async function request(session: QuicSession, headers: Record<string, string>, bytes: number): Promise<void> {
  let status = "none";
  const stream = await session.createBidirectionalStream({
    headers,
    onheaders(fields) {
      status = String(fields[":status"]);
    },
  });
  let received = 0;
  for await (const chunks of stream) for (const chunk of chunks) received += chunk.byteLength;
  if (!status.startsWith("2") || received !== bytes) {
    throw new Error(`status ${status} with ${received} of ${bytes} bytes`);
  }
}

async function generate(
  port: number,
  path: string,
  connections: number,
  streams: number,
  requests: number,
  bytes: number,
  acceptEncoding: string,
): Promise<GeneratorReport> {
  const latencies = new Float64Array(requests);
  let answered = 0;
  let failures = 0;
  let failure: string | null = null;
  const failed = (error: unknown) => {
    failures += 1;
    failure ??= String(error);
  };
  const sessions = await Promise.all(Array.from({ length: connections }, () => open(port, failed)));
  const authority = `localhost:${port}`;
  const headers: Record<string, string> = {
    ":method": "GET",
    ":scheme": "https",
    ":authority": authority,
    ":path": path,
  };
  if (acceptEncoding !== "") headers["accept-encoding"] = acceptEncoding;

  const cpuBefore = process.cpuUsage();
  const started = performance.now();
  const load = async (session: QuicSession, share: { left: number }) => {
    while (share.left > 0 && failures === 0) {
      share.left -= 1;
      const sent = performance.now();
      try {
        await request(session, headers, bytes);
        latencies[answered++] = performance.now() - sent;
      } catch (error) {
        failed(error);
      }
    }
  };
  await Promise.all(
    sessions.flatMap((session, index) => {
      const share = { left: Math.floor((requests + index) / connections) };
      return Array.from({ length: streams }, () => load(session, share));
    }),
  );
  const seconds = (performance.now() - started) / 1000;
  const cpu = process.cpuUsage(cpuBefore);
  await Promise.allSettled(sessions.map((session) => session.close()));

  const sorted = latencies.subarray(0, answered).sort();
  return {
    failures,
    failure,
    seconds,
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
  };
}

if (import.meta.main) {
  const [port, path, connections, streams, requests, bytes, acceptEncoding = ""] = process.argv.slice(2);
  if (path === undefined)
    throw new Error("usage: bun generator.ts PORT PATH CONNECTIONS STREAMS REQUESTS BYTES [ACCEPT-ENCODING]");
  const report = await generate(
    Number(port),
    path,
    Number(connections),
    Number(streams),
    Number(requests),
    Number(bytes),
    acceptEncoding,
  );
  console.log(JSON.stringify(report));
  process.exit(0); // not waiting for the sessions' draining periods
}
