/** HTTP/1.1 by `node:https` (or `node:http`, for a server without TLS). */
import http from "node:http";
import https from "node:https";
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

const MAX_HEADER_SIZE = 1_048_576;

export class Http1Client implements Client {
  readonly name = "node:https";
  readonly protocol = "HTTP/1.1";
  readonly capabilities: Capabilities = {
    holdsBackReading: true,
    cancels: "any request",
    largeUploads: "any",
    keepsToFieldLimit: false,
  };
  readonly #agent: http.Agent;
  readonly #request: typeof https.request;
  readonly #port: number;

  constructor(server: { readonly port: number; readonly scheme: string }) {
    const module = server.scheme === "http" ? http : https;
    this.#agent = new module.Agent({ keepAlive: true });
    this.#request = module.request;
    this.#port = server.port;
  }

  async request(request: ClientRequest): Promise<ClientResponse> {
    const signal = signalOf(request);
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<ClientResponse>();
    const length = lengthOf(request.body);
    const outgoing = this.#request({
      host: "127.0.0.1",
      port: this.#port,
      servername: "localhost",
      rejectUnauthorized: false,
      agent: this.#agent,
      maxHeaderSize: MAX_HEADER_SIZE,
      method: methodOf(request),
      path: request.path,
      headers: { ...(length === undefined ? {} : { "content-length": length }), ...request.headers },
    });
    const abort = () => {
      reject(new CancelledError());
      outgoing.destroy();
    };
    signal?.addEventListener("abort", abort, { once: true });
    outgoing.on("error", reject);
    outgoing.on("close", () => {
      signal?.removeEventListener("abort", abort);
      reject(new Error("closed before a response"));
    });
    outgoing.on("response", (incoming) => {
      const headers = Object.fromEntries(
        Object.entries(incoming.headers).flatMap(([name, value]) =>
          value === undefined ? [] : [[name, value]],
        ),
      );
      resolve({
        status: incoming.statusCode ?? 0,
        headers,
        body: new ResponseBody(new IncomingBody(incoming, signal).chunks(), () => outgoing.destroy()),
      });
    });
    if (request.body === undefined) outgoing.end();
    else {
      outgoing.flushHeaders();
      void upload(outgoing, request.body);
    }
    return promise;
  }

  async close(): Promise<void> {
    this.#agent.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
