/** What every server of the benchmark answers, so that a difference in the table is a difference between servers. */

export const GREETING = "Hello, world!\n";

export const KIB = 1024;
export const MIB = 1024 * KIB;

/** The file that is the response to `/file` lies where the variable says. */
export const FILE_BYTES = MIB;
export const FILE_VARIABLE = "BENCH_FILE";

/** Bytes, about, of the JSON that is the response to `/json`. */
export const JSON_BYTES = 64 * KIB;

/** Bytes of a request's body that every server takes: more than any load sends. */
export const BODY_LIMIT = 1024 * MIB;

/** Bytes of a request's head that every server takes. */
export const HEAD_LIMIT = 64 * KIB;

/** Seconds without a request until a server closes a connection: longer than idle connections are looked at. */
export const IDLE_SECONDS = 250;

export const CHUNK: Uint8Array = new Uint8Array(64 * KIB).fill(0x2e);

/**
 * What is asked beside the greeting at `/`:
 *
 *     /file            the file
 *     /json            the JSON
 *     /download/N      a body of N bytes, in chunks of 64 KiB as the client takes them
 *     /upload/N        the greeting, where the request's body had N bytes; else 400
 *     /fields/N        the greeting, with a field of N bytes in its head
 *     /compute/N       the greeting, after N microseconds of processor time
 */
export interface Route {
  readonly name: string;
  readonly count: number;
}

/** @param target a path, or a whole URL */
export function routeOf(target: string): Route {
  const [, name = "", count = "0"] =
    /\/(file|json|download|upload|fields|compute)(?:\/(\d+))?$/.exec(target) ?? [];
  return { name, count: Number(count) };
}

/** Keeps the processor busy. @param microseconds of the clock */
export function compute(microseconds: number): void {
  const until = performance.now() + microseconds / 1000;
  while (performance.now() < until);
}

/** The chunks of a body of so many bytes. */
export function* chunksOf(bytes: number): Generator<Uint8Array, void> {
  for (let left = bytes; left > 0; left -= CHUNK.length) {
    yield left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK;
  }
}

/** Bytes of a request's body, read as it comes and dropped. */
export async function countOf(body: AsyncIterable<Uint8Array> | null): Promise<number> {
  let count = 0;
  if (body !== null) for await (const chunk of body) count += chunk.length;
  return count;
}
