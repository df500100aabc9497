/** The same greeting from @currentspace/http3 (quiche) on Node.js: run as `node currentspace.js CERT KEY`. */
import { readFileSync } from "node:fs";
import { createSecureServer } from "@currentspace/http3";
import { GREETING } from "./answers.ts";

const [cert, key] = process.argv.slice(2);
if (cert === undefined || key === undefined) throw new Error("usage: node currentspace.js CERT KEY");

const server = createSecureServer({ cert: readFileSync(cert), key: readFileSync(key) }, (stream) => {
  stream.respond({ ":status": "200", "content-type": "text/plain" });
  stream.end(GREETING);
});

process.once("SIGTERM", () => process.exit(0));
server.on("listening", () => {
  console.log(`currentspace: ready on https://localhost:${server.address()?.port} (HTTP/3)`);
});
server.listen(0, "127.0.0.1");
