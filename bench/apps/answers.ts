/** What every server of the benchmark answers, so that a difference in the table is a difference between servers. */

export const GREETING = "Hello, world!\n";

/** Bytes of the response to `/stream`: 256 MiB. */
export const STREAM_BYTES = 256 * 1024 * 1024;

/** Bytes of the file that is the response to `/file`: 1 MiB. It lies where the variable says. */
export const FILE_BYTES = 1024 * 1024;
export const FILE_VARIABLE = "BENCH_FILE";

/** Bytes, about, of the JSON that is the response to `/json`: 64 KiB. */
export const JSON_BYTES = 64 * 1024;

export const CHUNK: Uint8Array = new Uint8Array(64 * 1024).fill(0x2e);
