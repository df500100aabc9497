/** The same answers in the event form: run as `bun event.ts CERT KEY`, with one reactor and one worker. */
import { Server } from "../../src/index.ts";
import { jsonOf } from "../content.ts";
import { CHUNK, FILE_VARIABLE, GREETING, JSON_BYTES, STREAM_BYTES } from "./answers.ts";

const [cert, key] = process.argv.slice(2);
if (cert === undefined || key === undefined) throw new Error("usage: bun event.ts CERT KEY");

const server = new Server("127.0.0.1", 0, { mode: "process", workers: 1, reactors: 1, tls: { cert, key } });

const file = process.env[FILE_VARIABLE] ?? "";

const json = jsonOf(JSON_BYTES);

server.on("request", async (request, response) => {
  if (request.server.path_info === "/json") {
    response.header("content-type", "application/json");
    response.end(json);
    return;
  }
  if (request.server.path_info === "/file") {
    await response.sendfile(file);
    return;
  }
  if (request.server.path_info !== "/stream") {
    response.header("content-type", "text/plain");
    response.end(GREETING);
    return;
  }
  response.header("content-type", "application/octet-stream");
  for (let left = STREAM_BYTES; left > 0; left -= CHUNK.byteLength) await response.write(CHUNK);
  response.end();
});

await server.start();
console.log(`tercet: ready on https://localhost:${server.port} (${server.protocols.join(", ")})`);
