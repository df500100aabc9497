/**
 * The frame FILE: a response whose body the reactor takes from a file, so that its bytes never cross the wire. Behind the
 * head stand the path in UTF-8, the file's identity, and u32 how many pieces: u8 0 and f64 offset, f64 length of a range
 * of the file; or u8 1, u32 length and the bytes themselves.
 */
import type { ExchangeId, FileBody, ResponseHead } from "../exchange.ts";
import { END, FrameError, FrameType, type FrameWriter, type Payload } from "./frames.ts";
import { writeResponseHead } from "./heads.ts";

const RANGE = 0;
const BYTES = 1;

export function writeFile(writer: FrameWriter, id: ExchangeId, head: ResponseHead, body: FileBody): void {
  writer.begin(FrameType.file, END, id);
  writeResponseHead(writer, head);
  const path = Buffer.from(body.path);
  writer.text(path.latin1Slice(0, path.length));
  writer.text(body.identity);
  writer.u32(body.pieces.length);
  for (const piece of body.pieces) {
    if (piece instanceof Uint8Array) {
      writer.u8(BYTES);
      writer.u32(piece.length);
      writer.raw(piece);
    } else {
      writer.u8(RANGE);
      writer.f64(piece.offset);
      writer.f64(piece.length);
    }
  }
  writer.finish();
}

/** What follows the head. */
export function readFile(payload: Payload): FileBody {
  const path = Buffer.from(payload.text(), "latin1").toString();
  const identity = payload.text();
  const pieces: FileBody["pieces"][number][] = [];
  for (let left = payload.u32(); left > 0; left--) {
    const kind = payload.u8();
    if (kind === BYTES) pieces.push(payload.bytes(payload.u32()));
    else if (kind === RANGE) pieces.push({ offset: sizeOf(payload), length: sizeOf(payload) });
    else throw new FrameError(`there is no piece of a file of kind ${kind}`);
  }
  if (payload.left > 0) throw new FrameError(`${payload.left} bytes follow the last piece of a file`);
  return { path, identity, pieces };
}

function sizeOf(payload: Payload): number {
  const size = payload.f64();
  if (!Number.isSafeInteger(size) || size < 0) throw new FrameError(`${size} is no place in a file`);
  return size;
}
