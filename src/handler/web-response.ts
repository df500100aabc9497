/**
 * A web `Response` that remembers what its body was made of. The standard one shows its body only as a stream, and
 * reading a short text through a stream costs a worker several times what all the rest of a response does.
 */

const NativeResponse = globalThis.Response;
/** The content codings that `fetch` decodes by itself. */
const DECODED = /^(gzip|deflate|br|zstd)$/i;

/**
 * What the bodies were made of that somebody has asked for as streams: a response that is made of one, as frameworks do
 * it to change headers, is of the same. Its constructor takes no stream of which something was read.
 */
const sources = new WeakMap<object, unknown>();

class KnownResponse extends NativeResponse {
  /** Frameworks, Elysia for one, look at the name of a value's class. */
  static override readonly name = "Response";

  readonly #source: unknown;

  constructor(body?: ConstructorParameters<typeof NativeResponse>[0], init?: ResponseInit) {
    super(body, init);
    this.#source = body instanceof ReadableStream ? sources.get(body) : keptOf(body);
    // As the Fetch standard has it. Bun does so only when it sends a response itself.
    if (typeof body === "string" && !this.headers.has("content-type")) {
      this.headers.set("content-type", "text/plain;charset=UTF-8");
    }
    // `new Response(upstream.body, upstream)`, as Hono does it to add headers: the headers speak of other bytes.
    if (init instanceof NativeResponse && body === init.body && isDecoded(init)) {
      this.headers.delete("content-encoding");
      this.headers.delete("content-length");
    }
  }

  static override json(data: unknown, init?: ResponseInit): Response {
    const plain = NativeResponse.json(null, init);
    const { status, statusText, headers } = plain;
    const text = JSON.stringify(data);
    if (text === undefined) throw new TypeError(`Response.json: there is no JSON for ${typeof data}`);
    return new KnownResponse(text, { status, statusText, headers });
  }

  static {
    const native = Object.getOwnPropertyDescriptor(NativeResponse.prototype, "body");
    // The types declare a property where the platform has an accessor, which a class may not override with one.
    Object.defineProperty(KnownResponse.prototype, "body", {
      ...native,
      get(this: KnownResponse) {
        const body: ReadableStream | null = native?.get?.call(this);
        if (body !== null && #source in this) sources.set(body, this.#source);
        return body;
      },
    });
    // A plain `Response`, such as one that `fetch` gave, is one of these to whoever asks, but none of a class that extends this one.
    Object.defineProperty(KnownResponse, Symbol.hasInstance, {
      value(this: unknown, value: unknown): boolean {
        if (this === KnownResponse) return value instanceof NativeResponse;
        return Function.prototype[Symbol.hasInstance].call(this, value);
      },
    });
  }

  static sourceOf(response: Response): unknown {
    return #source in response ? response.#source : undefined;
  }
}

/** Of bytes a copy, as the Fetch standard has it: what is done to them later is nothing to the response. */
function keptOf(body: unknown): unknown {
  if (body instanceof ArrayBuffer) return new Uint8Array(body.slice(0));
  if (!ArrayBuffer.isView(body)) return body;
  return new Uint8Array(body.buffer, body.byteOffset, body.byteLength).slice();
}

/** Puts the class in the place of the global one, for handlers that are about to be loaded or made. */
export function installKnownResponse(): void {
  globalThis.Response = KnownResponse;
}

/**
 * `fetch` has made the response, and has decoded its body; its headers still say what came over the network. Only a
 * response from the network has a URL.
 */
export function isDecoded(response: Response): boolean {
  return (
    response.url !== "" &&
    response.body !== null &&
    DECODED.test(response.headers.get("content-encoding") ?? "")
  );
}

/** The file or other blob of which the body was made; null where it was something else. */
export function blobOf(response: Response): Blob | null {
  const source = KnownResponse.sourceOf(response);
  return source instanceof Blob ? source : null;
}

/** The whole body, where it was a text or bytes and nobody has read it; null where it can only be read. */
export function wholeBodyOf(response: Response): Uint8Array | string | null {
  const source = KnownResponse.sourceOf(response);
  if (response.bodyUsed) return null;
  return typeof source === "string" || source instanceof Uint8Array ? source : null;
}
