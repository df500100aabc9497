/** `npx tercet serve examples/hono.ts`: a Hono app, unmodified. */
import { Hono } from "hono";
import { getConnInfo } from "hono/bun";
import { logger } from "hono/logger";
import { streamSSE } from "hono/streaming";

const app = new Hono();

app.use(logger());
app.get("/", (c) => c.text(`Hello ${getConnInfo(c).remote.address}!\n`));
app.get("/books/:id", (c) => c.json({ id: c.req.param("id") }));
app.get("/countdown", (c) =>
  streamSSE(c, async (events) => {
    for (let left = 3; left > 0 && !events.aborted; left--) {
      await events.writeSSE({ event: "tick", data: String(left) });
      await events.sleep(100);
    }
  }),
);

export default app;
