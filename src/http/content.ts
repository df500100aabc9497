/** A request's content by its media type (RFC 9110 §8.3): texts, JSON, and the fields of forms and queries. */
import { MIMEType } from "node:util";
import { HttpError } from "./http-error.ts";

export interface MediaType {
  /** Type and subtype in lower case; empty where the field is missing or is no media type. */
  readonly essence: string;
  parameter(name: string): string | null;
}

export interface FieldLimits {
  readonly maxFields: number;
  /** Bytes of one field's name and value. */
  readonly maxFieldBytes: number;
}

const NO_TYPE: MediaType = { essence: "", parameter: () => null };
const JSON_TYPE = /^application\/(?:json|[!#$&^_.+a-z0-9-]+\+json)$/;

export function mediaTypeOf(contentType: string | undefined): MediaType {
  if (contentType === undefined) return NO_TYPE;
  try {
    const { essence, params } = new MIMEType(contentType);
    return { essence, parameter: (name) => params.get(name) };
  } catch {
    // What is no media type is not one that anybody here takes.
    return NO_TYPE;
  }
}

/** The text, by the charset that the media type names; UTF-8 where it names none. @throws HttpError 415 */
export function decodeText(bytes: Uint8Array, type: MediaType): string {
  return decoderOf(type.parameter("charset") ?? "utf-8", false).decode(bytes);
}

/** @throws HttpError 415 for another media type, 400 for what is no JSON in UTF-8 (RFC 8259 §8.1) */
export function parseJson(bytes: Uint8Array, type: MediaType): unknown {
  if (!JSON_TYPE.test(type.essence)) {
    throw new HttpError(415, "the content-type must be application/json, or one that ends in +json");
  }
  const text = decodeUtf8(bytes, type);
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the content.
    throw new HttpError(
      400,
      text.trim() === "" ? "there is no JSON: the body is empty" : "the body is not JSON",
    );
  }
}

/**
 * The fields of an `application/x-www-form-urlencoded` body, in their order.
 * @throws HttpError 400 for what is not percent-encoded UTF-8, 413 over a limit, 415 for another charset
 */
export function parseUrlencoded(bytes: Uint8Array, type: MediaType, limits: FieldLimits): URLSearchParams {
  const text = decodeUtf8(bytes, type);
  const fields = new URLSearchParams();
  let count = 0;
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf("&", at);
    const pair = text.slice(at, end === -1 ? text.length : end);
    at += pair.length + 1;
    if (pair === "") continue;
    if (++count > limits.maxFields) throw tooManyFields(limits);
    const equals = pair.indexOf("=");
    const name = percentDecoded(equals === -1 ? pair : pair.slice(0, equals));
    const value = equals === -1 ? "" : percentDecoded(pair.slice(equals + 1));
    if (Buffer.byteLength(name) + Buffer.byteLength(value) > limits.maxFieldBytes)
      throw fieldTooLarge(limits);
    fields.append(name, value);
  }
  return fields;
}

/** By name, the last value of each, as PHP has it. */
export function lastValues(fields: URLSearchParams): Record<string, string> {
  // No prototype: a field may be called "constructor".
  const values: Record<string, string> = Object.create(null);
  for (const [name, value] of fields) values[name] = value;
  return values;
}

/** @param fatal what the charset has not is an error, rather than U+FFFD */
function decoderOf(charset: string, fatal: boolean): TextDecoder {
  try {
    return new TextDecoder(charset as ConstructorParameters<typeof TextDecoder>[0], { fatal });
  } catch (cause) {
    throw new HttpError(415, "the content-type names a charset that is not known", { cause });
  }
}

export function tooManyFields({ maxFields }: FieldLimits): HttpError {
  return new HttpError(413, `the form has more than ${maxFields} fields`);
}

export function fieldTooLarge({ maxFieldBytes }: FieldLimits): HttpError {
  return new HttpError(413, `a field of the form has more than ${maxFieldBytes} bytes`);
}

function decodeUtf8(bytes: Uint8Array, type: MediaType): string {
  const charset = type.parameter("charset")?.toLowerCase() ?? "utf-8";
  if (charset !== "utf-8" && charset !== "utf8") throw new HttpError(415, "the charset must be UTF-8");
  try {
    return decoderOf("utf-8", true).decode(bytes);
  } catch {
    throw new HttpError(400, "the body is not UTF-8");
  }
}

function percentDecoded(text: string): string {
  const spaced = text.includes("+") ? text.replaceAll("+", " ") : text;
  if (!spaced.includes("%")) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    throw new HttpError(400, "the form is not percent-encoded UTF-8");
  }
}
