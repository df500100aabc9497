/** Enqueues the numbers from one to another that `POST /<from>/<to>` says, and notes each run of it in a file. Its options come by the environment. */
import { appendFileSync } from "node:fs";
import { Server } from "tercet";

const { CHAOS_DURABLE: durable = "", CHAOS_RUNS: runs = "" } = process.env;
const server = new Server("127.0.0.1", 0, {
  tls: false,
  workers: 2,
  // So many attempts as no task is killed in.
  tasks: { workers: 2, concurrency: 8, durable, attempts: 1000, backoff: 50, maxQueue: 100_000 },
});

server.on("task", async (number: number, { id }) => {
  appendFileSync(runs, `begun ${number} ${id}\n`);
  // Long enough that whoever kills a task worker finds tasks in it.
  await Bun.sleep(Math.random() * 100);
  appendFileSync(runs, `done ${number} ${id}\n`);
});

server.on("request", async (request, response) => {
  const [, from, to] = request.server.path_info.split("/").map(Number) as [number, number, number];
  if (!(from <= to)) return response.status(404).end();
  await Promise.all(Array.from({ length: to - from + 1 }, (_, index) => server.defer(from + index)));
  response.end("kept");
});

await server.start();
console.log(`tercet: ready on http://localhost:${server.port} (${server.protocols.join(", ")})`);
