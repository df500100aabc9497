/** What nginx and Caddy have behind them: a bare node:http server, of plain HTTP/1.1. It runs on Node.js and on Bun. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { jsonOf } from "../content.ts";
import { GREETING, JSON_BYTES } from "./answers.ts";

const json = jsonOf(JSON_BYTES);

const server = createServer((request, response) => {
  const [type, body] = request.url === "/json" ? ["application/json", json] : ["text/plain", GREETING];
  response.setHeader("content-type", type);
  response.setHeader("content-length", body.length);
  response.end(body);
});
// A proxy keeps its connections; one that is closed under it would cost a request.
server.keepAliveTimeout = 0;

process.once("SIGTERM", () => process.exit(0));
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  console.log(`node:http: ready on http://localhost:${port}`);
});
