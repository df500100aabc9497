/** Frames and field sections of HTTP/3, by hand: RFC 9114 §7, RFC 9204 §4.5. What is wrong with them is up to the test. */

export type Field = readonly [name: string, value: string];

export const FrameType = {
  data: 0x00,
  headers: 0x01,
  cancelPush: 0x03,
  settings: 0x04,
  pushPromise: 0x05,
  goaway: 0x07,
  maxPushId: 0x0d,
  priorityUpdate: 0xf0700,
  priorityUpdatePush: 0xf0701,
} as const;

/** RFC 9114 §6.2, RFC 9204 §4.2. */
export const StreamType = {
  control: 0x00,
  push: 0x01,
  encoder: 0x02,
  decoder: 0x03,
  reserved: 0x21,
} as const;

export const Setting = {
  qpackMaxTableCapacity: 0x01,
  maxFieldSectionSize: 0x06,
  qpackBlockedStreams: 0x07,
} as const;

/** RFC 9114 §8.1, RFC 9204 §6. */
const ERRORS: Readonly<Record<number, string>> = {
  256: "H3_NO_ERROR",
  257: "H3_GENERAL_PROTOCOL_ERROR",
  258: "H3_INTERNAL_ERROR",
  259: "H3_STREAM_CREATION_ERROR",
  260: "H3_CLOSED_CRITICAL_STREAM",
  261: "H3_FRAME_UNEXPECTED",
  262: "H3_FRAME_ERROR",
  263: "H3_EXCESSIVE_LOAD",
  264: "H3_ID_ERROR",
  265: "H3_SETTINGS_ERROR",
  266: "H3_MISSING_SETTINGS",
  267: "H3_REQUEST_REJECTED",
  268: "H3_REQUEST_CANCELLED",
  269: "H3_REQUEST_INCOMPLETE",
  270: "H3_MESSAGE_ERROR",
  271: "H3_CONNECT_ERROR",
  512: "QPACK_DECOMPRESSION_FAILED",
  513: "QPACK_ENCODER_STREAM_ERROR",
  514: "QPACK_DECODER_STREAM_ERROR",
};

export function errorName(code: number): string {
  return ERRORS[code] ?? `0x${code.toString(16)}`;
}

/** A number in the form of RFC 9000 §16. */
export function varint(value: number): Buffer {
  if (value < 2 ** 6) return Buffer.from([value]);
  if (value < 2 ** 14) return Buffer.from([0x40 | (value >> 8), value & 0xff]);
  const bytes = Buffer.alloc(value < 2 ** 30 ? 4 : 8);
  if (bytes.length === 4) bytes.writeUInt32BE(value + 0x8000_0000);
  else bytes.writeBigUInt64BE(BigInt(value) | (3n << 62n));
  return bytes;
}

/** Null where the bytes end within it. */
export function readVarint(bytes: Buffer, at: number): { value: number; next: number } | null {
  const first = bytes[at];
  if (first === undefined) return null;
  const length = 1 << (first >> 6);
  if (at + length > bytes.length) return null;
  let value = first & 0x3f;
  for (let i = 1; i < length; i++) value = value * 256 + (bytes[at + i] as number);
  return { value, next: at + length };
}

export function frame(type: number, payload: Uint8Array | readonly number[] | string = ""): Buffer {
  const bytes = typeof payload === "string" ? Buffer.from(payload) : Uint8Array.from(payload);
  return Buffer.concat([varint(type), varint(bytes.length), bytes]);
}

export function settings(pairs: readonly (readonly [id: number, value: number])[] = []): Buffer {
  return frame(FrameType.settings, Buffer.concat(pairs.flat().map(varint)));
}

/** A field section without the dynamic table: each line a literal with a literal name (RFC 9204 §4.5.6). */
export function section(fields: readonly Field[]): Buffer {
  const parts: Uint8Array[] = [Buffer.from([0, 0])];
  for (const [name, value] of fields) {
    const [nameBytes, valueBytes] = [Buffer.from(name, "latin1"), Buffer.from(value, "latin1")];
    parts.push(prefixed(nameBytes.length, 3, 0x20), nameBytes, prefixed(valueBytes.length, 7, 0), valueBytes);
  }
  return Buffer.concat(parts);
}

export function headers(fields: readonly Field[]): Buffer {
  return frame(FrameType.headers, section(fields));
}

/** An integer with a prefix of so many bits (RFC 9204 §4.1.1). */
function prefixed(value: number, bits: number, first: number): Buffer {
  const most = 2 ** bits - 1;
  if (value < most) return Buffer.from([first | value]);
  const bytes = [first | most];
  let left = value - most;
  for (; left >= 128; left >>= 7) bytes.push(0x80 | (left & 0x7f));
  return Buffer.from([...bytes, left]);
}

/** The frames that have come whole, and whether more bytes follow them. */
export function readFrames(bytes: Buffer): { type: number; payload: Buffer }[] {
  const frames: { type: number; payload: Buffer }[] = [];
  for (let at = 0; ; ) {
    const type = readVarint(bytes, at);
    const length = type === null ? null : readVarint(bytes, type.next);
    if (type === null || length === null || length.next + length.value > bytes.length) return frames;
    at = length.next + length.value;
    frames.push({ type: type.value, payload: bytes.subarray(length.next, at) });
  }
}

/** Statuses in the static table (RFC 9204, Appendix A). */
const STATIC_STATUSES: Readonly<Record<number, number>> = {
  24: 103,
  25: 200,
  26: 304,
  27: 404,
  28: 503,
  63: 100,
  64: 204,
  65: 206,
  66: 302,
  67: 400,
  68: 403,
  69: 421,
  70: 425,
  71: 500,
};

/** The status of a response's section, which stands first in it. Without the dynamic table, which nobody was allowed. */
export function statusOf(section: Buffer): number {
  const first = section[2] as number;
  if ((first & 0xc0) === 0xc0) {
    const index = first & 0x3f;
    return STATIC_STATUSES[index === 0x3f ? index + (section[3] as number) : index] ?? 0;
  }
  return statusDigits(section, (first & 0x0f) === 0x0f ? 4 : 3);
}

/** The literal value of ":status" that stands there, its length first. */
export function statusDigits(bytes: Buffer, at: number): number {
  const length = bytes[at] as number;
  const value = bytes.subarray(at + 1, at + 1 + (length & 0x7f));
  return Number((length & 0x80) === 0 ? value.toString("latin1") : huffmanDigits(value));
}

/** Digits in the code of RFC 7541, Appendix B: 0 to 2 have five bits, the others six. */
function huffmanDigits(bytes: Buffer): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  let digits = "";
  for (let at = 0; at + 5 <= bits.length; ) {
    const five = Number.parseInt(bits.slice(at, at + 5), 2);
    const six = Number.parseInt(bits.slice(at, at + 6), 2);
    if (five <= 2) {
      digits += five;
      at += 5;
    } else if (six >= 0x19 && six <= 0x1f) {
      digits += six - 0x16;
      at += 6;
    } else break;
  }
  return digits;
}

/** The section of a request. */
export const GET: readonly Field[] = [
  [":method", "GET"],
  [":scheme", "https"],
  [":authority", "localhost"],
  [":path", "/hello"],
];

/** A request of another method, path or with more fields. */
export function request(
  change: { method?: string; path?: string; fields?: readonly Field[] } = {},
): readonly Field[] {
  const { method = "GET", path = "/hello", fields = [] } = change;
  const [, scheme, authority] = GET as [Field, Field, Field, Field];
  return [[":method", method], scheme, authority, [":path", path], ...fields];
}
