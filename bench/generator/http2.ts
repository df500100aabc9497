/** HTTP/2 by `node:http2`. */
import { createReadStream } from "node:fs";
import { type ClientHttp2Session, connect } from "node:http2";
import { pipeline } from "node:stream/promises";
import type { Load } from "../load.ts";
import { type Connection, check, fieldsOf } from "./connection.ts";

export async function connectHttp2(port: number, failed: (error: unknown) => void): Promise<Connection> {
  const session = connect(`https://127.0.0.1:${port}`, {
    rejectUnauthorized: false,
    servername: "localhost",
  });
  await new Promise((resolve, reject) => {
    session.once("connect", resolve);
    session.once("error", reject);
  });
  session.on("error", failed);
  return { request: (load) => request(session, port, load), close: () => session.destroy() };
}

async function request(session: ClientHttp2Session, port: number, load: Load): Promise<void> {
  const { upload } = load;
  const stream = session.request(fieldsOf(port, load), { endStream: upload === undefined });
  let status = 0;
  let received = 0;
  stream.on("response", (fields) => {
    status = Number(fields[":status"]);
  });
  stream.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  const ended = new Promise<void>((resolve, reject) => {
    stream.on("end", resolve);
    stream.on("error", reject);
    stream.on("aborted", () => reject(new Error("the server reset the stream")));
  });
  if (upload !== undefined) await pipeline(createReadStream(upload.file), stream);
  await ended;
  check(status, received, load);
}
