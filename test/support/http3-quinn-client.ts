/**
 * HTTP/3 by `impit` (quinn, reqwest): the client that reads slowly and uploads as fast as the server allows.
 *
 * What it cannot do: a `signal` before the response has begun is not told to the server (after that it is, and
 * `giveUpAfter` always). It ends a body at an empty DATA frame, which is no end (RFC 9114 §7.2.1). And it discards a
 * complete response when the server answered before it had seen the end of the request and then stopped the request
 * with H3_NO_ERROR, which RFC 9114 §4.1 forbids a client to do. Such a request is sent again where its response is small
 * and of known length, or nothing of it was read; a longer one fails.
 */
import { type HttpMethod, Impit, type ImpitResponse } from "impit";
import {
  CancelledError,
  type Capabilities,
  type Client,
  type ClientRequest,
  type ClientResponse,
  chunksOf,
  methodOf,
  type RequestContent,
  ResponseBody,
} from "./client.ts";

const TIMEOUT = 600_000;
const ATTEMPTS = 5;
/** Bytes up to which a response is read at once, as its body may be discarded as well. */
const READ_AT_ONCE = 1_048_576;

export class QuinnClient implements Client {
  readonly name = "quinn";
  readonly protocol = "HTTP/3";
  readonly capabilities: Capabilities = {
    holdsBackReading: true,
    cancels: "by giveUpAfter only",
    largeUploads: "any",
    keepsToFieldLimit: true,
  };
  readonly #impit = new Impit({
    http3: true,
    ignoreTlsErrors: true,
    followRedirects: false,
    timeout: TIMEOUT,
  });
  readonly #origin: string;

  constructor(server: { readonly port: number }) {
    this.#origin = `https://127.0.0.1:${server.port}`;
  }

  async request(request: ClientRequest): Promise<ClientResponse> {
    const { body } = request;
    if (body !== undefined && !isWhole(body)) return this.#send(request, streamOf(body));
    return this.#attempt(request, body, 1);
  }

  async #attempt(
    request: ClientRequest,
    body: string | Uint8Array | undefined,
    attempt: number,
  ): Promise<ClientResponse> {
    try {
      const response = await this.#send(request, body);
      if (isSmall(response)) return await wholeOf(response);
      if (attempt === ATTEMPTS) return response;
      const again = async () => (await this.#attempt(request, body, attempt + 1)).body;
      const chunks = unlessDiscarded(response.body, again);
      return { ...response, body: new ResponseBody(chunks, () => response.body.cancel()) };
    } catch (error) {
      if (!isDiscardedAnswer(error) || attempt === ATTEMPTS) throw error;
      return this.#attempt(request, body, attempt + 1);
    }
  }

  async #send(
    request: ClientRequest,
    body: string | Uint8Array | ReadableStream<Uint8Array> | undefined,
  ): Promise<ClientResponse> {
    const { path, headers, signal, giveUpAfter } = request;
    signal?.throwIfAborted();
    const sent = this.#impit.fetch(this.#origin + path, {
      forceHttp3: true,
      method: methodOf(request) as HttpMethod,
      headers: { ...headers },
      ...(body === undefined ? {} : { body: typeof body === "string" ? Buffer.from(body) : body }),
      ...(signal === undefined ? {} : { signal }),
      ...(giveUpAfter === undefined ? {} : { timeout: Math.max(1, giveUpAfter) }),
    });
    const response = await sent.catch((error: unknown) => {
      if (signal?.aborted || (giveUpAfter !== undefined && isTimeout(error))) throw new CancelledError();
      throw error;
    });
    return { status: response.status, headers: headersOf(response), body: bodyOf(response, request) };
  }

  /** The native client closes its connections when it is collected; there is no call for it. */
  async close(): Promise<void> {}

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The failure of a request that the server answered and this client did not take the answer of. */
export function isDiscardedAnswer(error: unknown): boolean {
  return error instanceof Error && /RemoteTerminate[^}]*H3_NO_ERROR/.test(error.message);
}

/** What its decoder says of a body that it took an empty DATA frame for the end of. */
export function isCutShort(error: unknown): boolean {
  return error instanceof Error && /kind: Decode.*UnexpectedEof/.test(error.message);
}

function isWhole(body: RequestContent): body is string | Uint8Array {
  return typeof body === "string" || body instanceof Uint8Array;
}

function isSmall({ status, headers }: ClientResponse): boolean {
  return status === 204 || status === 304 || Number(headers["content-length"]) <= READ_AT_ONCE;
}

/** The body; or that of another attempt, where all of this one was discarded: it may be empty, and of unknown length. */
async function* unlessDiscarded(
  body: ResponseBody,
  again: () => Promise<ResponseBody>,
): AsyncGenerator<Uint8Array, void> {
  let isEmpty = true;
  try {
    for await (const chunk of body) {
      isEmpty = false;
      yield chunk;
    }
  } catch (error) {
    if (!isEmpty || !isDiscardedAnswer(error)) throw error;
    yield* await again();
  }
}

async function wholeOf(response: ClientResponse): Promise<ClientResponse> {
  try {
    const bytes = await response.body.bytes();
    return { ...response, body: new ResponseBody(chunksOf(bytes), () => {}) };
  } catch (error) {
    if (isDiscardedAnswer(error)) throw error;
    // The head has come all the same: that the body failed is for whoever reads it.
    return { ...response, body: new ResponseBody(failing(error), () => {}) };
  }
}

// biome-ignore lint/correctness/useYield: it has nothing to give
async function* failing(error: unknown): AsyncGenerator<Uint8Array, void> {
  throw error;
}

function streamOf(body: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const chunks = body[Symbol.asyncIterator]();
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel() {
        await chunks.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}

function headersOf(response: ImpitResponse): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {};
  response.headers.forEach((value, name) => {
    headers[name] = value;
  });
  const cookies = response.headers.getSetCookie();
  if (cookies.length > 0) headers["set-cookie"] = cookies;
  return headers;
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && (error.name === "TimeoutError" || /TimedOut/.test(error.message));
}

function bodyOf(response: ImpitResponse, { signal, giveUpAfter }: ClientRequest): ResponseBody {
  const reader = response.body.getReader();
  const cancel = () => {
    // Rejects where the response has failed before: then there is nothing to give up.
    reader.cancel(new CancelledError()).catch(() => {});
  };
  signal?.addEventListener("abort", cancel, { once: true });
  const chunks = async function* (): AsyncGenerator<Uint8Array, void> {
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((error: unknown) => {
          if (giveUpAfter !== undefined && isTimeout(error)) throw new CancelledError();
          throw error;
        });
        if (signal?.aborted) throw new CancelledError();
        if (done) return;
        yield value;
      }
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  };
  return new ResponseBody(chunks(), cancel);
}
