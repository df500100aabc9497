/** `multipart/form-data` as a browser writes it (RFC 7578), or as none would. */
import type { ClientRequest } from "./client.ts";

export interface Part {
  /** The value of `content-disposition`. */
  readonly disposition: string;
  readonly type?: string;
  readonly content: string | Uint8Array;
}

export const BOUNDARY = "----tercet-7MA4YWxkTrZu0gW";
export const MULTIPART = `multipart/form-data; boundary=${BOUNDARY}`;

export function field(name: string, content: string): Part {
  return { disposition: `form-data; name="${name}"`, content };
}

export function file(
  name: string,
  filename: string,
  content: string | Uint8Array,
  type = "text/plain",
): Part {
  return { disposition: `form-data; name="${name}"; filename="${filename}"`, type, content };
}

/** The parts with their delimiters, without the last one. */
export function openMultipart(parts: readonly Part[], boundary = BOUNDARY): Buffer {
  const pieces = parts.flatMap(({ disposition, type, content }) => [
    `--${boundary}\r\nContent-Disposition: ${disposition}\r\n`,
    type === undefined ? "\r\n" : `Content-Type: ${type}\r\n\r\n`,
    content,
    "\r\n",
  ]);
  return Buffer.concat(pieces.map((piece) => Buffer.from(piece as string)));
}

export function multipart(parts: readonly Part[], boundary = BOUNDARY): Buffer {
  return Buffer.concat([openMultipart(parts, boundary), Buffer.from(`--${boundary}--\r\n`)]);
}

/** A request that sends the form. */
export function formRequest(path: string, body: string | Uint8Array, type = MULTIPART): ClientRequest {
  return { method: "POST", path, headers: { "content-type": type }, body };
}
