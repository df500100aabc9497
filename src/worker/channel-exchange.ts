/** An exchange as a worker sees it: its head, body and sink speak frames with the reactor that owns the client. */
import {
  BodyLostError,
  type ExchangeId,
  type Fields,
  type FileBody,
  type RequestBody,
  type RequestHead,
  type ResponseHead,
} from "../exchange.ts";
import { byteBound, collect, toBytes } from "../http/body.ts";
import { contentLength } from "../http/fields.ts";
import type { Channel } from "../wire/channel.ts";
import { writeFile } from "../wire/files.ts";
import { DATA_BYTES, FrameError, FrameType } from "../wire/frames.ts";
import { writeResponse, writeTrailers } from "../wire/heads.ts";
import { ReceiveWindow, SendWindow } from "../wire/window.ts";
import { HandlerExchange } from "./handler-exchange.ts";

const NOTHING = new Uint8Array(0);

/** What a response that is sent piece by piece still has to send. */
interface ResponseStream {
  readonly window: SendWindow;
  readonly queue: Uint8Array[];
  ending: boolean;
  trailers: Fields | null;
}

export class ChannelExchange extends HandlerExchange {
  readonly body: ChannelBody | null;
  readonly #channel: Channel;
  /** Told when the worker has nothing more to do with the exchange. */
  readonly #onOver: (exchange: ChannelExchange) => void;
  /** Null until the response streams. */
  #stream: ResponseStream | null = null;
  #over = false;

  constructor(
    id: ExchangeId,
    head: RequestHead,
    hasBody: boolean,
    channel: Channel,
    onOver: (exchange: ChannelExchange) => void,
  ) {
    super(id, head);
    this.#channel = channel;
    this.#onOver = onOver;
    this.body = hasBody ? new ChannelBody(id, channel, head) : null;
  }

  respond(head: ResponseHead, body: Uint8Array | string | null): void {
    if (this.#over) return;
    if (body === null || byteBound(body) <= DATA_BYTES) {
      writeResponse(this.#channel.writer, this.id, FrameType.response, head, body, true);
      this.headSent = true;
      this.#finish();
      return;
    }
    this.head(head);
    this.data(toBytes(body));
    this.end(null);
  }

  inform(head: ResponseHead): boolean {
    if (this.#over || !this.sendsInterim) return false;
    writeResponse(this.#channel.writer, this.id, FrameType.inform, head, null, false);
    return true;
  }

  /** Resolves when the reactor is told: from there on the response is its own. */
  file(head: ResponseHead, body: FileBody): Promise<void> {
    if (!this.#over) {
      writeFile(this.#channel.writer, this.id, head, body);
      this.headSent = true;
      this.#finish();
    }
    return Promise.resolve();
  }

  head(head: ResponseHead): void {
    if (this.#over) return;
    writeResponse(this.#channel.writer, this.id, FrameType.response, head, null, false);
    this.headSent = true;
  }

  data(chunk: Uint8Array): boolean {
    if (this.#over) return true;
    const stream = this.#streaming();
    if (chunk.length > 0) stream.queue.push(chunk);
    this.#send(stream);
    return stream.queue.length === 0;
  }

  end(trailers: Fields | null): void {
    const stream = this.#streaming();
    stream.ending = true;
    stream.trailers = trailers;
    this.#send(stream);
    // A client that first sends all it has takes nothing of the response until then.
    this.body?.cancel();
  }

  abort(reason: string): void {
    if (this.#over) return;
    this.#channel.writer.abort(this.id, reason);
    this.#finish();
  }

  /** The reactor returned credit: the client has taken that much. */
  credit(bytes: number): void {
    const stream = this.#streaming();
    stream.window.refill(bytes);
    if (stream.queue.length === 0) return;
    this.#send(stream);
    if (stream.queue.length === 0 && !this.#over) this.drained();
  }

  abandon(reason: string): void {
    this.aborted = true;
    this.#stream = null;
    this.body?.fail(reason);
    this.#finish();
    const { onDrain } = this;
    this.onAborted?.(this);
    onDrain?.();
  }

  #streaming(): ResponseStream {
    this.#stream ??= { window: new SendWindow(), queue: [], ending: false, trailers: null };
    return this.#stream;
  }

  #send({ window, queue, ending, trailers }: ResponseStream): void {
    if (this.#over) return;
    while (queue.length > 0) {
      const chunk = queue[0] as Uint8Array;
      const bytes = Math.min(chunk.length, window.credit, DATA_BYTES);
      if (bytes === 0) return;
      const whole = bytes === chunk.length;
      const last = whole && ending && queue.length === 1 && trailers === null;
      this.#channel.writer.data(this.id, whole ? chunk : chunk.subarray(0, bytes), last);
      window.spend(bytes);
      if (whole) queue.shift();
      else queue[0] = chunk.subarray(bytes);
      if (last) {
        this.#finish();
        return;
      }
    }
    if (!ending) return;
    if (trailers === null) this.#channel.writer.data(this.id, null, true);
    else writeTrailers(this.#channel.writer, this.id, trailers);
    this.#finish();
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.body?.cancel();
    this.#onOver(this);
    this.onOver?.();
  }
}

/** The request's body as it comes over the channel; credit goes back as the handler reads. */
class ChannelBody implements RequestBody {
  readonly #id: ExchangeId;
  readonly #channel: Channel;
  readonly #head: RequestHead;
  readonly #window = new ReceiveWindow();
  trailers: Fields = [];
  readonly #queue: Uint8Array[] = [];
  #ended = false;
  #cancelled = false;
  #failure: Error | null = null;
  #waiting: { resolve: (chunk: Uint8Array | null) => void; reject: (error: Error) => void } | null = null;

  constructor(id: ExchangeId, channel: Channel, head: RequestHead) {
    this.#id = id;
    this.#channel = channel;
    this.#head = head;
  }

  get length(): number | undefined {
    return contentLength(this.#head.fields);
  }

  read(): Promise<Uint8Array | null> {
    const chunk = this.#queue.shift();
    if (chunk !== undefined) {
      this.#consumed(chunk.length);
      return Promise.resolve(chunk);
    }
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.#ended) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  readAll(): Promise<Uint8Array> {
    return collect(this);
  }

  cancel(): void {
    this.fail("the exchange is over");
  }

  receive(chunk: Uint8Array, end: boolean): void {
    if (this.#ended) throw new FrameError("data after the end of a body");
    this.#ended = end;
    if (chunk.length > 0) {
      this.#window.receive(chunk.length);
      if (this.#cancelled) this.#consumed(chunk.length);
      else if (this.#waiting === null) this.#queue.push(chunk);
      else {
        this.#waiting.resolve(chunk);
        this.#waiting = null;
        this.#consumed(chunk.length);
      }
    }
    if (end) {
      this.#waiting?.resolve(null);
      this.#waiting = null;
    }
  }

  /** The body ends here, with a trailer section. */
  receiveTrailers(trailers: Fields): void {
    this.trailers = trailers;
    this.receive(NOTHING, true);
  }

  /** What has not been read is lost, though all of it may have come: whoever reads on must not take that for the end. */
  fail(reason: string): void {
    this.#cancelled = true;
    if (this.#ended && this.#queue.length === 0) return;
    for (const chunk of this.#queue.splice(0)) this.#consumed(chunk.length);
    this.#failure ??= new BodyLostError(reason);
    this.#waiting?.reject(this.#failure);
    this.#waiting = null;
  }

  #consumed(bytes: number): void {
    const due = this.#window.consume(bytes);
    if (due > 0 && !this.#ended) this.#channel.writer.credit(this.#id, due);
  }
}
