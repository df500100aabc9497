/**
 * `npx bun examples/upload.ts`: a page that uploads files with a progress bar. They are streamed to the disk as they come,
 * and kept in a folder until the server stops. `PORT` changes the port.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HttpError, Server } from "tercet";

const MIB = 1024 * 1024;

const server = new Server("::", Number(process.env.PORT ?? 9501), {
  maxBodyBytes: 2048 * MIB,
  upload: { maxFiles: 10 },
});

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Upload</title>
<style>
  * { box-sizing: border-box }
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 10vh auto; padding: 0 1rem; color: #1b1b1f }
  h1 { font-size: 1.6rem; margin: 0 0 1.5rem }
  form { display: flex; gap: .75rem; flex-wrap: wrap }
  input { flex: 1 1 16rem; min-width: 0; padding: .5rem; border: 1px solid #c9c9d1; border-radius: .5rem; font: inherit }
  input::file-selector-button { font: inherit; margin-right: .75rem; padding: .25rem .75rem; border: 0; border-radius: .3rem; background: #ececf1; cursor: pointer }
  button { font: inherit; font-weight: 600; padding: .5rem 1.25rem; border: 0; border-radius: .5rem; background: #2f5bd0; color: #fff; cursor: pointer }
  button:disabled { background: #a9b4d0; cursor: default }
  progress { display: block; width: 100%; height: .75rem; margin: 1.5rem 0 .25rem; accent-color: #2f5bd0 }
  .state { margin: 0 0 1.5rem; color: #5b5b66; font-variant-numeric: tabular-nums }
  .state.failed { color: #b3261e }
  table { width: 100%; border-collapse: collapse }
  th { text-align: left; font-weight: 600; color: #5b5b66 }
  th, td { padding: .4rem 0; border-bottom: 1px solid #e4e4ea; overflow-wrap: anywhere }
  th:last-child, td:last-child { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
</style>
<h1>Upload files</h1>
<form>
  <input type="file" name="files" aria-label="Files" multiple required>
  <button>Upload</button>
</form>
<progress max="1" value="0"></progress>
<p class="state" role="status">Choose up to 10 files, 2 GiB in all.</p>
<table hidden>
  <thead><tr><th>Stored file<th>Size</thead>
  <tbody></tbody>
</table>
<script>
  const form = document.querySelector("form");
  const button = document.querySelector("button");
  const progress = document.querySelector("progress");
  const state = document.querySelector(".state");
  const table = document.querySelector("table");

  const units = ["bytes", "KiB", "MiB", "GiB"];
  function sized(bytes) {
    let unit = 0;
    for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
    return (unit === 0 ? bytes : bytes.toFixed(1)) + " " + units[unit];
  }

  function say(text, failed = false) {
    state.textContent = text;
    state.classList.toggle("failed", failed);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    // fetch() does not tell how far an upload is; XMLHttpRequest does.
    const request = new XMLHttpRequest();
    request.upload.onprogress = ({ loaded, total }) => {
      progress.value = loaded / total;
      say(sized(loaded) + " of " + sized(total));
    };
    request.onloadend = () => {
      button.disabled = false;
      if (request.status !== 200) return say(request.responseText || "The connection was lost.", true);
      const { protocol, files } = JSON.parse(request.responseText);
      progress.value = 1;
      say("Stored, over " + protocol + ".");
      for (const { filename, size } of files) {
        const row = table.tBodies[0].insertRow();
        row.insertCell().textContent = filename;
        row.insertCell().textContent = sized(size);
      }
      table.hidden = false;
      form.reset();
    };
    request.open("POST", "/upload");
    request.send(new FormData(form));
    button.disabled = true;
    progress.value = 0;
  });
</script>
</html>
`;

let folder = "";
server.on("workerStart", async () => {
  folder = await mkdtemp(join(tmpdir(), "tercet-kept-"));
});
// This is only an example.
server.on("workerStop", () => rm(folder, { recursive: true }));

server.on("request", async (request, response) => {
  const { path_info, request_method } = request.server;
  if (path_info === "/") {
    response.header("content-type", "text/html; charset=utf-8").end(PAGE);
    return;
  }
  if (path_info !== "/upload") throw new HttpError(404, "there is / and /upload");
  if (request_method !== "POST") {
    response.status(405).header("allow", "POST").end();
    return;
  }
  const { files } = await request.form();
  // The client's name for a file is shown, and never used as a path.
  for (const file of files) await file.moveTo(join(folder, crypto.randomUUID()));
  response.json({
    protocol: request.protocol,
    files: files.map(({ filename, size, path }) => ({ filename, size, path })),
  });
});

await server.start();
console.log(`tercet: ready on https://localhost:${server.port} (${server.protocols.join(", ")})`);
