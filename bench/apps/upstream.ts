/** What Caddy has behind it: the JSON of event.ts over plain HTTP/1.1, not compressed. It prints its port. */
import { jsonOf } from "../content.ts";
import { JSON_BYTES } from "./answers.ts";

const json = jsonOf(JSON_BYTES);
const headers = { "content-type": "application/json" };
const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response(json, { headers }) });
process.once("SIGTERM", () => server.stop(true));
console.log(server.port);
