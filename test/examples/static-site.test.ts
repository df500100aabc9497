import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { header } from "../support/client.ts";
import { ALL_CLIENTS } from "../support/clients.ts";
import { startExample } from "../support/example.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

describe("examples/static-site.ts", () => {
  const shared = sharedServer(() => startExample("static-site.ts"));

  for (const kind of ALL_CLIENTS) {
    test(`${kind.name}: the page with all it links, the handler behind it, and a page for what is not there`, async () => {
      await using client = await kind.open(shared.server);
      const page = await client.request({ path: "/" });
      expect(header(page, "content-type")).toBe("text/html; charset=utf-8");
      expect(header(page, "cache-control")).toBe("max-age=60");
      const links = [...(await page.body.text()).matchAll(/(?:href|src)="(\/[\w.]+)"/g)].map(
        ([, path]) => path,
      );
      expect(links).toEqual(["/mark.svg", "/style.css", "/mark.svg", "/page.js"]);
      for (const path of links) {
        const linked = await client.request({ path: path as string });
        expect(linked.status).toBe(200);
        expect((await linked.body.bytes()).length).toBeGreaterThan(0);
      }
      const now = await client.request({ path: "/now" });
      expect(await now.body.json<unknown>()).toEqual({ protocol: kind.protocol });
      const lost = await client.request({ path: "/nothing-here" });
      expect(lost.status).toBe(404);
      expect(await lost.body.text()).toContain("<h1>Not here</h1>");
    });
  }
});
