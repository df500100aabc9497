/** Sends a file through a sink, piece by piece at its client's pace. For every engine that cannot do it by itself. */
import type { FileHandle } from "node:fs/promises";
import type { Exchange, FileBody, FileRange, ResponseHead, Sink } from "../exchange.ts";
import { drained } from "../http/body.ts";
import { FileError, identityOf, openFile } from "./open.ts";

/** Bytes read at once. */
const READ_BYTES = 128 * 1024;
/** A body of at most this many bytes is read as a whole and sent with its head. */
export const WHOLE_BYTES = 64 * 1024;

type FileSink = Sink & Pick<Exchange, "aborted">;

/** `Sink.file`, by `respond` or by `head`, `data` and `end`. */
export async function sendFile(sink: FileSink, head: ResponseHead, body: FileBody): Promise<void> {
  const { handle } = await openMeant(body);
  try {
    if (!sink.aborted) await sendOpened(sink, head, body, handle);
  } finally {
    await handle.close();
  }
}

/**
 * Opens the file that is meant.
 * @throws FileError (as a rejection), ESTALE where its path leads to another by now, or it has become too short
 */
export async function openMeant(body: FileBody): Promise<{ handle: FileHandle; size: number }> {
  const { handle, stats } = await openFile(body.path);
  const isMeant = body.identity === identityOf(stats, false) || body.identity === identityOf(stats, true);
  if (isMeant && body.pieces.every((piece) => endOf(piece) <= stats.size)) {
    return { handle, size: Number(stats.size) };
  }
  await handle.close();
  throw changed(body);
}

/** What is open already is sent, and left open. */
export async function sendOpened(
  sink: FileSink,
  head: ResponseHead,
  body: FileBody,
  handle: FileHandle,
): Promise<void> {
  const total = lengthOf(body);
  if (total <= WHOLE_BYTES) {
    const whole = Buffer.allocUnsafeSlow(total);
    let at = 0;
    for await (const chunk of chunksOf(body, handle)) at += chunk.copy(whole, at);
    if (!sink.aborted) sink.respond(head, whole);
    return;
  }
  sink.head(head);
  for await (const chunk of chunksOf(body, handle)) {
    if (sink.aborted) return;
    if (!sink.data(chunk) && !sink.aborted) await drained(sink);
  }
  if (!sink.aborted) sink.end(null);
}

/** Bytes of all pieces. */
function lengthOf(body: FileBody): number {
  return body.pieces.reduce((sum, piece) => sum + piece.length, 0);
}

export function changed(body: FileBody): FileError {
  return new FileError("ESTALE", `${body.path}: the file was changed while it was to be sent`);
}

async function* chunksOf(body: FileBody, handle: FileHandle): AsyncGenerator<Buffer, void> {
  for (const piece of body.pieces) {
    if (piece instanceof Uint8Array) {
      yield Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
      continue;
    }
    for (let at = piece.offset, left = piece.length; left > 0; ) {
      // Its own for each: a sink keeps a chunk until it has been sent.
      const buffer = Buffer.allocUnsafeSlow(Math.min(left, READ_BYTES));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) throw changed(body);
      at += bytesRead;
      left -= bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }
}

function endOf(piece: FileRange | Uint8Array): number {
  return piece instanceof Uint8Array ? 0 : piece.offset + piece.length;
}
