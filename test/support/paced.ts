/** Reads as a client behind a slow line does. */
import type { ResponseBody } from "./client.ts";

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
