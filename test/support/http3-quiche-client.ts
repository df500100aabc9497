/**
 * HTTP/3 by `@currentspace/http3` (Cloudflare's quiche): one connection, raw streams, real resets.
 *
 * Three things it cannot do. It reads ahead of whoever consumes the body, so a slow reader holds nobody back. Quiche
 * counts a connection's flow control wrongly by the size of the request's header section: an upload that fills the
 * connection's window exactly overruns it by some hundred bytes, and the server rightly closes the connection
 * (RFC 9000 §4.1). So no more than half a mebibyte of request bodies is ever under way: sent, and neither brought back
 * by a response nor at the end of its stream. And quiche lets an
 * empty STREAM frame with FIN follow a RESET_STREAM where it had not sent the whole request by then, for which the server
 * closes the connection as well (RFC 9000 §3.1). So only requests without a body are reset, and not before their
 * response has begun or quiche has had the time to send them.
 */
import { type ClientHttp3Stream, connectAsync, type Http3ClientSession } from "@currentspace/http3";
import {
  CancelledError,
  type Capabilities,
  type Client,
  type ClientRequest,
  type ClientResponse,
  lengthOf,
  methodOf,
  ResponseBody,
  signalOf,
} from "./client.ts";
import { IncomingBody, upload } from "./streams.ts";

const H3_REQUEST_CANCELLED = 0x10c;
const UNDER_WAY = 524_288;
/** Milliseconds after which a request without a body has left quiche. */
const SENT_AFTER = 100;
/** Milliseconds. */
const MORE_STREAMS_WITHIN = 5_000;

export class QuicheClient implements Client {
  readonly name = "quiche";
  readonly protocol = "HTTP/3";
  readonly capabilities: Capabilities = {
    holdsBackReading: false,
    cancels: "requests without a body",
    largeUploads: "echoed",
    keepsToFieldLimit: false,
  };
  /** How the connection was closed, where it was. */
  closedBecause: string | null = null;
  readonly #session: Http3ClientSession;
  readonly #underWay = new Budget(UNDER_WAY);
  readonly #authority: string;

  private constructor(session: Http3ClientSession, authority: string) {
    this.#session = session;
    this.#authority = authority;
    session.on("close", (info) => {
      this.closedBecause = JSON.stringify(info);
    });
    // A lost connection is told by each of its streams, and by the close event.
    session.on("error", () => {});
  }

  static async connect(server: { readonly port: number }): Promise<QuicheClient> {
    const session = await connectAsync(`https://127.0.0.1:${server.port}`, {
      rejectUnauthorized: false,
      servername: "localhost",
      runtimeMode: "portable",
      connectTimeoutMs: 5_000,
    });
    return new QuicheClient(session, `localhost:${server.port}`);
  }

  request(request: ClientRequest): Promise<ClientResponse> {
    return this.#send(request, this.#underWay);
  }

  /** The same without a bound of what is under way: for a server that takes in whatever comes. */
  uploadFreely(request: ClientRequest): Promise<ClientResponse> {
    return this.#send(request, new Budget(Number.POSITIVE_INFINITY));
  }

  async #send(request: ClientRequest, underWay: Budget): Promise<ClientResponse> {
    const signal = signalOf(request);
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<ClientResponse>();
    const length = lengthOf(request.body);
    const stream = await this.#open(
      {
        ":method": methodOf(request),
        ":scheme": "https",
        ":authority": this.#authority,
        ":path": request.path,
        ...(length === undefined ? {} : { "content-length": String(length) }),
        ...request.headers,
      },
      request.body === undefined,
    );
    const received = new IncomingBody(stream, signal);
    const reset = () => {
      if (request.body === undefined) stream.close(H3_REQUEST_CANCELLED);
    };
    const opened = performance.now();
    let isAnswered = false;
    let resetLater: ReturnType<typeof setTimeout> | undefined;
    const abort = () => {
      reject(new CancelledError());
      const early = opened + SENT_AFTER - performance.now();
      if (isAnswered || early <= 0) reset();
      else resetLater = setTimeout(reset, early);
    };
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    stream.on("error", reject);
    stream.on("close", () => {
      signal?.removeEventListener("abort", abort);
      clearTimeout(resetLater);
      reject(new Error("closed before a response"));
    });
    stream.on("response", ({ ":status": status, ...headers }) => {
      isAnswered = true;
      if (signal?.aborted) reset();
      const body = new ResponseBody(received.chunks(), reset);
      resolve({ status: Number(status), headers, body });
    });
    if (request.body !== undefined) {
      const share = underWay.share();
      stream.on("data", (chunk) => share.returned(chunk.length)).on("close", () => share.end());
      void upload(stream, request.body, (bytes) => share.take(bytes));
    }
    return promise;
  }

  /** Where the server allows no more streams for now (RFC 9000 §4.6), the library fails rather than wait. */
  async #open(headers: Record<string, string>, endStream: boolean): Promise<ClientHttp3Stream> {
    const deadline = performance.now() + MORE_STREAMS_WITHIN;
    for (;;) {
      try {
        return await this.#session.requestAsync(headers, { endStream });
      } catch (error) {
        const isLimit = error instanceof Error && error.message.includes("StreamLimit");
        if (!isLimit || performance.now() > deadline) throw error;
        await Bun.sleep(5);
      }
    }
  }

  async close(): Promise<void> {
    await this.#session.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Bytes that a connection may have under way, shared by its streams. */
class Budget {
  readonly #limit: number;
  #used = 0;
  #changed = Promise.withResolvers<void>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  share(): { take(bytes: number): Promise<void>; returned(bytes: number): void; end(): void } {
    let held = 0;
    let isOver = false;
    const release = (bytes: number) => {
      held -= bytes;
      this.#used -= bytes;
      this.#changed.resolve();
      this.#changed = Promise.withResolvers<void>();
    };
    return {
      take: async (bytes) => {
        while (this.#used > 0 && this.#used + bytes > this.#limit && !isOver) await this.#changed.promise;
        if (isOver) return;
        held += bytes;
        this.#used += bytes;
      },
      returned: (bytes) => release(Math.min(bytes, held)),
      end: () => {
        isOver = true;
        release(held);
      },
    };
  }
}
