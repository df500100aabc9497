/** `npx tercet serve examples/fetch.ts`: the web-standard form, with streams, and work that goes on after a response. */
import type { FetchContext, FetchEnv } from "tercet";

const visits = new Map<string, number>();

export default {
  async fetch(request: Request, env: FetchEnv, context: FetchContext): Promise<Response> {
    const { pathname } = new URL(request.url);
    switch (`${request.method} ${pathname}`) {
      case "GET /":
        context.waitUntil(count(env.remoteAddress));
        return new Response(`Hello ${env.remoteAddress}, over ${env.protocol}!\n`);
      case "GET /visits":
        return Response.json(Object.fromEntries(visits));
      case "POST /shout":
        // Piece by piece: neither side holds more than a few of them, whatever the size.
        return new Response(request.body?.pipeThrough(shout()) ?? null);
      default:
        return new Response("There is GET /, GET /visits and POST /shout.\n", { status: 404 });
    }
  },
};

async function count(address: string): Promise<void> {
  visits.set(address, (visits.get(address) ?? 0) + 1);
}

function shout(): TransformStream<Uint8Array, Uint8Array> {
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  return new TransformStream({
    transform(chunk, out) {
      out.enqueue(encoder.encode(decoder.decode(chunk, { stream: true }).toUpperCase()));
    },
  });
}
