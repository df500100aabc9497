/** What a test asks of an HTTP client, whatever the protocol and whoever wrote it. */

export type Protocol = "HTTP/1.1" | "HTTP/2" | "HTTP/3";

/** Names in lower case; a field that came more than once as a list, where the client tells. */
export type ResponseHeaders = Readonly<Record<string, string | readonly string[]>>;

export type RequestContent = string | Uint8Array | AsyncIterable<Uint8Array>;

export interface ClientRequest {
  /** GET where there is no body, POST where there is. */
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: RequestContent;
  /** Gives the request up: the stream is reset, or the connection closed on HTTP/1.1. */
  readonly signal?: AbortSignal;
  /** The same, after so many milliseconds. */
  readonly giveUpAfter?: number;
}

export interface ClientResponse {
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly body: ResponseBody;
}

/** Where the clients differ. What one cannot do is tested with another. */
export interface Capabilities {
  /** Reading slowly holds the server back. */
  readonly holdsBackReading: boolean;
  /** What a `signal` or `giveUpAfter` really resets before the response has begun. */
  readonly cancels: "any request" | "requests without a body" | "by giveUpAfter only";
  /** "echoed": sends a large body only as fast as the response brings it back. */
  readonly largeUploads: "any" | "echoed";
  /** Does not send header fields beyond what the server said it takes (SETTINGS), but fails by itself. */
  readonly keepsToFieldLimit: boolean;
}

export interface Client extends AsyncDisposable {
  readonly name: string;
  readonly protocol: Protocol;
  readonly capabilities: Capabilities;
  /** Resolves with the head of the final response. Rejects where the stream ended without one. */
  request(request: ClientRequest): Promise<ClientResponse>;
  close(): Promise<void>;
}

/** A request was given up by its own signal. */
export class CancelledError extends Error {
  override readonly name = "CancelledError";
}

/** A response body, read piece by piece: what is not asked for is not read. */
export class ResponseBody {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #cancel: () => void;

  constructor(chunks: AsyncIterator<Uint8Array>, cancel: () => void) {
    this.#chunks = chunks;
    this.#cancel = cancel;
  }

  /** The next piece, or null at the end. Rejects where the response was cut short. */
  async read(): Promise<Uint8Array | null> {
    const { done, value } = await this.#chunks.next();
    return done ? null : value;
  }

  /** Gives the rest up. */
  cancel(): void {
    this.#cancel();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    for (let chunk = await this.read(); chunk !== null; chunk = await this.read()) yield chunk;
  }

  async bytes(): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of this) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }

  async json<T = unknown>(): Promise<T> {
    return JSON.parse(await this.text());
  }

  /** Length and SHA-256 of the body, without keeping it. */
  async digest(): Promise<{ length: number; sha256: string }> {
    const hasher = new Bun.CryptoHasher("sha256");
    let length = 0;
    for await (const chunk of this) {
      hasher.update(chunk);
      length += chunk.length;
    }
    return { length, sha256: hasher.digest("hex") };
  }
}

/** The method of a request that names none. */
export function methodOf(request: ClientRequest): string {
  return request.method ?? (request.body === undefined ? "GET" : "POST");
}

/** What tells that the request is given up. */
export function signalOf({ signal, giveUpAfter }: ClientRequest): AbortSignal | undefined {
  if (giveUpAfter === undefined) return signal;
  const timeout = AbortSignal.timeout(giveUpAfter);
  return signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
}

/** The content in pieces of at most 64 KiB. */
export async function* chunksOf(content: RequestContent): AsyncGenerator<Uint8Array, void> {
  if (typeof content !== "string" && !(content instanceof Uint8Array)) {
    yield* content;
    return;
  }
  const bytes = Buffer.from(content);
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
}

/** The length of the content where it is known. */
export function lengthOf(content: RequestContent | undefined): number | undefined {
  if (typeof content === "string") return Buffer.byteLength(content);
  return content instanceof Uint8Array ? content.length : undefined;
}

export function header(response: ClientResponse, name: string): string | undefined {
  const value = response.headers[name];
  return value === undefined || typeof value === "string" ? value : value.join(", ");
}
