/** HTTP/1.1 by `node:https`: one connection that is kept. */
import { createReadStream } from "node:fs";
import { Agent, request as send } from "node:https";
import { pipeline } from "node:stream/promises";
import { HEAD_LIMIT } from "../apps/answers.ts";
import type { Load } from "../load.ts";
import { type Connection, check } from "./connection.ts";

export async function connectHttp1(port: number): Promise<Connection> {
  // The first request connects.
  const agent = new Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
  return { request: (load) => request(agent, port, load), close: () => agent.destroy() };
}

async function request(agent: Agent, port: number, load: Load): Promise<void> {
  const { path, upload, fields } = load;
  const headers = {
    host: `localhost:${port}`,
    ...(upload === undefined ? {} : { "content-length": upload.bytes }),
    ...fields,
  };
  const method = upload === undefined ? "GET" : "POST";
  let status = 0;
  let received = 0;
  const sent = send({
    agent,
    maxHeaderSize: HEAD_LIMIT,
    host: "127.0.0.1",
    servername: "localhost",
    port,
    path,
    method,
    headers,
  });
  const ended = new Promise<void>((resolve, reject) => {
    sent.on("error", reject);
    sent.on("response", (response) => {
      status = response.statusCode ?? 0;
      response.on("data", (chunk: Buffer) => {
        received += chunk.length;
      });
      response.on("end", resolve);
      response.on("error", reject);
    });
  });
  if (upload === undefined) sent.end();
  else await pipeline(createReadStream(upload.file), sent);
  await ended;
  check(status, received, load);
}
