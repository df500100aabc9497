/**
 * The codec of the wire between a reactor and a worker: bytes in, frames out, and back. No socket and no clock.
 *
 * ```text
 *  0               4        5        6               10
 *  ┌───────────────┬────────┬────────┬───────────────┬─────────────────┐
 *  │ length    u32 │ type u8│flags u8│ exchange  u32 │ payload …       │   little-endian
 *  └───────────────┴────────┴────────┴───────────────┴─────────────────┘
 *  REQUEST, RESPONSE   u32 head length, the head (heads.ts), then the first of the body
 *  INFORM              as RESPONSE, with no body: an interim response
 *  DATA                a piece of the body
 *  CREDIT              u32: how many more bytes of body the other side may send
 *  TRAILERS            the trailer section, and with it the end of the body
 *  FILE                u32 head length, the head, and which pieces of which file are the body
 *  ABORT               why, in latin1: this direction ends short
 *  PING, PONG          nothing: how far the worker has come
 *  GOAWAY              nothing: no more requests come over this channel
 *  WATCH               u8: which events of connections the worker is told of (connections.ts)
 *  EVENT               what has happened to a connection
 *  CONNECTION          a question about a connection, and its answer; `exchange` is the number of the call
 *  HELLO               u8 version, u32 worker id, u32 pid: the first frame of each direction
 * ```
 * `length` counts the payload. END on REQUEST, RESPONSE or DATA says that the body ends here. A body over WHOLE_BODY
 * bytes is never sent with its head, and every byte of body is paid for from the exchange's window (window.ts).
 */
import type { ExchangeId } from "../exchange.ts";

declare global {
  // In Node and in Bun, and half the cost of `write` and `toString`; the types leave them out.
  interface Buffer {
    latin1Write(text: string, offset: number): number;
    utf8Write(text: string, offset: number): number;
    latin1Slice(start: number, end: number): string;
  }
}

export const WIRE_VERSION = 3;
export const FRAME_HEADER_BYTES = 10;
/** Room for any head an option allows (options.ts: `maxHeaderBytes`, 1 MiB) and the piece of body behind it. */
export const MAX_PAYLOAD_BYTES = 16 * 1024 * 1024;
/** The largest DATA payload made here, in bytes. */
export const DATA_BYTES = 64 * 1024;

export const FrameType = {
  hello: 1,
  request: 2,
  response: 3,
  inform: 4,
  data: 5,
  credit: 6,
  abort: 7,
  trailers: 8,
  file: 9,
  ping: 10,
  pong: 11,
  goaway: 12,
  watch: 13,
  event: 14,
  connection: 15,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** The flag END. */
export const END = 1;

const LAST_TYPE = FrameType.connection;
/** The exchange of frames that are about none. */
const NO_EXCHANGE = 0 as ExchangeId;
const INITIAL_BYTES = 64 * 1024;

/** The peer broke the rules of the wire: its channel is of no more use. */
export class FrameError extends Error {
  readonly code = "TERCET_FRAME";
  override readonly name = "FrameError";
}

export interface Hello {
  readonly version: number;
  readonly workerId: number;
  readonly pid: number;
}

/** Gathers frames in one buffer, so that what is made in one turn of the event loop leaves in one write. */
export class FrameWriter {
  #bytes: Buffer;
  #length = 0;
  #frameAt = 0;

  constructor(bytes: Buffer = Buffer.allocUnsafeSlow(INITIAL_BYTES)) {
    this.#bytes = bytes;
  }

  /** Bytes gathered and not yet taken. */
  get length(): number {
    return this.#length;
  }

  /** Gives up what was gathered, as a view of the buffer, and goes on in another. */
  take(next: Buffer = Buffer.allocUnsafeSlow(INITIAL_BYTES)): Buffer {
    const taken = this.#bytes.subarray(0, this.#length);
    this.#bytes = next;
    this.#length = 0;
    return taken;
  }

  /** Forgets what was gathered. */
  discard(): void {
    this.#length = 0;
  }

  begin(type: FrameType, flags: number, id: ExchangeId): void {
    this.#reserve(FRAME_HEADER_BYTES);
    this.#frameAt = this.#length;
    const bytes = this.#bytes;
    const at = this.#length;
    bytes[at + 4] = type;
    bytes[at + 5] = flags;
    bytes.writeUInt32LE(id, at + 6);
    this.#length = at + FRAME_HEADER_BYTES;
  }

  /** @throws RangeError where the frame is larger than the peer takes: then it is as if it had not begun */
  finish(): void {
    const length = this.#length - this.#frameAt - FRAME_HEADER_BYTES;
    if (length > MAX_PAYLOAD_BYTES) {
      this.#length = this.#frameAt;
      throw new RangeError(`a header or trailer section of ${length} bytes is over ${MAX_PAYLOAD_BYTES}`);
    }
    this.#bytes.writeUInt32LE(length, this.#frameAt);
  }

  u8(value: number): void {
    this.#reserve(1);
    this.#bytes[this.#length++] = value;
  }

  u16(value: number): void {
    this.#reserve(2);
    this.#bytes.writeUInt16LE(value, this.#length);
    this.#length += 2;
  }

  u32(value: number): void {
    this.#reserve(4);
    this.#bytes.writeUInt32LE(value, this.#length);
    this.#length += 4;
  }

  f64(value: number): void {
    this.#reserve(8);
    this.#bytes.writeDoubleLE(value, this.#length);
    this.#length += 8;
  }

  /** A text with its length before it: one byte, or 255 and four bytes. */
  text(value: string): void {
    const size = value.length;
    this.#reserve(size + 5);
    if (size < 255) {
      this.#bytes[this.#length++] = size;
    } else {
      this.#bytes[this.#length++] = 255;
      this.#bytes.writeUInt32LE(size, this.#length);
      this.#length += 4;
    }
    this.latin1(value);
  }

  latin1(value: string): void {
    this.#reserve(value.length);
    this.#length += this.#bytes.latin1Write(value, this.#length);
  }

  utf8(value: string): void {
    this.#reserve(value.length * 3);
    this.#length += this.#bytes.utf8Write(value, this.#length);
  }

  raw(chunk: Uint8Array): void {
    this.#reserve(chunk.length);
    this.#bytes.set(chunk, this.#length);
    this.#length += chunk.length;
  }

  /** Marks where a u32 stands that is known only later; `patch` fills it in with the bytes written since. */
  mark(): number {
    this.u32(0);
    return this.#length;
  }

  patch(mark: number): void {
    this.#bytes.writeUInt32LE(this.#length - mark, mark - 4);
  }

  hello(hello: Hello): void {
    this.begin(FrameType.hello, 0, NO_EXCHANGE);
    this.u8(hello.version);
    this.u32(hello.workerId);
    this.u32(hello.pid);
    this.finish();
  }

  data(id: ExchangeId, chunk: Uint8Array | null, end: boolean): void {
    this.begin(FrameType.data, end ? END : 0, id);
    if (chunk !== null) this.raw(chunk);
    this.finish();
  }

  credit(id: ExchangeId, bytes: number): void {
    this.begin(FrameType.credit, 0, id);
    this.u32(bytes);
    this.finish();
  }

  abort(id: ExchangeId, reason: string): void {
    this.begin(FrameType.abort, 0, id);
    this.latin1(reason);
    this.finish();
  }

  /** A frame that is about the channel, and says all by its type. */
  signal(type: typeof FrameType.ping | typeof FrameType.pong | typeof FrameType.goaway): void {
    this.begin(type, 0, NO_EXCHANGE);
    this.finish();
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#bytes.length * 2));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}

/** A frame as it lies in a read: valid only while it is handled, for the next one takes its place. */
export interface Frame {
  readonly type: FrameType;
  readonly end: boolean;
  readonly id: ExchangeId;
  readonly payload: Payload;
}

/** Reads a payload from its start; every read past its end is a FrameError. */
export class Payload {
  #bytes: Buffer;
  #at: number;
  #end: number;

  constructor(bytes: Buffer, start: number, end: number) {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
  }

  /** Turns to another payload. */
  reset(bytes: Buffer, start: number, end: number): void {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
  }

  u8(): number {
    return this.#bytes[this.#advance(1)] as number;
  }

  u16(): number {
    return this.#bytes.readUInt16LE(this.#advance(2));
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#advance(4));
  }

  f64(): number {
    return this.#bytes.readDoubleLE(this.#advance(8));
  }

  text(): string {
    const size = this.u8();
    const length = size === 255 ? this.u32() : size;
    const at = this.#advance(length);
    return length === 0 ? "" : this.#bytes.latin1Slice(at, at + length);
  }

  /** What is left, as latin1. */
  latin1(): string {
    return this.#bytes.latin1Slice(this.#advance(this.left), this.#end);
  }

  /** The next `length` bytes as latin1, without passing over them. */
  peek(length: number): string {
    if (length > this.left) throw new FrameError(`a payload ends ${length - this.left} bytes early`);
    return this.#bytes.latin1Slice(this.#at, this.#at + length);
  }

  /** The next `length` bytes as a payload of their own. */
  part(length: number): Payload {
    const at = this.#advance(length);
    return new Payload(this.#bytes, at, at + length);
  }

  /** The next `length` bytes, copied: they outlive the frame. */
  bytes(length: number): Buffer {
    const at = this.#advance(length);
    return Buffer.from(this.#bytes.subarray(at, at + length));
  }

  /** What is left, in place: the bytes are not copied. */
  rest(): Buffer {
    return this.#bytes.subarray(this.#advance(this.left), this.#end);
  }

  get left(): number {
    return this.#end - this.#at;
  }

  hello(): Hello {
    return { version: this.u8(), workerId: this.u32(), pid: this.u32() };
  }

  #advance(bytes: number): number {
    const at = this.#at;
    if (bytes > this.#end - at) {
      throw new FrameError(`a payload ends ${bytes - (this.#end - at)} bytes early`);
    }
    this.#at = at + bytes;
    return at;
  }
}

/**
 * Cuts a stream of bytes into frames, whatever the reads' sizes. Frames are decoded in place; only one that is split
 * across reads is copied.
 */
export class FrameReader {
  #partial: Buffer | null = null;
  #partialLength = 0;
  readonly #payload = new Payload(Buffer.alloc(0), 0, 0);
  // One for all frames: a frame a request would be one more object to collect.
  readonly #frame = {
    type: FrameType.hello as FrameType,
    end: false,
    id: 0 as ExchangeId,
    payload: this.#payload,
  };

  /** Calls `handle` for each frame that `chunk` completes. Throws a FrameError when the stream is no wire at all. */
  push(chunk: Buffer, handle: (frame: Frame) => void): void {
    let at = 0;
    while (this.#partial !== null && at < chunk.length) at = this.#complete(chunk, at, handle);
    const end = chunk.length;
    while (end - at >= FRAME_HEADER_BYTES) {
      const next = at + FRAME_HEADER_BYTES + payloadLength(chunk, at);
      if (next > end) break;
      handle(this.#frameAt(chunk, at, next));
      at = next;
    }
    if (at < end) this.#keep(chunk, at);
  }

  /** True between frames: a stream that ends otherwise was cut short. */
  get between(): boolean {
    return this.#partial === null;
  }

  #frameAt(bytes: Buffer, at: number, next: number): Frame {
    const frame = this.#frame;
    frame.type = bytes[at + 4] as FrameType;
    frame.end = ((bytes[at + 5] as number) & END) !== 0;
    frame.id = bytes.readUInt32LE(at + 6) as ExchangeId;
    this.#payload.reset(bytes, at + FRAME_HEADER_BYTES, next);
    return frame;
  }

  #keep(chunk: Buffer, at: number): void {
    const left = chunk.length - at;
    const size =
      left < FRAME_HEADER_BYTES ? FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + payloadLength(chunk, at);
    this.#partial = Buffer.allocUnsafe(size);
    chunk.copy(this.#partial, 0, at);
    this.#partialLength = left;
  }

  /** Takes from `chunk` what the kept frame lacks; returns where the next begins. */
  #complete(chunk: Buffer, at: number, handle: (frame: Frame) => void): number {
    let partial = this.#partial as Buffer;
    const taken = Math.min(partial.length - this.#partialLength, chunk.length - at);
    chunk.copy(partial, this.#partialLength, at, at + taken);
    this.#partialLength += taken;
    if (this.#partialLength < partial.length) return at + taken;
    const size = FRAME_HEADER_BYTES + payloadLength(partial, 0);
    if (partial.length < size) {
      const whole = Buffer.allocUnsafe(size);
      partial.copy(whole, 0, 0, this.#partialLength);
      partial = whole;
      this.#partial = whole;
      return at + taken;
    }
    this.#partial = null;
    handle(this.#frameAt(partial, 0, size));
    return at + taken;
  }
}

function payloadLength(bytes: Buffer, at: number): number {
  const length = bytes.readUInt32LE(at);
  if (length > MAX_PAYLOAD_BYTES) {
    throw new FrameError(`a frame of ${length} bytes is over the ${MAX_PAYLOAD_BYTES} allowed`);
  }
  const type = bytes[at + 4] as number;
  if (type === 0 || type > LAST_TYPE) throw new FrameError(`there is no frame type ${type}`);
  return length;
}
