/** Static files, answered by the reactor without waking a worker: which file a path names, if any, and its response. */

import type { BigIntStats } from "node:fs";
import { realpath, stat } from "node:fs/promises";
import { join, sep } from "node:path";
import type { Fields } from "../exchange.ts";
import { acceptedEncodings } from "../http/accept.ts";
import { listValue } from "../http/fields.ts";
import { failureResponse } from "../http/semantics.ts";
import type { ResolvedStatic } from "../options.ts";
import { FileError, fileError, identityOf } from "./open.ts";
import { conditionalResponse, contentType, entityTag, type FileResponse, lastModified } from "./response.ts";

/** Precompressed siblings by their content coding, in the order preferred among equals. */
const SIBLINGS = { br: ".br", zstd: ".zst", gzip: ".gz" } as const;
const CODINGS = Object.keys(SIBLINGS) as readonly (keyof typeof SIBLINGS)[];
/** Types of which a compressed form is looked for; the others are compressed in themselves. */
const COMPRESSIBLE =
  /^(?:text\/|image\/svg|image\/bmp|font\/[ot]tf|application\/(?:.*\+)?(?:json|xml|javascript|wasm|manifest))/;
/** The path names nothing that is to be seen. */
const NOT_THERE = new Set(["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "EINVAL"]);
const DENIED = new Set(["EACCES", "EPERM"]);

interface Request {
  readonly method: string;
  readonly path: string;
  readonly fields: Fields;
}

interface Found {
  readonly path: string;
  readonly stats: BigIntStats;
}

export class StaticFiles {
  readonly #roots: readonly ResolvedStatic[];

  constructor(roots: readonly ResolvedStatic[]) {
    this.#roots = roots;
  }

  /** Whether a file may be meant: what is not under a prefix costs no look at the disk. */
  mayHave(path: string): boolean {
    return this.#roots.some(({ prefix }) => isUnder(path, prefix));
  }

  /**
   * The response of a path that names a file; null where it is for the handler.
   * @throws FileError (as a rejection) where the system fails: too many open files, a broken disk
   */
  async answer(request: Request): Promise<FileResponse | null> {
    for (const root of this.#roots) {
      const answer = isUnder(request.path, root.prefix) ? await answerFrom(root, request) : null;
      if (answer !== null) return answer;
    }
    return null;
  }
}

async function answerFrom(root: ResolvedStatic, request: Request): Promise<FileResponse | null> {
  const query = request.path.indexOf("?");
  const path = query === -1 ? request.path : request.path.slice(0, query);
  const names = namesOf(path.slice(root.prefix.length));
  if (names === null) return null;
  const hidden = isHidden(names, root.prefix);
  if (hidden && root.dotfiles === "ignore") return null;
  if (hidden && root.dotfiles === "deny") return failure(request, 403);
  try {
    return await answerNamed(root, names, path, request);
  } catch (error) {
    if (!(error instanceof FileError && DENIED.has(error.code))) throw error;
    return failure(request, 403);
  }
}

/** Whether one of the names begins with a dot, but for the folder of what a site tells everybody (RFC 8615 §3). */
function isHidden(names: readonly string[], prefix: string): boolean {
  const isWellKnown = prefix === "" && names[0] === ".well-known";
  return names.slice(isWellKnown ? 1 : 0).some((name) => name.startsWith("."));
}

async function answerNamed(
  root: ResolvedStatic,
  names: readonly string[],
  path: string,
  request: Request,
): Promise<FileResponse | null> {
  const { index } = root;
  const asDirectory = names.at(-1) === "";
  if (asDirectory && index === false) return null;
  const named = join(root.root, ...names);
  const found = await find(root.root, asDirectory ? join(named, index as string) : named);
  if (found === null) return null;
  if (found.stats.isDirectory()) {
    if (asDirectory || index === false) return null;
    const page = await find(root.root, join(named, index));
    return page?.stats.isFile() ? redirect(request, path) : null;
  }
  // A pipe would keep its reader waiting; a device is no content.
  if (!found.stats.isFile()) return null;
  if (request.method !== "GET" && request.method !== "HEAD")
    return failure(request, 405, ["allow", "GET, HEAD"]);
  return answerFile(root, found, request);
}

async function answerFile(root: ResolvedStatic, original: Found, request: Request): Promise<FileResponse> {
  const type = contentType(original.path);
  const fields = ["content-type", type];
  let chosen = original;
  let coding = "";
  if (COMPRESSIBLE.test(type)) {
    // Said of every form, or a cache would give one of them to all.
    fields.push("vary", "accept-encoding");
    const accepted = acceptedEncodings(listValue(request.fields, "accept-encoding") ?? null, CODINGS);
    const form = await firstForm(root, original, accepted);
    if (form === null) return failure(request, 406, ["vary", "accept-encoding"]);
    ({ chosen, coding } = form);
    if (coding !== "") fields.push("content-encoding", coding);
  }
  const { path, stats } = chosen;
  const now = Date.now();
  const cacheControl = `max-age=${root.maxAge}${root.immutable ? ", immutable" : ""}`;
  fields.push("cache-control", cacheControl, "etag", entityTag(stats, now, coding));
  fields.push("last-modified", lastModified(stats, now));
  const content = { path, identity: identityOf(stats, true), size: Number(stats.size) };
  return conditionalResponse(request, content, fields, now);
}

/** The first of the accepted forms that is there; the original is. Null where the client refuses what there is. */
async function firstForm(
  root: ResolvedStatic,
  original: Found,
  accepted: readonly string[],
): Promise<{ chosen: Found; coding: string } | null> {
  for (const coding of accepted) {
    if (coding === "identity") return { chosen: original, coding: "" };
    const sibling = await find(root.root, original.path + SIBLINGS[coding as keyof typeof SIBLINGS]);
    if (sibling?.stats.isFile()) return { chosen: sibling, coding };
  }
  return null;
}

/**
 * The names that a path goes through, decoded; the last is empty where the path ends in a slash. Null for what names no
 * file of any root: dot segments, empty ones, and those that hold what divides names, or ends them, on some system.
 * Nothing else is folded or trimmed: a name is the file's, octet by octet.
 */
export function namesOf(path: string): string[] | null {
  const names: string[] = [];
  const segments = path.split("/");
  for (let i = 1; i < segments.length; i++) {
    const name = decoded(segments[i] as string);
    if (name === null || (name === "" && i < segments.length - 1)) return null;
    if (name === "." || name === ".." || /[\0/\\]/.test(name)) return null;
    names.push(name);
  }
  return names;
}

function decoded(segment: string): string | null {
  if (!segment.includes("%")) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    // No UTF-8, or no percent-encoding: no name of a file that this server can open.
    return null;
  }
}

/** What a path leads to, if it is inside the root after every symbolic link. The root may itself be one, and be changed. */
async function find(root: string, path: string): Promise<Found | null> {
  let stats: BigIntStats;
  try {
    stats = await stat(path, { bigint: true });
  } catch (error) {
    const failed = fileError(path, error);
    if (NOT_THERE.has(failed.code)) return null;
    throw failed;
  }
  try {
    const [realRoot, real] = await Promise.all([realpath(root), realpath(path)]);
    const inside = realRoot.endsWith(sep) ? realRoot : realRoot + sep;
    return real === realRoot || real.startsWith(inside) ? { path: real, stats } : null;
  } catch (error) {
    // It was there a moment ago: replaced, so that it has to be looked for again.
    throw fileError(path, error);
  }
}

function isUnder(path: string, prefix: string): boolean {
  if (!path.startsWith(prefix)) return false;
  const next = path[prefix.length];
  return next === "/" || (prefix !== "" && (next === undefined || next === "?"));
}

/** To the same path with a slash at its end: it has no empty segments, and so leads to no other host. */
function redirect(request: Request, path: string): FileResponse {
  const location = `${path}/${request.path.slice(path.length)}`;
  return { head: { status: 308, fields: ["location", location, "content-length", "0"] }, body: null };
}

function failure(request: Request, status: 403 | 405 | 406, fields: Fields = []): FileResponse {
  const { head, body } = failureResponse(request.method, status, null);
  return { head: { status, fields: [...head.fields, ...fields] }, body };
}
