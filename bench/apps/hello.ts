/** The answers in the fetch form: `tercet serve` serves this file, raw.ts hands the same function to Bun.serve. */
import { CHUNK, FILE_VARIABLE, GREETING, STREAM_BYTES } from "./answers.ts";

/** Made chunk by chunk as the server asks for it, so the client's pace is the pace. */
function stream(): ReadableStream<Uint8Array> {
  let left = STREAM_BYTES / CHUNK.byteLength;
  return new ReadableStream({
    pull(controller) {
      controller.enqueue(CHUNK);
      left -= 1;
      if (left === 0) controller.close();
    },
  });
}

export default {
  fetch(request: Request): Response {
    if (request.url.endsWith("/stream")) {
      return new Response(stream(), { headers: { "content-type": "application/octet-stream" } });
    }
    if (request.url.endsWith("/file")) return new Response(Bun.file(process.env[FILE_VARIABLE] ?? ""));
    return new Response(GREETING, { headers: { "content-type": "text/plain" } });
  },
};
