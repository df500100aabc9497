/// <reference types="node" preserve="true" />
/** Tercet: one request handler over HTTP/1.1, HTTP/2 and HTTP/3, in reactor and worker processes. */
export { CloneError } from "./clone/parts.ts";
export type {
  Connection,
  ConnectionClose,
  ConnectionHandshake,
  ConnectionInfo,
  FormerPath,
} from "./connection.ts";
export type { Protocol, RequestHead } from "./exchange.ts";
export { FileError } from "./files/open.ts";
export type { EventStream, EventStreamOptions, ServerSentEvent } from "./handler/event-stream.ts";
export type { FetchHandler } from "./handler/fetch.ts";
export type { FetchContext, FetchEnv } from "./handler/fetch-context.ts";
export type { Form, HttpRequest, ServerVariables } from "./handler/request.ts";
export { type Chunk, type FieldValue, type HttpResponse, ResponseStateError } from "./handler/response.ts";
export type { RequestHandler } from "./handler/run.ts";
export type { UploadedFile } from "./handler/uploads.ts";
export { HttpError } from "./http/http-error.ts";
export type { Priority } from "./http/priority.ts";
export type { CookieOptions } from "./http/set-cookie.ts";
export type { Http3Options, QuicOptions } from "./http3-options.ts";
export { CertificateError } from "./manager/certificate.ts";
export type {
  MessageSender,
  ProcessStats,
  ReactorStats,
  ServerStats,
  TaskWorkerStats,
  WorkerStats,
} from "./manager/messages.ts";
export { ReloadError } from "./manager/reload-error.ts";
export { StartError } from "./manager/start-error.ts";
export {
  type Coding,
  type CompressionOptions,
  type DispatchCandidate,
  type DispatchFunction,
  OptionError,
  type ServerOptions,
  type StaticOptions,
  type TasksOptions,
  type UploadOptions,
} from "./options.ts";
export type { ExchangeSnapshot, ProtocolCounts } from "./reactor/registry.ts";
export { Server, type ServerEvents } from "./server.ts";
export type { Column, Columns, Row, TableSchema } from "./sharing/schema.ts";
export type { RowOptions, Table } from "./sharing/table.ts";
export { TableError } from "./sharing/table-error.ts";
export { TaskError, TaskLostError, TaskQueueFullError, TaskTimeoutError } from "./tasks/errors.ts";
export type { Task, TaskHandler, TaskOptions } from "./tasks/task.ts";
