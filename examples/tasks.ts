/** `npx bun examples/tasks.ts`: primes are counted in a task worker, and the page that asks stays quick. A table counts the answers. */
import { Server } from "tercet";

const server = new Server("::", Number(process.env.PORT ?? 9501), { tasks: { workers: 2 } });
const answers = server.table("answers", { rows: 1, columns: { count: "integer" } });

server.on("task", ({ below }: { below: number }) => {
  const isComposite = new Uint8Array(below);
  let primes = 0;
  for (let number = 2; number < below; number++) {
    if (isComposite[number] === 1) continue;
    primes++;
    for (let multiple = number * number; multiple < below; multiple += number) isComposite[multiple] = 1;
  }
  return primes;
});

server.on("request", async (request, response) => {
  const below = Number(request.get.below ?? 1_000_000);
  if (!Number.isInteger(below) || below < 0 || below > 100_000_000)
    return response.status(400).end("?below=1000000\n");
  const primes = await server.task({ below }, { timeout: 10_000, idempotent: true });
  const count = await answers.incr("all", "count");
  response.end(`${primes} primes below ${below}, answer ${count}\n`);
});

await server.start();
console.log(`tercet: ready on https://localhost:${server.port} (${server.protocols.join(", ")})`);
