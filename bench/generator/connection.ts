/** What the project's own generator needs of a client: requests on a connection that it keeps. One file a protocol. */
import type { Load } from "../load.ts";

export interface Connection {
  /** One request, to the end of its answer. @throws {AnswerError} where that is not 2xx with a body of the expected length. */
  request(load: Load): Promise<void>;
  close(): void;
}

/** @param failed is told what ends the connection early */
export type Connect = (port: number, failed: (error: unknown) => void) => Promise<Connection>;

export class AnswerError extends Error {
  override readonly name = "AnswerError";

  constructor(status: string | number, received: number, load: Load) {
    super(`status ${status} with ${received} of ${load.responseBytes} bytes`);
  }
}

/** @throws {AnswerError} */
export function check(status: string | number, received: number, load: Load): void {
  if (!String(status).startsWith("2") || received !== load.responseBytes) {
    throw new AnswerError(status, received, load);
  }
}

/** @returns the pseudo fields and fields of a request, as HTTP/2 and HTTP/3 have them */
export function fieldsOf(port: number, load: Load): Record<string, string> {
  const { upload } = load;
  return {
    ":method": upload === undefined ? "GET" : "POST",
    ":scheme": "https",
    ":authority": `localhost:${port}`,
    ":path": load.path,
    ...(upload === undefined ? {} : { "content-length": `${upload.bytes}` }),
    ...load.fields,
  };
}
