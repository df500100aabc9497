/** Takes in `multipart/form-data` (RFC 7578): files are streamed to the disk as they come. Loaded with the first form. */
import { type FileHandle, rm } from "node:fs/promises";
import type { Readable } from "node:stream";
import busboy from "busboy";
import type { RequestBody } from "../exchange.ts";
import { type FieldLimits, fieldTooLarge, tooManyFields } from "../http/content.ts";
import { HttpError } from "../http/http-error.ts";
import { type NewFile, UploadedFile, uploadDirectory } from "./uploads.ts";

export interface UploadLimits extends FieldLimits {
  readonly maxFiles: number;
  /** Bytes of one file. */
  readonly maxFileBytes: number;
}

export interface Received {
  /** The text fields, in their order. */
  readonly fields: URLSearchParams;
  readonly files: readonly UploadedFile[];
}

const NAMELESS = "a part of the form has no name";
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be in a file's name
const CONTROLS = /[\0-\x1f\x7f-\x9f]/g;

/**
 * Takes in a form. The next chunk is asked of the client when the disk has taken the one before. Parts that are no
 * `form-data` are passed over.
 * @throws HttpError 400, 413 or 415 (as a rejection), the system's error where the disk fails, what the body's `read`
 * throws; no file is left then
 */
export async function receiveMultipart(
  body: RequestBody,
  contentType: string,
  limits: UploadLimits,
): Promise<Received> {
  const receiver = new Receiver(contentType, limits);
  try {
    return await receiver.receive(body);
  } catch (error) {
    await receiver.discard();
    throw error;
  }
}

class Receiver {
  readonly #limits: UploadLimits;
  readonly #parser: busboy.Busboy;
  readonly #fields = new URLSearchParams();
  /** In the order of their parts; what a part has not become is null. */
  readonly #files: (UploadedFile | null)[] = [];
  /** Every file that was made. */
  readonly #paths: string[] = [];
  /** Those, and those that are being made. */
  #created = 0;
  /** Files that are being taken in. */
  readonly #taking = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | null = null;
  /** Fails what `receive` waits for. */
  #interrupt: (error: unknown) => void = () => {};

  constructor(contentType: string, limits: UploadLimits) {
    const { maxFiles, maxFields, maxFieldBytes } = limits;
    this.#limits = limits;
    try {
      this.#parser = busboy({
        headers: { "content-type": contentType },
        defParamCharset: "utf8",
        // An input in which no file was chosen comes as a file, and is none. It takes a value that is just as long as its limit for
        // cut off: with its name such a field is too large.
        limits: { files: maxFiles + maxFields, fields: maxFields, fieldSize: maxFieldBytes },
      });
    } catch (cause) {
      throw new HttpError(400, "the content-type has no boundary", { cause });
    }
    this.#parser
      .on("file", (name, stream, info) => this.#begin(stream, name, info))
      .on("field", (name, value, info) => this.#add(name, value, info))
      .on("filesLimit", () => this.#fail(tooManyFields(limits)))
      .on("fieldsLimit", () => this.#fail(tooManyFields(limits)))
      .on("error", (error) => this.#fail(brokenForm(error)));
  }

  async receive(body: RequestBody): Promise<Received> {
    const parser = this.#parser;
    const closed = new Promise<void>((resolve) => parser.on("close", resolve));
    for (;;) {
      const chunk = await this.#unlessFailed(() => body.read());
      if (chunk === null) break;
      await this.#unlessFailed(() => written(parser, chunk));
    }
    parser.end();
    await this.#unlessFailed(() => closed);
    await this.#unlessFailed(() => Promise.all(this.#taking));
    return { fields: this.#fields, files: this.#files.filter((file) => file !== null) };
  }

  /** Removes every file, when nothing writes any more. */
  async discard(): Promise<void> {
    this.#failure ??= { error: null };
    // With it the file that it is in.
    this.#parser.destroy();
    await Promise.all(this.#taking);
    await Promise.all(this.#paths.map((path) => rm(path, { force: true })));
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#interrupt(error);
  }

  /** What comes of one step, or the failure that comes first. One at a time. */
  async #unlessFailed<T>(start: () => Promise<T>): Promise<T> {
    if (this.#failure !== null) throw this.#failure.error;
    const failed = Promise.withResolvers<never>();
    this.#interrupt = failed.reject;
    const value = await Promise.race([start(), failed.promise]);
    // It may have come with the step, and after the race was won.
    if (this.#failure !== null) throw (this.#failure as { readonly error: unknown }).error;
    return value;
  }

  #add(name: string | undefined, value: string | undefined, { valueTruncated }: busboy.FieldInfo): void {
    const decoded = asBrowsersMeanIt(name ?? "");
    const bytes = Buffer.byteLength(decoded) + Buffer.byteLength(value ?? "");
    if (name === undefined) this.#fail(new HttpError(400, NAMELESS));
    else if (value === undefined)
      this.#fail(new HttpError(415, "a field of the form has an unknown charset"));
    else if (valueTruncated || bytes > this.#limits.maxFieldBytes) this.#fail(fieldTooLarge(this.#limits));
    else this.#fields.append(decoded, value);
  }

  #begin(stream: Readable, name: string | undefined, info: busboy.FileInfo): void {
    const taken = this.#take(stream, name, info)
      .catch((error: unknown) => this.#fail(error))
      .finally(() => this.#taking.delete(taken));
    this.#taking.add(taken);
  }

  async #take(stream: Readable, name: string | undefined, info: busboy.FileInfo): Promise<void> {
    let broken: unknown = null;
    stream.on("error", (error) => {
      broken = error;
    });
    if (name === undefined) throw new HttpError(400, NAMELESS);
    const { maxFileBytes } = this.#limits;
    const filename = asBrowsersMeanIt(info.filename ?? "").replace(CONTROLS, "");
    const place = this.#files.push(null) - 1;
    let file: NewFile | null = null;
    let size = 0;
    try {
      for await (const chunk of stream as AsyncIterable<Uint8Array>) {
        file ??= await this.#create();
        size += chunk.length;
        if (size > maxFileBytes) {
          throw new HttpError(413, `a file of the form has more than ${maxFileBytes} bytes`);
        }
        await writeAll(file.handle, chunk);
      }
      // Without a name and content it is an input in which no file was chosen.
      if (filename !== "") file ??= await this.#create();
    } catch (error) {
      throw error === broken ? brokenForm(error) : error;
    } finally {
      await file?.handle.close();
    }
    if (file === null) return;
    this.#files[place] = new UploadedFile(asBrowsersMeanIt(name), filename, info.mimeType, size, file.path);
  }

  async #create(): Promise<NewFile> {
    const { maxFiles } = this.#limits;
    if (++this.#created > maxFiles) throw new HttpError(413, `the form has more than ${maxFiles} files`);
    const file = await uploadDirectory.create();
    this.#paths.push(file.path);
    return file;
  }
}

function brokenForm(cause: unknown): HttpError {
  const isHeader = cause instanceof Error && cause.message === "Malformed part header";
  const reason = isHeader
    ? "the header of a part is malformed, or has more than 16384 bytes"
    : "it breaks off before its last boundary";
  return new HttpError(400, `the form is broken: ${reason}`, { cause });
}

/** Browsers write so what would end a quoted name (HTML, "Multipart form data"). */
function asBrowsersMeanIt(name: string): string {
  return name.replace(/%(?:0A|0D|22)/gi, decodeURIComponent);
}

/** Resolves when the parser has passed the chunk on, and whoever takes the files has room for more. */
function written(parser: busboy.Busboy, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve) => parser.write(chunk, () => resolve()));
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length; ) {
    at += (await handle.write(chunk, at, chunk.length - at)).bytesWritten;
  }
}
