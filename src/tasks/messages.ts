/**
 * The wire between whoever hands tasks over and a task worker: messages into bytes, and back. No socket and no clock.
 *
 * ```text
 *  0               4        5               13              17
 *  ┌───────────────┬────────┬───────────────┬───────────────┬─────────┬───────────────────┬──────────┐
 *  │ length    u32 │ type u8│ call      f64 │ parts     u32 │ head …  │ u32 for each part │ parts …  │   little-endian
 *  └───────────────┴────────┴───────────────┴───────────────┴─────────┴───────────────────┴──────────┘
 *  HELLO      both     u8 version; text: who the client is, or u32 load of the worker
 *  TASK       client   u8 awaited, u32 timeout, u16 attempt, u16 attempts; the data
 *  ACCEPTED   worker   u32 load                  the queue has it
 *  BEGUN      worker   u32 load                  it is about to run; not told of durable tasks
 *  RESULT     worker   u32 load; the result      it is done
 *  FAILED     worker   u32 load; the error       it has failed for the last time
 *  REFUSED    worker   u32 load; u8 why, text    the queue does not have it, or no more
 *  CANCEL     client   nothing                   nobody awaits it any more: it need not go on
 *  RECALL     client   nothing                   give it back, if it has not begun
 *  LOAD       worker   u32 load                  it has become less
 *  AWAITING   client   f64 for each call         how do these stand? of a durable queue
 *  LOST       worker   nothing                   of AWAITING: there is no such task
 *  RECEIVED   client   nothing                   of RESULT and FAILED: the outcome need not be kept; of a durable queue
 *  LOOK       client   nothing                   something waits in the queue that is shared
 * ```
 * `length` counts what follows it, without the parts. `call` is the number of the task among its client's; its id
 * is who the client is, and that. A load is how many tasks run in the
 * task worker or wait there. Parts are read into memory of their own, each copied once.
 */
import type { Parts } from "../clone/parts.ts";
import { FrameWriter, Payload } from "../wire/frames.ts";

export const TASK_WIRE_VERSION = 2;
const LENGTH_BYTES = 4;
/** Of type, call and parts. */
const FIXED_BYTES = 13;
/** Room for an AWAITING of 100,000 tasks. */
const MAX_LENGTH = 1024 * 1024;
/** Larger parts are written from where they lie. Bytes. */
const COPIED_BYTES = 32 * 1024;
/** Room for a batch to begin with: most are small, and what is so small comes out of a pool. */
const INITIAL_BYTES = 1024;
/** Parts from here on are in memory of their own, which is then the whole of an ArrayBuffer. */
const OWN_BYTES = 1024;
/** Bytes of all that a task, or its outcome, is made of. */
export const MAX_TASK_BYTES = 256 * 1024 * 1024;

export const MessageType = {
  hello: 1,
  task: 2,
  accepted: 3,
  begun: 4,
  result: 5,
  failed: 6,
  refused: 7,
  cancel: 8,
  recall: 9,
  load: 10,
  awaiting: 11,
  lost: 12,
  received: 13,
  look: 14,
} as const;
export type MessageType = (typeof MessageType)[keyof typeof MessageType];
const LAST_TYPE = MessageType.look;

/**
 * Why a task worker does not have a task: its queue is full · it takes no more · the queue has failed: three first answers to
 * TASK · or it has given it back, after ACCEPTED and before BEGUN.
 */
export const Refusal = { full: 1, retired: 2, failed: 3, returned: 4 } as const;

/** The peer broke the rules of the wire. */
export class MessageError extends Error {
  readonly code = "TERCET_MESSAGE";
  override readonly name = "MessageError";
}

export interface Message {
  readonly type: MessageType;
  readonly call: number;
  /** Valid while the message is handled. */
  readonly head: Payload;
  /** The receiver's own. */
  readonly parts: Parts;
}

/** Gathers messages; those of one turn of the event loop leave together. */
export class MessageWriter {
  readonly #fields = new FrameWriter(Buffer.allocUnsafe(INITIAL_BYTES));
  #chunks: Uint8Array[] = [];

  get isEmpty(): boolean {
    return this.#chunks.length === 0 && this.#fields.length === 0;
  }

  /**
   * @param write the head
   * @param parts must not change before they have left
   */
  message(
    type: MessageType,
    call: number,
    write: ((head: FrameWriter) => void) | null,
    parts: Parts = [],
  ): void {
    const fields = this.#fields;
    const mark = fields.mark();
    fields.u8(type);
    fields.f64(call);
    fields.u32(parts.length);
    write?.(fields);
    for (const part of parts) fields.u32(part.length);
    fields.patch(mark);
    for (const part of parts) {
      if (part.length <= COPIED_BYTES) fields.raw(part);
      else this.#chunks.push(fields.take(Buffer.allocUnsafe(INITIAL_BYTES)), part);
    }
  }

  /** What was gathered, in its order. */
  take(): readonly Uint8Array[] {
    const chunks = this.#chunks;
    this.#chunks = [];
    if (this.#fields.length > 0) chunks.push(this.#fields.take(Buffer.allocUnsafe(INITIAL_BYTES)));
    return chunks;
  }
}

/** Cuts a stream of bytes into messages, whatever the reads' sizes. */
export class MessageReader {
  readonly #length = Buffer.alloc(LENGTH_BYTES);
  /** What is being read: the length, then the rest of the head, then each part. */
  #target: Uint8Array = this.#length;
  #filled = 0;
  #head: Buffer | null = null;
  #parts: Uint8Array[] = [];
  /** Parts that are read. */
  #whole = 0;

  /** True between messages: a stream that ends otherwise was cut short. */
  get between(): boolean {
    return this.#target === this.#length && this.#filled === 0;
  }

  /**
   * Calls `handle` for each message that `chunk` completes.
   * @throws MessageError where the stream is no wire at all
   */
  push(chunk: Buffer, handle: (message: Message) => void): void {
    let at = this.between ? this.#pushWhole(chunk, handle) : 0;
    while (at < chunk.length || this.#filled === this.#target.length) {
      const taken = Math.min(this.#target.length - this.#filled, chunk.length - at);
      chunk.copy(this.#target, this.#filled, at, at + taken);
      this.#filled += taken;
      at += taken;
      if (this.#filled < this.#target.length) return;
      if (this.#target === this.#length) this.#beginHead();
      else if (this.#head === null) this.#beginParts(this.#target as Buffer);
      else this.#whole++;
      if (this.#head !== null) this.#next(this.#head, handle);
    }
  }

  /** Messages that lie whole in a read, as most do, are read in place. @returns where what is left begins */
  #pushWhole(chunk: Buffer, handle: (message: Message) => void): number {
    let at = 0;
    while (chunk.length - at >= LENGTH_BYTES) {
      const headAt = at + LENGTH_BYTES;
      const headEnd = headAt + headLength(chunk, at);
      if (headEnd > chunk.length) break;
      const lengthsAt = checkHead(chunk, headAt, headEnd);
      let end = headEnd;
      for (let each = lengthsAt; each < headEnd; each += 4) end += chunk.readUInt32LE(each);
      if (end > chunk.length) break;
      const parts: Uint8Array[] = [];
      let partAt = headEnd;
      for (let each = lengthsAt; each < headEnd; each += 4) {
        const part = memoryFor(chunk.readUInt32LE(each));
        chunk.copy(part, 0, partAt);
        partAt += part.length;
        parts.push(part);
      }
      at = end;
      handle(messageOf(chunk, headAt, lengthsAt, parts));
    }
    return at;
  }

  #read(target: Uint8Array): void {
    this.#target = target;
    this.#filled = 0;
  }

  #beginHead(): void {
    this.#read(Buffer.allocUnsafe(headLength(this.#length, 0)));
  }

  #beginParts(head: Buffer): void {
    this.#head = head;
    this.#whole = 0;
    this.#parts = [];
    for (let at = checkHead(head, 0, head.length); at < head.length; at += 4) {
      this.#parts.push(memoryFor(head.readUInt32LE(at)));
    }
  }

  #next(head: Buffer, handle: (message: Message) => void): void {
    const part = this.#parts[this.#whole];
    if (part !== undefined) {
      this.#read(part);
      return;
    }
    const parts = this.#parts;
    this.#head = null;
    this.#parts = [];
    this.#read(this.#length);
    handle(messageOf(head, 0, head.length - 4 * parts.length, parts));
  }
}

function headLength(bytes: Buffer, at: number): number {
  const length = bytes.readUInt32LE(at);
  if (length < FIXED_BYTES || length > MAX_LENGTH) throw new MessageError(`a head of ${length} bytes`);
  return length;
}

/** @returns where the lengths of the parts begin */
function checkHead(bytes: Buffer, start: number, end: number): number {
  const type = bytes[start] as number;
  if (type === 0 || type > LAST_TYPE) throw new MessageError(`there is no message of type ${type}`);
  const count = bytes.readUInt32LE(start + 9);
  const lengthsAt = end - 4 * count;
  if (lengthsAt < start + FIXED_BYTES) {
    throw new MessageError(`a head of ${end - start} bytes for ${count} parts`);
  }
  let size = 0;
  for (let at = lengthsAt; at < end; at += 4) size += bytes.readUInt32LE(at);
  if (size > MAX_TASK_BYTES) throw new MessageError(`${size} bytes of parts`);
  return lengthsAt;
}

function memoryFor(length: number): Buffer {
  return length < OWN_BYTES ? Buffer.allocUnsafe(length) : Buffer.allocUnsafeSlow(length);
}

function messageOf(bytes: Buffer, start: number, end: number, parts: Parts): Message {
  return {
    type: bytes[start] as MessageType,
    call: bytes.readDoubleLE(start + 1),
    head: new Payload(bytes, start + FIXED_BYTES, end),
    parts,
  };
}
