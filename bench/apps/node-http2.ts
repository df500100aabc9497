/** The yardstick over TCP: a bare node:http2 server that speaks HTTP/1.1, too. Run as `bun node-http2.ts CERT KEY`. */
import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { GREETING } from "./answers.ts";

const [cert, key] = process.argv.slice(2);
if (cert === undefined || key === undefined) throw new Error("usage: bun node-http2.ts CERT KEY");

const options = { cert: readFileSync(cert), key: readFileSync(key), allowHTTP1: true };
const server = createSecureServer(options, (_, response) => {
  response.setHeader("content-type", "text/plain");
  response.setHeader("content-length", GREETING.length);
  response.end(GREETING);
});

process.once("SIGTERM", () => process.exit(0));
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  console.log(`node:http2: ready on https://localhost:${port} (HTTP/1.1, HTTP/2)`);
});
