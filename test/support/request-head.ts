/** The head of a request, for tests without a socket. */
import type { Fields, RequestHead } from "../../src/exchange.ts";

export function requestHead(fields: Fields = []): RequestHead {
  return {
    protocol: "HTTP/2",
    method: "GET",
    scheme: "https",
    authority: "localhost",
    path: "/",
    fields,
    receivedAt: 0,
    remoteAddress: "127.0.0.1",
    remotePort: 1,
    localPort: 2,
    session: "1",
    stream: 1,
    sendsInterim: true,
    sendsTrailers: true,
  };
}
