/** Every client the suites are run with. Two share no code with the server: quinn and quiche. */
import type { Client, Protocol } from "./client.ts";
import { Http1Client } from "./http1-client.ts";
import { Http2Client } from "./http2-client.ts";
import { QuicheClient } from "./http3-quiche-client.ts";
import { QuinnClient } from "./http3-quinn-client.ts";

export interface Endpoint {
  readonly port: number;
  readonly scheme: string;
}

export interface ClientKind {
  readonly name: string;
  readonly protocol: Protocol;
  open(server: Endpoint): Promise<Client>;
}

export const HTTP1: ClientKind = {
  name: "HTTP/1.1 by node:https",
  protocol: "HTTP/1.1",
  open: async (server) => new Http1Client(server),
};

export const HTTP2: ClientKind = {
  name: "HTTP/2 by node:http2",
  protocol: "HTTP/2",
  open: (server) => Http2Client.connect(server),
};

export const QUICHE: ClientKind = {
  name: "HTTP/3 by quiche",
  protocol: "HTTP/3",
  open: (server) => QuicheClient.connect(server),
};

export const QUINN: ClientKind = {
  name: "HTTP/3 by quinn",
  protocol: "HTTP/3",
  open: async (server) => new QuinnClient(server),
};

export const ALL_CLIENTS: readonly ClientKind[] = [HTTP1, HTTP2, QUICHE, QUINN];

/** One client a protocol, each of which can hold back reading and upload at will. */
export const SLOW_CLIENTS: readonly ClientKind[] = [HTTP1, HTTP2, QUINN];

/** One client a protocol, each of which can reset a stream at any moment. */
export const RESETTING_CLIENTS: readonly ClientKind[] = [HTTP1, HTTP2, QUICHE];
