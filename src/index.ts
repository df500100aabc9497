/** Tercet: one request handler over HTTP/1.1, HTTP/2 and HTTP/3, in reactor and worker processes. */
export type { Protocol } from "./exchange.ts";
export type { FetchHandler } from "./handler/fetch.ts";
export type { HttpRequest, ServerVariables } from "./handler/request.ts";
export { type Chunk, type HttpResponse, ResponseStateError } from "./handler/response.ts";
export type { RequestHandler } from "./handler/run.ts";
export { CertificateError } from "./manager/certificate.ts";
export { StartError } from "./manager/manager.ts";
export type { ReactorStats, ServerStats, WorkerStats } from "./manager/messages.ts";
export { OptionError, type ServerOptions } from "./options.ts";
export type { ExchangeSnapshot, ProtocolCounts } from "./reactor/registry.ts";
export { Server, type ServerEvents } from "./server.ts";
