/**
 * The yardstick of the engine quic: hello.ts's answer from a bare `node:quic` server, in its callback, one process. Run as
 * `bun node-quic.ts CERT KEY`; it prints a line with its port when it is ready and stops at SIGTERM. Its socket is mended as
 * Tercet's is: clients that vanish would stall it for seconds, and the figures would be of that.
 */
import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import type { SocketAddress } from "node:net";
import { listen } from "node:quic";
import { mendSocket } from "../../src/listeners/quic/socket.ts";
import { GREETING } from "./answers.ts";

const [cert, key] = process.argv.slice(2);
if (cert === undefined || key === undefined) throw new Error("usage: bun node-quic.ts CERT KEY");

const body = Buffer.from(GREETING);
const headers = { ":status": "200", "content-type": "text/plain", "content-length": String(body.length) };

const endpoint = await listen(
  (session) => {
    // What a client does wrong ends its own connection.
    session.closed.catch(() => {});
  },
  {
    alpn: ["h3"],
    sni: { "*": { keys: createPrivateKey(readFileSync(key)), certs: readFileSync(cert) } },
    endpoint: { address: "127.0.0.1:0" },
    onstream: (stream) => {
      stream.closed.catch(() => {});
    },
    onerror: () => {},
    onheaders() {
      this.sendHeaders(headers);
      this.setBody(body);
    },
  },
);
const { port } = endpoint.address as SocketAddress;
mendSocket(port);

process.once("SIGTERM", () => endpoint.close());
console.log(`node-quic: ready on https://localhost:${port} (HTTP/3)`);
