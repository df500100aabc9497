/** The answers in the fetch form: `tercet serve` serves this file, raw.ts hands the same function to Bun.serve. */
import { chunksOf, compute, countOf, FILE_VARIABLE, GREETING, routeOf } from "./answers.ts";

/** Made chunk by chunk as the server asks for it, so the client's pace is the pace. */
function stream(bytes: number): ReadableStream<Uint8Array> {
  const chunks = chunksOf(bytes);
  return new ReadableStream({
    pull(controller) {
      const { value } = chunks.next();
      if (value === undefined) controller.close();
      else controller.enqueue(value);
    },
  });
}

const greet = (fields: Record<string, string> = {}) =>
  new Response(GREETING, { headers: { "content-type": "text/plain", ...fields } });

function answer(request: Request): Response | Promise<Response> {
  const { name, count } = routeOf(request.url);
  switch (name) {
    case "file":
      return new Response(Bun.file(process.env[FILE_VARIABLE] ?? ""));
    case "download":
      return new Response(stream(count), { headers: { "content-type": "application/octet-stream" } });
    case "upload":
      return countOf(request.body).then((bytes) =>
        bytes === count ? greet() : new Response(null, { status: 400 }),
      );
    case "fields":
      return greet({ "x-padding": "a".repeat(count) });
    case "compute":
      compute(count);
      return greet();
    default:
      return new Response(null, { status: 404 });
  }
}

export default {
  fetch(request: Request): Response | Promise<Response> {
    if (!request.url.endsWith("/")) return answer(request);
    return new Response(GREETING, { headers: { "content-type": "text/plain" } });
  },
};
