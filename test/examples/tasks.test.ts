import { expect, setDefaultTimeout, test } from "bun:test";
import { HTTP2 } from "../support/clients.ts";
import { startExample } from "../support/example.ts";

setDefaultTimeout(60_000);

test("examples/tasks.ts: counts primes, and its answers", async () => {
  await using server = await startExample("tasks.ts");
  await using client = await HTTP2.open(server);
  const textOf = async (path: string) => (await client.request({ path })).body.text();
  expect(await textOf("/?below=1000")).toBe("168 primes below 1000, answer 1\n");
  expect(await textOf("/")).toBe("78498 primes below 1000000, answer 2\n");
  expect((await client.request({ path: "/?below=x" })).status).toBe(400);
});
