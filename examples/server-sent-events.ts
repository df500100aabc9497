/** `npx bun examples/server-sent-events.ts`: a page with a clock that the server pushes, one event a second. */
import { Server } from "tercet";

const server = new Server("::", Number(process.env.PORT ?? 9501));

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Server-sent events</title>
<style>
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 12vh auto; padding: 0 1rem; color: #1b1b1f }
  time { display: block; font: 600 4rem/1.2 ui-monospace, monospace; font-variant-numeric: tabular-nums }
  .state { color: #5b5b66 }
</style>
<h1>The server's clock</h1>
<time>--:--:--</time>
<p class="state">connecting…</p>
<script>
  const state = document.querySelector(".state");
  const events = new EventSource("/clock");
  events.onopen = () => (state.textContent = "connected");
  events.onerror = () => (state.textContent = "lost: connecting again…");
  events.addEventListener("tick", ({ data }) => {
    const { time, protocol } = JSON.parse(data);
    document.querySelector("time").textContent = time;
    state.textContent = "connected over " + protocol;
  });
</script>
</html>
`;

server.on("request", (request, response) => {
  const { path_info, server_protocol } = request.server;
  if (path_info === "/") return response.header("content-type", "text/html; charset=utf-8").end(PAGE);
  if (path_info !== "/clock") return response.status(404).end("There is / and /clock.\n");
  const events = response.sse();
  const tick = () => {
    const time = new Date().toISOString().slice(11, 19);
    return events.send({ event: "tick", retry: 1000, data: { time, protocol: server_protocol } });
  };
  void tick();
  const timer = setInterval(tick, 1000);
  events.closed.then(() => clearInterval(timer));
});

await server.start();
console.log(`tercet: ready on https://localhost:${server.port} (${server.protocols.join(", ")})`);
