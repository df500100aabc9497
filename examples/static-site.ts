/**
 * A static site: the reactor answers what is in `public/`, and the handler what is not. `PORT` changes the port; run as
 * `npx bun examples/static-site.ts`.
 */
import { join } from "node:path";
import { Server } from "tercet";

const root = join(import.meta.dirname, "public");
const server = new Server("::", Number(process.env.PORT ?? 9501), { static: { root, maxAge: 60 } });

server.on("request", async (request, response) => {
  if (request.server.path_info === "/now") {
    response.header("cache-control", "no-store").json({ protocol: request.server.server_protocol });
    return;
  }
  response.status(404);
  await response.sendfile(join(root, "404.html"));
});

await server.start();
console.log(`tercet: ready on https://localhost:${server.port} (${server.protocols.join(", ")})`);
