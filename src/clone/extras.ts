/** What structured clone would copy twice, or cut short, and what may hold it: both are handled by ourselves. */
import { types } from "node:util";

/** What is smaller is copied with the rest: a piece of its own would cost more than it saves. Bytes. */
const PIECE_BYTES = 4096;
/** More stay in the clone. */
export const MAX_PIECES = 1000;

export const VIEWS: Readonly<Record<string, new (memory: ArrayBuffer) => ArrayBufferView>> = {
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float16Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
  DataView,
};
export const ERRORS: Readonly<Record<string, new (message: string) => Error>> = {
  Error,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

/** Stands in the clone for what was taken out of it; `at` is the object in its place. `bytes` names the type of bytes. */
export type Hole =
  | { readonly at: object; readonly bytes: string }
  | { readonly at: object; readonly error: Likeness };

/** What an error is made of again. */
export interface Likeness {
  readonly type: string;
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  readonly code: string | number | undefined;
  /** Absent where the error has none. */
  cause?: unknown;
  /** Of an AggregateError. */
  errors?: unknown;
}

export type Container = unknown[] | Map<unknown, unknown> | Set<unknown> | Record<string, unknown>;

export function isPiece(value: object): value is ArrayBuffer | ArrayBufferView {
  if (ArrayBuffer.isView(value))
    return value.byteLength >= PIECE_BYTES && value.buffer instanceof ArrayBuffer;
  return value instanceof ArrayBuffer && value.byteLength >= PIECE_BYTES && !value.resizable;
}

/** A DOMException is cloned whole as it is. */
export function isPlainError(value: object): value is Error {
  return value instanceof Error && !(value instanceof DOMException) && !types.isProxy(value);
}

/** What is copied member by member. Anything else is left to structured clone as it is. */
export function isContainer(value: object): value is Container {
  if (Array.isArray(value)) return !types.isProxy(value);
  const tag = Object.prototype.toString.call(value);
  if (tag === "[object Object]") return !types.isProxy(value);
  return value instanceof Map || value instanceof Set;
}

export function* childrenOf(container: Container): Iterable<unknown> {
  if (container instanceof Map) {
    for (const [key, value] of container) {
      yield key;
      yield value;
    }
  } else if (container instanceof Set) yield* container;
  else
    for (const key in container)
      if (Object.hasOwn(container, key)) yield (container as Record<string, unknown>)[key];
}

/** As an own property, also of a name such as `__proto__`. */
export function define(target: object, key: string, value: unknown): void {
  Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
}

/** As the platform's own properties of errors are. */
export function hide(error: Error, key: string, value: unknown): void {
  Object.defineProperty(error, key, { value, writable: true, enumerable: false, configurable: true });
}
