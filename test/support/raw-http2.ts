/** HTTP/2 by hand over TLS: frames (RFC 9113 §4) and field sections as literals (RFC 7541 §6.2.2), wrong ones as well. */
import { type Field, GET, statusDigits } from "./http3-frames.ts";
import { DeadlineError, until } from "./poll.ts";
import { RawConnection, type RawOptions } from "./raw-connection.ts";

export const Frame2 = {
  data: 0,
  headers: 1,
  rst: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;
const END_STREAM = 0x1;
const END_HEADERS = 0x4;

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES = 9;
const INITIAL_WINDOW = 65_535;
const MAX_WINDOW = 2 ** 31 - 1;
/** RFC 9113 §7. */
const ERRORS = [
  "NO_ERROR",
  "PROTOCOL_ERROR",
  "INTERNAL_ERROR",
  "FLOW_CONTROL_ERROR",
  "SETTINGS_TIMEOUT",
  "STREAM_CLOSED",
  "FRAME_SIZE_ERROR",
  "REFUSED_STREAM",
  "CANCEL",
  "COMPRESSION_ERROR",
  "CONNECT_ERROR",
  "ENHANCE_YOUR_CALM",
];
/** Statuses in the static table (RFC 7541, Appendix A). */
const STATIC_STATUSES: Readonly<Record<number, number>> = {
  8: 200,
  9: 204,
  10: 206,
  11: 304,
  12: 400,
  13: 404,
  14: 500,
};
const WITHIN = 5_000;
const OVERTAKEN = 100;

interface Received {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export class RawHttp2 implements Disposable {
  readonly #connection: RawConnection;
  #lastStream = -1;

  private constructor(connection: RawConnection) {
    this.#connection = connection;
  }

  static async open(port: number, options: RawOptions = {}): Promise<RawHttp2> {
    const peer = new RawHttp2(await RawConnection.open(port, "h2", options));
    peer.#connection.send(PREFACE);
    // SETTINGS_HEADER_TABLE_SIZE 0: what comes back needs no dynamic table to be read.
    peer.frame(Frame2.settings, 0, 0, Buffer.from([0, 1, 0, 0, 0, 0]));
    return peer;
  }

  frame(type: number, flags: number, stream: number, payload: Uint8Array): void {
    const head = Buffer.alloc(HEADER_BYTES);
    head.writeUIntBE(payload.length, 0, 3);
    head[3] = type;
    head[4] = flags;
    head.writeUInt32BE(stream, 5);
    this.#connection.send(Buffer.concat([head, payload]));
  }

  /** Sends a request's HEADERS. @returns its stream */
  begin(fields: readonly Field[], ends = true): number {
    this.#lastStream += 2;
    this.headers(this.#lastStream, fields, ends);
    return this.#lastStream;
  }

  headers(stream: number, fields: readonly Field[], ends: boolean): void {
    this.frame(Frame2.headers, END_HEADERS | (ends ? END_STREAM : 0), stream, block(fields));
  }

  data(stream: number, text: string, ends: boolean): void {
    this.frame(Frame2.data, ends ? END_STREAM : 0, stream, Buffer.from(text));
  }

  /** As `RawHttp3.outcome`. */
  async outcome(stream: number): Promise<string> {
    const probe = this.#connection.isClosed ? null : this.begin(GET);
    await until("the server's reaction", WITHIN, () => {
      if (this.#reaction(stream) !== null) return true;
      return probe !== null && this.#reaction(probe) !== null;
    });
    return until("a late reaction", OVERTAKEN, () => this.#reaction(stream) ?? undefined).catch(
      (error: unknown) => {
        if (error instanceof DeadlineError) return "nothing";
        throw error;
      },
    );
  }

  /** Opens the windows of the connection and of its streams as wide as they go (RFC 9113 §6.9.1). */
  widen(): void {
    this.frame(Frame2.settings, 0, 0, Buffer.from([0, 4, 0x7f, 0xff, 0xff, 0xff]));
    const more = Buffer.alloc(4);
    more.writeUInt32BE(MAX_WINDOW - INITIAL_WINDOW);
    this.frame(Frame2.windowUpdate, 0, 0, more);
  }

  pause(): void {
    this.#connection.pause();
  }

  resume(): void {
    this.#connection.resume();
  }

  async untilClosed(within?: number): Promise<void> {
    await this.#connection.untilClosed(within);
  }

  /** The last streams that are answered still, as each GOAWAY that has come says (RFC 9113 §6.8). */
  get lastStreams(): number[] {
    return this.#frames()
      .filter(({ type }) => type === Frame2.goaway)
      .map(({ payload }) => payload.readUInt32BE(0));
  }

  /** Bytes of a response's body that have come. */
  lengthOf(stream: number): number {
    return this.#frames()
      .filter((each) => each.stream === stream && each.type === Frame2.data)
      .reduce((sum, { payload }) => sum + payload.length, 0);
  }

  #reaction(stream: number): string | null {
    const frames = this.#frames();
    const goaway = frames.find(
      ({ type, payload }) => type === Frame2.goaway && payload.readUInt32BE(4) !== 0,
    );
    if (goaway !== undefined) return `closed with ${ERRORS[goaway.payload.readUInt32BE(4)]}`;
    if (this.#connection.isClosed) return "closed";
    const own = frames.filter((each) => each.stream === stream);
    const head = own.find(({ type }) => type === Frame2.headers);
    const reset = own.find(({ type }) => type === Frame2.rst);
    if (reset !== undefined && head === undefined)
      return `reset with ${ERRORS[reset.payload.readUInt32BE(0)]}`;
    const ends = own.some(({ type, flags }) => type <= Frame2.headers && (flags & END_STREAM) !== 0);
    return head !== undefined && (ends || reset !== undefined) ? `answered ${statusOf(head.payload)}` : null;
  }

  #frames(): Received[] {
    const bytes = Buffer.from(this.#connection.received, "latin1");
    const frames: Received[] = [];
    for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
      const end = at + HEADER_BYTES + bytes.readUIntBE(at, 3);
      if (end > bytes.length) break;
      frames.push({
        type: bytes[at + 3] as number,
        flags: bytes[at + 4] as number,
        stream: bytes.readUInt32BE(at + 5) & 0x7fff_ffff,
        payload: bytes.subarray(at + HEADER_BYTES, end),
      });
      at = end;
    }
    return frames;
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }
}

/** Each line a literal that is not indexed, with a literal name. */
function block(fields: readonly Field[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, "latin1");
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let left = bytes.length - 127;
  for (; left >= 128; left >>= 7) length.push(0x80 | (left & 0x7f));
  return Buffer.concat([Buffer.from([...length, left]), bytes]);
}

/** The status stands first; before it may be an update of the table's size (RFC 7541 §6.3). */
function statusOf(block: Buffer): number {
  let at = 0;
  while (((block[at] as number) & 0xe0) === 0x20) at++;
  const first = block[at] as number;
  if ((first & 0x80) !== 0) return STATIC_STATUSES[first & 0x7f] ?? 0;
  return statusDigits(block, at + 1);
}
