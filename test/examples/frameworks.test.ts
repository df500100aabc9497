import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { ALL_CLIENTS } from "../support/clients.ts";
import { startExample } from "../support/example.ts";
import { ROOT, startCli } from "../support/server.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

describe("examples/fetch.ts", () => {
  const shared = sharedServer(() => startCli(join(ROOT, "examples/fetch.ts")));

  for (const kind of ALL_CLIENTS) {
    test(`${kind.name}: greets, counts, and shouts what is sent`, async () => {
      await using client = await kind.open(shared.server);
      const hello = await client.request({ path: "/" });
      expect(await hello.body.text()).toBe(`Hello 127.0.0.1, over ${kind.protocol}!\n`);
      const visits = await client.request({ path: "/visits" });
      expect((await visits.body.json<Record<string, number>>())["127.0.0.1"]).toBeGreaterThan(0);
      const shouted = await client.request({ path: "/shout", body: "quiet ".repeat(20_000) });
      expect(await shouted.body.text()).toBe("QUIET ".repeat(20_000));
    });
  }
});

describe("examples/hono.ts", () => {
  const shared = sharedServer(() => startCli(join(ROOT, "examples/hono.ts")));

  for (const kind of ALL_CLIENTS) {
    test(`${kind.name}: greets, routes, and counts down`, async () => {
      await using client = await kind.open(shared.server);
      const hello = await client.request({ path: "/" });
      expect(await hello.body.text()).toBe("Hello 127.0.0.1!\n");
      const book = await client.request({ path: "/books/7" });
      expect(await book.body.json<unknown>()).toEqual({ id: "7" });
      const events = await client.request({ path: "/countdown" });
      expect((await events.body.text()).match(/data: (\d)/g)).toEqual(["data: 3", "data: 2", "data: 1"]);
    });
  }
});

describe("examples/express.ts", () => {
  const shared = sharedServer(() => startExample("express.ts"));

  for (const kind of ALL_CLIENTS) {
    test(`${kind.name}: counts visits by a cookie, sums, and serves its own source`, async () => {
      await using client = await kind.open(shared.server);
      const visit = await client.request({ path: "/", headers: { cookie: "visits=4" } });
      expect(await visit.body.text()).toStartWith("Visit 5 by ");
      expect([visit.headers["set-cookie"]].flat()).toEqual([
        "visits=5; Path=/; HttpOnly; Secure; SameSite=Lax",
      ]);
      const headers = { "content-type": "application/json" };
      const sum = await client.request({ path: "/sum", headers, body: "[1,2,3]" });
      expect(await sum.body.json<unknown>()).toEqual({ sum: 6 });
      const source = await client.request({ path: "/source/express.ts" });
      expect(await source.body.text()).toContain("nodeHandler(app)");
    });
  }
});
