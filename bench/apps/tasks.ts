/** Measures from inside of a worker what tasks, tables and messages cost: `GET /<what>` answers with a list of milliseconds. */
import { Server } from "tercet";

const { BENCH_TASKS: tasks = "{}" } = process.env;
const server = new Server("127.0.0.1", 0, { tls: false, workers: 1, tasks: JSON.parse(tasks) });
const table = server.table("bench", {
  rows: 1000,
  columns: { count: "integer", name: { type: "string", bytes: 100 } },
});
const heard = { resolve: () => {} };

server.on("task", (data) => (data.echo === true ? data.value : null));
server.on("message", () => heard.resolve());

const DATA = { echo: false, user: 17, name: "somebody", tags: ["a", "b"] };
const BUFFER = { echo: true, value: Buffer.alloc(1024 * 1024) };

function broadcast(bytes: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  heard.resolve = resolve;
  server.broadcast(Buffer.alloc(bytes));
  return promise;
}

/** What is done once; `times` of them at once. */
const CALLS: Readonly<Record<string, (times: number) => Promise<unknown>>> = {
  incr: (times) => Promise.all(Array.from({ length: times }, () => table.incr("a", "count"))),
  get: (times) => Promise.all(Array.from({ length: times }, () => table.get("a"))),
  task: (times) => Promise.all(Array.from({ length: times }, () => server.task(DATA))),
  defer: (times) => Promise.all(Array.from({ length: times }, () => server.defer(DATA))),
  buffer: () => server.task(BUFFER),
  broadcast: broadcast,
};

server.on("request", async (request, response) => {
  const call = CALLS[request.server.path_info.slice(1)];
  if (call === undefined) return response.status(404).end();
  const times = Number(request.get.times);
  const taken: number[] = [];
  for (let round = 0; round < Number(request.get.rounds); round++) {
    const began = performance.now();
    await call(times);
    taken.push(performance.now() - began);
  }
  response.json(taken);
});

await server.start();
console.log(server.port);
