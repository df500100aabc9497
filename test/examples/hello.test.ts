import { expect, setDefaultTimeout, test } from "bun:test";
import { ALL_CLIENTS } from "../support/clients.ts";
import { startExample } from "../support/example.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

const shared = sharedServer(() => startExample("hello.ts"));

for (const kind of ALL_CLIENTS) {
  test(`${kind.name}: says hello, and by which protocol`, async () => {
    await using client = await kind.open(shared.server);
    const response = await client.request({ path: "/" });
    expect([response.status, await response.body.text()]).toEqual([200, `Hello from ${kind.protocol}!\n`]);
  });
}

test("prints a command to try for each protocol", async () => {
  for (const flag of ["--http3-only", "--http2", "--http1.1"]) {
    await shared.server.prints(`curl -k ${flag} https://localhost:${shared.server.port}`);
  }
});
