/** A value that is cloned, as bytes: the clone, and the pieces that were taken out of it. */

/** A value cannot be cloned, or what came is no clone: the message names the value by its path. */
export class CloneError extends Error {
  readonly code = "TERCET_CLONE";
  override readonly name = "CloneError";
}

/** The clone, then the pieces that were taken out of it. */
export type Parts = readonly Uint8Array[];

/**
 * @param what such as `task: data`, for the error
 * @throws CloneError where it is more than so many bytes
 */
export function checkSize(parts: Parts, maxBytes: number, what: string): void {
  const bytes = sizeOf(parts);
  if (bytes > maxBytes) throw new CloneError(`${what} has ${bytes} bytes, and ${maxBytes} are allowed`);
}

/** Bytes of all the parts. */
export function sizeOf(parts: Parts): number {
  let bytes = 0;
  for (const part of parts) bytes += part.length;
  return bytes;
}

/** All the parts in one piece: u32 how many, u32 the length of each, the parts. Little-endian. */
export function pack(parts: Parts): Buffer {
  const head = 4 + 4 * parts.length;
  const packed = Buffer.allocUnsafe(head + sizeOf(parts));
  packed.writeUInt32LE(parts.length, 0);
  let at = head;
  for (const [index, part] of parts.entries()) {
    packed.writeUInt32LE(part.length, 4 + 4 * index);
    packed.set(part, at);
    at += part.length;
  }
  return packed;
}

/**
 * The parts again, in place.
 * @throws CloneError
 */
export function unpack(packed: Uint8Array): Parts {
  const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.length);
  const count = bytes.length < 4 ? 0 : bytes.readUInt32LE(0);
  const parts: Uint8Array[] = [];
  let at = 4 + 4 * count;
  if (count === 0 || at > bytes.length) throw new CloneError("what came is no clone of a value");
  for (let index = 0; index < count; index++) {
    const end = at + bytes.readUInt32LE(4 + 4 * index);
    if (end > bytes.length) throw new CloneError("what came is no clone of a value");
    parts.push(bytes.subarray(at, end));
    at = end;
  }
  return parts;
}
