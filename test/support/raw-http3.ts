/**
 * HTTP/3 by hand over a QUIC connection of `@currentspace/http3` (Cloudflare's quiche), which knows no HTTP here: bytes on
 * whatever stream the test says, and what comes back as it is.
 *
 * The library opens bidirectional streams only; a unidirectional one begins when something is sent on its id, by a call of
 * its that is not public. What it tells of a reset stream it tells in words.
 */
import { connectQuic, type QuicClientSession } from "@currentspace/http3";
import {
  errorName,
  FrameType,
  GET,
  headers,
  readFrames,
  readVarint,
  request,
  StreamType,
  settings,
  statusOf,
  varint,
} from "./http3-frames.ts";
import { DeadlineError, until } from "./poll.ts";

/** What the library's events are by number. */
const Event = { newStream: 2, data: 4, finished: 5, reset: 6, closed: 7, error: 10 } as const;

interface NativeEvent {
  readonly eventType: number;
  readonly streamId: number;
  readonly data?: Buffer;
  readonly fin?: boolean;
  readonly meta?: { readonly errorCode?: number; readonly errorReason?: string };
}

interface Internals {
  _dispatchEvents(events: readonly NativeEvent[]): void;
  readonly _eventLoop: {
    openStream(): number;
    streamSend(id: number, data: Buffer, fin: boolean): number;
    streamClose(id: number, code: number): boolean;
  } | null;
}

export class ReceivedStream {
  ended = false;
  /** The code of RESET_STREAM. */
  reset: number | null = null;
  /** The code of STOP_SENDING. */
  stopped: number | null = null;
  /** Bytes that every stream had when this one ended. */
  lengthsAtEnd: ReadonlyMap<number, number> = new Map();
  length = 0;
  #chunks: Buffer[] = [];

  get data(): Buffer {
    if (this.#chunks.length !== 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] as Buffer;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.length += chunk.length;
  }
}

/** The streams that every client opens, by the ids they have then. */
export const CONTROL = 2;
export const ENCODER = 6;
export const DECODER = 10;

const WITHIN = 5_000;
/** Milliseconds by which one stream's answer may come before another's. */
const OVERTAKEN = 100;

export class RawHttp3 implements AsyncDisposable {
  /** How the server closed the connection. */
  closed: { readonly code: number; readonly reason: string } | null = null;
  readonly #session: QuicClientSession;
  readonly #streams = new Map<number, ReceivedStream>();

  private constructor(session: QuicClientSession) {
    this.#session = session;
    const internals = session as unknown as Internals;
    const dispatch = internals._dispatchEvents.bind(session);
    internals._dispatchEvents = (events) => {
      for (const event of events) this.#received(event);
      dispatch(events);
    };
    // What they tell is in the events themselves.
    session.on("error", () => {});
    session.on("stream", (stream) => stream.on("error", () => {}).resume());
  }

  /** A connection that is being made: a server that refuses it does so now and then before the library tells that it is there. */
  static attempt(port: number, window = 100_000_000, servername = "localhost"): RawHttp3 {
    const session = connectQuic(`https://127.0.0.1:${port}`, {
      rejectUnauthorized: false,
      servername,
      runtimeMode: "portable",
      alpn: ["h3"],
      connectTimeoutMs: WITHIN,
      initialMaxData: window,
    });
    return new RawHttp3(session);
  }

  /**
   * A connection on which nothing was sent yet.
   * @param window bytes that the server may have under way
   */
  static async connect(port: number, window?: number, servername?: string): Promise<RawHttp3> {
    const peer = RawHttp3.attempt(port, window, servername);
    await peer.#session.ready();
    return peer;
  }

  /** A connection with its control stream and SETTINGS, as every client begins (RFC 9114 §6.2.1). */
  static async open(port: number, window?: number, servername?: string): Promise<RawHttp3> {
    const peer = await RawHttp3.connect(port, window, servername);
    peer.send(CONTROL, Buffer.concat([varint(StreamType.control), settings()]));
    return peer;
  }

  /** Opens a stream for a request, and sends the first bytes of it. @returns its id */
  begin(bytes: Uint8Array, ends = false): number {
    const stream = this.#session.openStream();
    stream.on("error", () => {}).resume();
    this.send(stream.id, bytes, ends);
    return stream.id;
  }

  send(id: number, bytes: Uint8Array, ends = false): void {
    this.#loop?.streamSend(id, Buffer.from(bytes), ends);
  }

  /**
   * The same for a stream that is to be reset: resolves when the bytes have left. Behind the reset of a stream of which
   * nothing has left quiche sends a frame of it, which no peer may (RFC 9000 §3.3).
   */
  async launch(bytes: Uint8Array, ends = false): Promise<number> {
    const before = this.#bytesOut;
    const id = this.begin(bytes, ends);
    await until("the bytes' leaving", WITHIN, () => this.#bytesOut >= before + bytes.length);
    return id;
  }

  /** RESET_STREAM and STOP_SENDING. */
  reset(id: number, code: number): void {
    this.#loop?.streamClose(id, code);
  }

  stream(id: number): ReceivedStream {
    let stream = this.#streams.get(id);
    if (stream === undefined) {
      stream = new ReceivedStream();
      this.#streams.set(id, stream);
    }
    return stream;
  }

  /** The stream of that type that the server opened; undefined where there is none. */
  serverStream(type: number): { readonly id: number; readonly data: Buffer } | undefined {
    for (const [id, { data }] of this.#streams) {
      const found = id % 4 === 3 ? readVarint(data, 0) : null;
      if (found?.value === type) return { id, data: data.subarray(found.next) };
    }
    return undefined;
  }

  /** Statuses of the sections on a stream, in order, interim ones too; a trailer section counts as 0. */
  statuses(id: number): number[] {
    return readFrames(this.stream(id).data)
      .filter(({ type }) => type === FrameType.headers)
      .map(({ payload }) => statusOf(payload));
  }

  body(id: number): string {
    const pieces = readFrames(this.stream(id).data).filter(({ type }) => type === FrameType.data);
    return Buffer.concat(pieces.map(({ payload }) => payload)).toString();
  }

  /** The final status of a request that is answered to its end. */
  async get(change: Parameters<typeof request>[0] = {}): Promise<number> {
    const id = this.begin(headers(request(change)), true);
    await until("an answer", WITHIN, () => this.stream(id).ended || this.closed !== null);
    return this.statuses(id).at(-1) ?? 0;
  }

  /**
   * What has become of the connection, or of a stream of it: `closed with CODE`, `reset with CODE`, `answered STATUS`, or
   * `nothing`: that is known when a request that was made later was answered.
   */
  async outcome(id: number | null = null): Promise<string> {
    const probe = this.#probe();
    await until("the server's reaction", WITHIN, () => {
      if (this.#reaction(id) !== null) return true;
      return probe !== null && this.stream(probe).ended;
    });
    // The answer to the later request may have overtaken the other.
    return until("a late reaction", OVERTAKEN, () => this.#reaction(id) ?? undefined).catch(
      (error: unknown) => {
        if (error instanceof DeadlineError) return "nothing";
        throw error;
      },
    );
  }

  /** A request; null where the connection has been closed, of which the event may be on its way. */
  #probe(): number | null {
    if (this.closed !== null) return null;
    try {
      return this.begin(headers(GET), true);
    } catch {
      return null;
    }
  }

  #reaction(id: number | null): string | null {
    if (this.closed !== null) return `closed with ${errorName(this.closed.code)}`;
    if (id === null) return null;
    const { reset, ended } = this.stream(id);
    if (reset !== null) return `reset with ${errorName(reset)}`;
    return ended ? `answered ${this.statuses(id).at(-1) ?? "nothing"}` : null;
  }

  async untilClosed(within = WITHIN): Promise<{ readonly code: number; readonly reason: string }> {
    return until("the connection's end", within, () => this.closed ?? undefined);
  }

  /** @param code of the application */
  async close(code?: number, reason?: string): Promise<void> {
    await this.#session.close(code, reason);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #bytesOut(): number {
    return this.#session.getMetrics()?.bytesOut ?? 0;
  }

  get #loop(): Internals["_eventLoop"] {
    return (this.#session as unknown as Internals)._eventLoop;
  }

  #received({ eventType, streamId, data, fin, meta }: NativeEvent): void {
    if (eventType === Event.closed) {
      this.closed = { code: meta?.errorCode ?? 0, reason: meta?.errorReason ?? "" };
      return;
    }
    if (streamId < 0) return;
    const stream = this.stream(streamId);
    if (data !== undefined && (eventType === Event.data || eventType === Event.newStream)) {
      stream.push(data);
    }
    if ((fin || eventType === Event.finished) && !stream.ended) {
      stream.ended = true;
      stream.lengthsAtEnd = new Map([...this.#streams].map(([id, { length }]) => [id, length]));
    }
    if (eventType === Event.reset) stream.reset = meta?.errorCode ?? 0;
    const [, what, code] = /^Stream(Reset|Stopped)\((\d+)\)/.exec(meta?.errorReason ?? "") ?? [];
    if (what === "Reset") stream.reset = Number(code);
    if (what === "Stopped") stream.stopped = Number(code);
  }
}
