/**
 * The yardstick: hello.ts in a bare Bun.serve, one process. Run as `bun raw.ts CERT KEY`; it prints a line with its
 * port when it is ready and stops at SIGTERM.
 */
import { BODY_LIMIT, IDLE_SECONDS } from "./answers.ts";
import app from "./hello.ts";

const [cert, key] = process.argv.slice(2);
if (cert === undefined || key === undefined) throw new Error("usage: bun raw.ts CERT KEY");

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  http3: true,
  http2: true,
  development: false,
  idleTimeout: IDLE_SECONDS,
  maxRequestBodySize: BODY_LIMIT,
  tls: { cert: Bun.file(cert), key: Bun.file(key) },
  fetch: app.fetch,
  error: () => new Response(null, { status: 500 }),
});

process.once("SIGTERM", () => server.stop(true));
console.log(`raw: ready on https://localhost:${server.port} (HTTP/1.1, HTTP/2, HTTP/3)`);
