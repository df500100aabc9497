/** Bodies as bytes. */
import type { RequestBody, Sink } from "../exchange.ts";

const EMPTY = new Uint8Array(0);

/** Reads a body to its end. Rejects as its `read` does. */
export async function collect(body: Pick<RequestBody, "read">): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for (let chunk = await body.read(); chunk !== null; chunk = await body.read()) chunks.push(chunk);
  if (chunks.length === 0) return EMPTY;
  return chunks.length === 1 ? (chunks[0] as Uint8Array) : Buffer.concat(chunks);
}

/** A text as UTF-8; bytes as they are. Throws a TypeError that names what else it was given. */
export function toBytes(chunk: string | Uint8Array | ArrayBuffer): Uint8Array {
  if (typeof chunk === "string") return Buffer.from(chunk);
  if (chunk instanceof Uint8Array) return chunk;
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk);
  throw new TypeError(`a body is made of strings and bytes, not of ${typeof chunk}`);
}

export function byteLength(body: Uint8Array | string): number {
  return typeof body === "string" ? Buffer.byteLength(body) : body.length;
}

/** Bytes that a body has at most: each character of a text takes three of UTF-8 at most. */
export function byteBound(body: Uint8Array | string): number {
  return typeof body === "string" ? body.length * 3 : body.length;
}

/** Resolves when a sink that answered false to `data` takes more, or its client has gone. */
export function drained(sink: Sink): Promise<void> {
  return new Promise((resolve) => {
    sink.onDrain = resolve;
  });
}
