/** What a file is answered with: validators, conditions, ranges, the fields that describe it. No file is read here. */
import { randomBytes } from "node:crypto";
import type { BigIntStats } from "node:fs";
import { extname } from "node:path";
import mime from "mime";
import type { Fields, FileBody, ResponseHead } from "../exchange.ts";
import { evaluate, formatHttpDate, validatorsOf } from "../http/conditional.ts";
import { fieldValue, withoutField } from "../http/fields.ts";
import { type ByteRange, contentRange, requestedRanges } from "../http/ranges.ts";
import { failureResponse } from "../http/semantics.ts";

/** A file that was changed this lately may be changed again without its time showing it. Milliseconds. */
const SETTLES_AFTER = 2000;
const CRLF = "\r\n";
/** Fields that describe a content that is not there. A 304 keeps what caches update by it (RFC 9110 §15.4.5). */
const NOT_OF_304 = new Set(["content-type", "content-encoding", "content-language"]);
const NOT_OF_FAILURE = new Set([
  ...NOT_OF_304,
  "cache-control",
  "content-disposition",
  "etag",
  "last-modified",
]);

/** A file that is to be sent, as it was when it was looked at. */
export interface Content {
  readonly path: string;
  readonly identity: string;
  /** Bytes. */
  readonly size: number;
}

/** A head with the pieces of the file that belong to it, or with bytes, or with nothing. */
export interface FileResponse {
  readonly head: ResponseHead;
  readonly body: FileBody | Uint8Array | null;
}

/**
 * An entity tag from size and time of change (nanoseconds): what both tell apart has changed. It is strong, which
 * Range needs (RFC 9110 §8.8.1), but for a file that changed in the last two seconds: file systems count time in steps
 * of up to two seconds, and within one it may change again unseen.
 * @param now milliseconds since the Unix epoch
 * @param coding makes the tag of an encoded form differ (RFC 9110 §8.8.3.3)
 */
export function entityTag(stats: BigIntStats, now: number, coding = ""): string {
  const changed = Number(stats.mtimeMs);
  const weak = changed > now - SETTLES_AFTER ? "W/" : "";
  return `${weak}"${stats.size.toString(36)}-${stats.mtimeNs.toString(36)}${coding === "" ? "" : `-${coding}`}"`;
}

/** Never later than now (RFC 9110 §8.8.2.1). @param now milliseconds since the Unix epoch */
export function lastModified(stats: BigIntStats, now: number): string {
  return formatHttpDate(Math.floor(Math.min(Number(stats.mtimeMs), now) / 1000));
}

/** By the extension; texts are UTF-8. */
export function contentType(path: string): string {
  const type = mime.getType(extname(path).slice(1)) ?? "application/octet-stream";
  return type.startsWith("text/") ? `${type}; charset=utf-8` : type;
}

/**
 * A GET or HEAD of a whole representation with status 200, under the request's conditions (RFC 9110 §13) and ranges (§14).
 * @param fields with `content-type`, and the validators `etag` and `last-modified`
 * @param now milliseconds since the Unix epoch
 */
export function conditionalResponse(
  request: { readonly method: string; readonly fields: Fields },
  content: Content,
  fields: Fields,
  now: number,
): FileResponse {
  const validators = validatorsOf(fields);
  const outcome = evaluate(request.method, request.fields, validators);
  if (outcome === "failed") return failure(412, fields, request.method);
  if (outcome === "not modified") {
    return {
      head: { status: 304, fields: fields.filter((_, i) => !NOT_OF_304.has(fields[i & ~1] as string)) },
      body: null,
    };
  }
  const { size } = content;
  const described = [...fields, "accept-ranges", "bytes"];
  const ranges = requestedRanges(request, () => validators, size, now);
  if (ranges === null) return whole(request.method, 200, content, described);
  if (ranges === "not satisfiable") {
    const unsatisfied = [...described, "content-range", contentRange(null, size)];
    return failure(416, unsatisfied, request.method);
  }
  const [first, second] = ranges;
  if (first !== undefined && second === undefined) {
    const of = ["content-range", contentRange(first, size), "content-length", String(first.length)];
    return { head: { status: 206, fields: [...described, ...of] }, body: bodyOf(content, [first]) };
  }
  return multipart(content, described, ranges);
}

/** All of the file, or the part of it that `range` says, with any status. */
export function whole(
  method: string,
  status: number,
  content: Content,
  fields: Fields,
  range: ByteRange = { offset: 0, length: content.size },
): FileResponse {
  const head = { status, fields: [...fields, "content-length", String(range.length)] };
  return { head, body: method === "HEAD" || range.length === 0 ? null : bodyOf(content, [range]) };
}

/** RFC 9110 §14.6. */
function multipart(content: Content, fields: Fields, ranges: readonly ByteRange[]): FileResponse {
  const boundary = randomBytes(18).toString("base64url");
  const type = fieldValue(fields, "content-type");
  const pieces: FileBody["pieces"][number][] = [];
  let between = "";
  for (const range of ranges) {
    const lines = [
      `--${boundary}`,
      `content-type: ${type}`,
      `content-range: ${contentRange(range, content.size)}`,
    ];
    pieces.push(Buffer.from(`${between}${lines.join(CRLF)}${CRLF}${CRLF}`, "latin1"), range);
    between = CRLF;
  }
  pieces.push(Buffer.from(`${CRLF}--${boundary}--${CRLF}`));
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const others = withoutField(fields, "content-type");
  const own = [
    "content-type",
    `multipart/byteranges; boundary=${boundary}`,
    "content-length",
    String(length),
  ];
  return { head: { status: 206, fields: [...others, ...own] }, body: bodyOf(content, pieces) };
}

/** A failure in place of the content that `fields` describe. */
function failure(status: 412 | 416, fields: Fields, method: string): FileResponse {
  const { head, body } = failureResponse(method, status, null);
  const kept = fields.filter((_, i) => !NOT_OF_FAILURE.has(fields[i & ~1] as string));
  return { head: { status, fields: [...kept, ...head.fields] }, body };
}

function bodyOf({ path, identity }: Content, pieces: FileBody["pieces"]): FileBody {
  return { path, identity, pieces };
}
