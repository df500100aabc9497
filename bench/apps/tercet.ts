/** The same answers in the event form: run as `bun tercet.ts CERT KEY OPTIONS`, the last one in JSON. */
import { type HttpRequest, type HttpResponse, Server, type ServerOptions } from "../../src/index.ts";
import { jsonOf } from "../content.ts";
import {
  BODY_LIMIT,
  chunksOf,
  compute,
  countOf,
  FILE_VARIABLE,
  GREETING,
  IDLE_SECONDS,
  JSON_BYTES,
  routeOf,
} from "./answers.ts";

const [cert, key, given = "{}"] = process.argv.slice(2);
if (cert === undefined || key === undefined) throw new Error("usage: bun tercet.ts CERT KEY [OPTIONS]");

const server = new Server("127.0.0.1", 0, {
  workers: 1,
  maxBodyBytes: BODY_LIMIT,
  keepAliveTimeout: IDLE_SECONDS * 1000,
  tls: { cert, key },
  ...(JSON.parse(given) as ServerOptions),
});

const file = process.env[FILE_VARIABLE] ?? "";
const json = jsonOf(JSON_BYTES);

function greet(response: HttpResponse): void {
  response.header("content-type", "text/plain");
  response.end(GREETING);
}

async function answer(request: HttpRequest, response: HttpResponse, path: string): Promise<void> {
  const { name, count } = routeOf(path);
  switch (name) {
    case "file":
      await response.sendfile(file);
      return;
    case "json":
      response.header("content-type", "application/json");
      response.end(json);
      return;
    case "download":
      response.header("content-type", "application/octet-stream");
      for (const chunk of chunksOf(count)) await response.write(chunk);
      response.end();
      return;
    case "upload":
      if ((await countOf(request.body)) !== count) response.status(400);
      greet(response);
      return;
    case "fields":
      response.header("x-padding", "a".repeat(count));
      greet(response);
      return;
    case "compute":
      compute(count);
      greet(response);
      return;
    default:
      response.status(404);
      response.end();
  }
}

server.on("request", (request, response) => {
  const { path_info } = request.server;
  if (path_info !== "/") return answer(request, response, path_info);
  greet(response);
});

await server.start();
console.log(`tercet: ready on https://localhost:${server.port} (${server.protocols.join(", ")})`);
