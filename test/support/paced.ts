/** Reads as a client behind a slow line does. */
import { expect } from "bun:test";
import type { Client, ResponseBody } from "./client.ts";

/** Reads to the end, and no faster than so many bytes a second. @returns the bytes read */
export async function readPaced(body: ResponseBody, bytesPerSecond: number): Promise<number> {
  const began = performance.now();
  let length = 0;
  for await (const chunk of body) {
    length += chunk.length;
    const early = began + (length / bytesPerSecond) * 1_000 - performance.now();
    if (early > 0) await Bun.sleep(early);
  }
  return length;
}

/**
 * Reads as many bytes of `/stream` at a pace, and then has `/slow-read` read as many at the same pace.
 * @returns what that says of it
 */
export async function bothWays(client: Client, bytes: number, bytesPerSecond: number): Promise<unknown> {
  const down = await client.request({ path: `/stream?bytes=${bytes}` });
  expect(await readPaced(down.body, bytesPerSecond)).toBe(bytes);
  const pieces = async function* () {
    for (let left = bytes; left > 0; left -= 65_536) yield new Uint8Array(65_536);
  };
  const up = await client.request({ path: `/slow-read?rate=${bytesPerSecond}`, body: pieces() });
  return up.body.json<unknown>();
}
