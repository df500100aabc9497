import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { ALL_CLIENTS } from "../support/clients.ts";
import { startExample } from "../support/example.ts";
import { file, formRequest, multipart } from "../support/multipart.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

const shared = sharedServer(() => startExample("upload.ts"));

for (const kind of ALL_CLIENTS) {
  test(`${kind.name}: gives the page, and stores what it is sent`, async () => {
    await using client = await kind.open(shared.server);
    const page = await client.request({ path: "/" });
    expect(await page.body.text()).toContain('request.open("POST", "/upload")');
    const form = multipart([file("files", "../a.txt", "first"), file("files", "b.txt", "second")]);
    const stored = await client.request(formRequest("/upload", form));
    expect(stored.status).toBe(200);
    const { protocol, files } = await stored.body.json<{
      protocol: string;
      files: { filename: string; size: number; path: string }[];
    }>();
    expect(protocol).toBe(kind.protocol);
    expect(files.map(({ filename, size }) => [filename, size])).toEqual([
      ["a.txt", 5],
      ["b.txt", 6],
    ]);
    expect(files.map(({ path }) => readFileSync(path, "utf8"))).toEqual(["first", "second"]);
    expect((await client.request({ path: "/upload" })).status).toBe(405);
    expect((await client.request({ path: "/other" })).status).toBe(404);
  });
}
