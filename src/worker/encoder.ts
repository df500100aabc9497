/**
 * Content codings by node:zlib. A stream is encoded synchronously: what was written leaves in the same turn of the event
 * loop, in order, and nothing is buffered that back pressure does not see. zlib's streams do that only by their handle;
 * their documented way is a thread for each write, which costs an event of 70 bytes 28 µs (gzip) to 112 µs (br), where
 * the handle takes 1 to 3. Levels and windows were chosen by bench/compression.ts.
 */
import {
  brotliCompressSync,
  constants,
  createBrotliCompress,
  createGzip,
  createZstdCompress,
  gzipSync,
  zstdCompressSync,
} from "node:zlib";
import type { Coding, ResolvedCompression } from "../options.ts";

export type Levels = ResolvedCompression["levels"];

/**
 * Of a stream, which may be there as long as its client: 128 KiB, for which a context of any coding takes a quarter to
 * half a megabyte. Clients must do with up to 8 MiB (RFC 9659), 16 MiB (RFC 7932 §9.1) and 32 KiB (RFC 1952).
 */
const WINDOW_BITS = 17;
const ZSTD_HASH_BITS = 15;
const ZSTD_CHAIN_BITS = 14;

const SCRATCH = Buffer.allocUnsafeSlow(128 * 1024);
const NOTHING = Buffer.alloc(0);

/** What follows a chunk: more of the same, nothing for a while, or nothing at all. */
export type Then = "continue" | "flush" | "finish";

const OPERATIONS: Readonly<Record<Coding, Readonly<Record<Then, number>>>> = {
  zstd: { continue: constants.ZSTD_e_continue, flush: constants.ZSTD_e_flush, finish: constants.ZSTD_e_end },
  br: {
    continue: constants.BROTLI_OPERATION_PROCESS,
    flush: constants.BROTLI_OPERATION_FLUSH,
    finish: constants.BROTLI_OPERATION_FINISH,
  },
  gzip: { continue: constants.Z_NO_FLUSH, flush: constants.Z_SYNC_FLUSH, finish: constants.Z_FINISH },
};

/** What the types of node:zlib leave out: as in Node.js, and as pngjs uses it there. */
interface ZlibStream {
  readonly _handle: {
    writeSync(
      operation: number,
      input: Uint8Array,
      inputOffset: number,
      inputLength: number,
      output: Uint8Array,
      outputOffset: number,
      outputLength: number,
    ): void;
  };
  /** Bytes of output and of input that the last write left. */
  readonly _writeState: Uint32Array;
  on(event: "error", told: (error: Error) => void): unknown;
  close(): void;
}

/** A whole body at once. */
export function encode(coding: Coding, levels: Levels, body: Uint8Array): Uint8Array {
  switch (coding) {
    case "zstd":
      return zstdCompressSync(body, { params: { [constants.ZSTD_c_compressionLevel]: levels.zstd } });
    case "br":
      return brotliCompressSync(body, { params: { [constants.BROTLI_PARAM_QUALITY]: levels.br } });
    case "gzip":
      return gzipSync(body, { level: levels.gzip });
  }
}

/** A body piece by piece. */
export class Encoder {
  readonly #operations: Readonly<Record<Then, number>>;
  readonly #stream: ZlibStream;
  #failure: Error | null = null;

  constructor(coding: Coding, levels: Levels) {
    this.#operations = OPERATIONS[coding];
    this.#stream = open(coding, levels) as unknown as ZlibStream;
    this.#stream.on("error", (error) => {
      this.#failure = error;
    });
  }

  /** Takes all of the chunk. @returns what of the body is ready: with "continue" perhaps nothing */
  encode(chunk: Uint8Array, then: Then): Uint8Array {
    const { _handle: handle, _writeState: left } = this.#stream;
    const parts: Uint8Array[] = [];
    let from = 0;
    for (;;) {
      const { length } = chunk;
      handle.writeSync(this.#operations[then], chunk, from, length - from, SCRATCH, 0, SCRATCH.length);
      if (this.#failure !== null) throw this.#failure;
      const [room, input] = left as unknown as [number, number];
      if (room < SCRATCH.length) parts.push(Buffer.from(SCRATCH.subarray(0, SCRATCH.length - room)));
      // Where the output has filled its room there may be more.
      if (room > 0) break;
      from = length - input;
    }
    return parts.length > 1 ? Buffer.concat(parts) : (parts[0] ?? NOTHING);
  }

  /** Frees the context, which is memory outside of JavaScript's heap. */
  close(): void {
    this.#stream.close();
  }
}

function open(coding: Coding, levels: Levels) {
  switch (coding) {
    case "zstd":
      return createZstdCompress({
        params: {
          [constants.ZSTD_c_compressionLevel]: levels.zstd,
          [constants.ZSTD_c_windowLog]: WINDOW_BITS,
          // They do not follow from the window where the length is not known, and make most of the context.
          [constants.ZSTD_c_hashLog]: ZSTD_HASH_BITS,
          [constants.ZSTD_c_chainLog]: ZSTD_CHAIN_BITS,
        },
      });
    case "br":
      return createBrotliCompress({
        params: {
          [constants.BROTLI_PARAM_QUALITY]: levels.br,
          [constants.BROTLI_PARAM_LGWIN]: WINDOW_BITS,
        },
      });
    case "gzip":
      return createGzip({ level: levels.gzip });
  }
}
