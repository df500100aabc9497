/** Takes large buffers and errors out of a value, which itself stays as it is. */
import {
  define,
  ERRORS,
  type Hole,
  isContainer,
  isPiece,
  isPlainError,
  type Likeness,
  MAX_PIECES,
} from "./extras.ts";

/** Copies what contains, so that what is taken out is taken from the copy. Not recursive: a value may be deep. */
export class Copy {
  readonly holes: Hole[] = [];
  readonly pieces: Uint8Array[] = [];
  readonly #copies = new Map<object, object>();
  readonly #pending: (() => void)[] = [];

  of(value: unknown): unknown {
    const copy = this.#start(value);
    for (let fill = this.#pending.pop(); fill !== undefined; fill = this.#pending.pop()) fill();
    return copy;
  }

  #start(value: unknown): unknown {
    if (typeof value !== "object" || value === null) return value;
    const known = this.#copies.get(value);
    if (known !== undefined) return known;
    const copy = this.#make(value);
    this.#copies.set(value, copy);
    return copy;
  }

  #make(value: object): object {
    if (isPiece(value) && this.pieces.length < MAX_PIECES) return this.#take(value);
    if (isPlainError(value)) return this.#takeError(value);
    if (!isContainer(value)) return value;
    if (value instanceof Map) {
      const map = new Map();
      // Forwards, so that the order stays.
      this.#pending.push(() => {
        for (const [key, member] of value) map.set(this.#start(key), this.#start(member));
      });
      return map;
    }
    if (value instanceof Set) {
      const set = new Set();
      this.#pending.push(() => {
        for (const member of value) set.add(this.#start(member));
      });
      return set;
    }
    const source = value as Record<string, unknown>;
    const target: Record<string, unknown> = Array.isArray(value) ? (new Array(value.length) as never) : {};
    this.#pending.push(() => {
      for (const key of Object.keys(source)) define(target, key, this.#start(source[key]));
    });
    return target;
  }

  #take(value: ArrayBuffer | ArrayBufferView): object {
    const at = {};
    const view = ArrayBuffer.isView(value)
      ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
      : new Uint8Array(value);
    this.pieces.push(view.slice());
    this.holes.push({ at, bytes: bytesTypeOf(value) });
    return at;
  }

  #takeError(value: Error): object {
    const at = {};
    const { code } = value as { code?: unknown };
    const likeness: Likeness = {
      type: value instanceof AggregateError ? "AggregateError" : errorTypeOf(value),
      name: String(value.name),
      message: String(value.message),
      stack: typeof value.stack === "string" ? value.stack : undefined,
      code: typeof code === "string" || typeof code === "number" ? code : undefined,
    };
    this.#pending.push(() => {
      if (Object.hasOwn(value, "cause")) likeness.cause = this.#start(value.cause);
      if (value instanceof AggregateError) likeness.errors = this.#start(value.errors);
    });
    this.holes.push({ at, error: likeness });
    return at;
  }
}

function bytesTypeOf(value: ArrayBuffer | ArrayBufferView): string {
  return Buffer.isBuffer(value) ? "Buffer" : Object.prototype.toString.call(value).slice(8, -1);
}

function errorTypeOf(error: Error): string {
  for (const [type, Native] of Object.entries(ERRORS)) {
    if (type !== "Error" && error instanceof Native) return type;
  }
  return "Error";
}
