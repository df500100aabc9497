/** HTTP/2 by `node:http2`: one session. */
import http2 from "node:http2";
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

const FIELD_LIMIT = 1_048_576;

export class Http2Client implements Client {
  readonly name = "node:http2";
  readonly protocol = "HTTP/2";
  readonly capabilities: Capabilities = {
    holdsBackReading: true,
    cancels: "any request",
    largeUploads: "any",
    keepsToFieldLimit: false,
  };
  /** The session is gone, or the server has announced that it is going. */
  isLost = false;
  readonly #session: http2.ClientHttp2Session;
  readonly #authority: string;

  private constructor(session: http2.ClientHttp2Session, authority: string) {
    this.#session = session;
    this.#authority = authority;
    const lost = () => {
      this.isLost = true;
    };
    session.on("close", lost).on("goaway", lost);
    // Every stream of the session tells of the error by itself.
    session.on("error", lost);
  }

  static async connect(server: { readonly port: number }): Promise<Http2Client> {
    const session = http2.connect(`https://127.0.0.1:${server.port}`, {
      servername: "localhost",
      rejectUnauthorized: false,
      maxSendHeaderBlockLength: FIELD_LIMIT,
      settings: { maxHeaderListSize: FIELD_LIMIT },
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    session.once("connect", () => resolve()).once("error", reject);
    await promise;
    session.off("error", reject);
    return new Http2Client(session, `localhost:${server.port}`);
  }

  async request(request: ClientRequest): Promise<ClientResponse> {
    const signal = signalOf(request);
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<ClientResponse>();
    const length = lengthOf(request.body);
    const stream = this.#session.request(
      {
        ":method": methodOf(request),
        ":path": request.path,
        ":scheme": "https",
        ":authority": this.#authority,
        ...(length === undefined ? {} : { "content-length": length }),
        ...request.headers,
      },
      { endStream: request.body === undefined },
    );
    const abort = () => {
      reject(new CancelledError());
      stream.close(http2.constants.NGHTTP2_CANCEL);
    };
    signal?.addEventListener("abort", abort, { once: true });
    stream.on("error", reject);
    stream.on("close", () => {
      signal?.removeEventListener("abort", abort);
      reject(new Error(`closed before a response, with code ${stream.rstCode}`));
    });
    stream.on("response", ({ ":status": status, ...fields }) => {
      const headers = Object.fromEntries(
        Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
      );
      const cancel = () => stream.close(http2.constants.NGHTTP2_CANCEL);
      const body = new ResponseBody(new IncomingBody(stream, signal).chunks(), cancel);
      resolve({ status: status ?? 0, headers, body });
    });
    if (request.body !== undefined) void upload(stream, request.body);
    return promise;
  }

  async close(): Promise<void> {
    this.#session.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
