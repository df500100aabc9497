/** `response.sendfile`: looks at the file in the worker, and has the reactor send it. */
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { inspect } from "node:util";
import type { Exchange, Fields } from "../exchange.ts";
import { fieldValue, withoutField } from "../http/fields.ts";
import { forbidsBody } from "../http/semantics.ts";
import { checkRegular, FileError, fileError, identityOf } from "./open.ts";
import {
  conditionalResponse,
  contentType,
  entityTag,
  type FileResponse,
  lastModified,
  whole,
} from "./response.ts";

/** What the handler said of the response. */
export interface SendFileRequest {
  readonly path: string;
  readonly offset: number | undefined;
  readonly length: number | undefined;
  readonly status: number;
  readonly fields: Fields;
}

/**
 * What to answer with; nothing is sent.
 * @throws FileError, RangeError (as a rejection)
 */
export async function fileResponseOf(exchange: Exchange, asked: SendFileRequest): Promise<FileResponse> {
  checkArguments(asked);
  const path = resolve(asked.path);
  const stats = await look(path);
  const size = Number(stats.size);
  const content = { path, identity: identityOf(stats, false), size };
  const fields = withoutField(asked.fields, "content-length");
  if (fieldValue(fields, "content-type") === undefined) fields.push("content-type", contentType(path));
  const { status, offset = 0, length = Math.max(0, size - offset) } = asked;
  if (offset + length > size) {
    throw new RangeError(
      `sendfile: ${path} has ${size} bytes, and not those from ${offset} to ${offset + length}`,
    );
  }
  const { method } = exchange;
  const isWhole = asked.offset === undefined && asked.length === undefined;
  if (forbidsBody("GET", status)) return { head: { status, fields: asked.fields }, body: null };
  if (!isWhole || status !== 200 || (method !== "GET" && method !== "HEAD")) {
    return whole(method, status, content, fields, { offset, length });
  }
  const now = Date.now();
  if (fieldValue(fields, "etag") === undefined) fields.push("etag", entityTag(stats, now));
  if (fieldValue(fields, "last-modified") === undefined)
    fields.push("last-modified", lastModified(stats, now));
  return conditionalResponse(exchange, content, fields, now);
}

function checkArguments({ path, offset, length }: SendFileRequest): void {
  if (typeof path !== "string") throw new TypeError(`sendfile: the path is ${typeof path}, not a string`);
  for (const [name, value] of [["offset", offset] as const, ["length", length] as const]) {
    if (value !== undefined && (!Number.isSafeInteger(value) || value < 0)) {
      throw new RangeError(`sendfile: ${name} is ${inspect(value)}, not a number of bytes`);
    }
  }
  if (path.includes("\0")) throw new FileError("EINVAL", "sendfile: the path has a NUL");
}

async function look(path: string) {
  try {
    const [stats] = await Promise.all([stat(path, { bigint: true }), access(path, constants.R_OK)]);
    checkRegular(path, stats);
    return stats;
  } catch (error) {
    throw fileError(path, error);
  }
}
