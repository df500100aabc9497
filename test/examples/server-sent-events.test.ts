import { expect, setDefaultTimeout, test } from "bun:test";
import { header } from "../support/client.ts";
import { ALL_CLIENTS } from "../support/clients.ts";
import { startExample } from "../support/example.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

const shared = sharedServer(() => startExample("server-sent-events.ts"));

for (const kind of ALL_CLIENTS) {
  test(`${kind.name}: gives the page, and an event a second`, async () => {
    await using client = await kind.open(shared.server);
    const page = await client.request({ path: "/" });
    expect(await page.body.text()).toContain('new EventSource("/clock")');
    const events = await client.request({ path: "/clock" });
    expect(header(events, "content-type")).toBe("text/event-stream");
    let text = "";
    while (text.split("event: tick").length < 3)
      text += Buffer.from((await events.body.read()) ?? []).toString();
    expect(text).toContain(`"protocol":"${kind.protocol}"`);
    events.body.cancel();
  });
}
