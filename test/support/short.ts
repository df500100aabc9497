/** What a client sees of a response that its server could not finish. */
import { expect } from "bun:test";
import type { Protocol, ResponseBody } from "./client.ts";
import { inTime } from "./poll.ts";
import { ENGINE } from "./server.ts";

/** Milliseconds: a body that ends as if it were whole does so at once. */
const STILL_OPEN = 1_000;

/**
 * Reads the rest of the body, calls `cut` when the reading has begun, and expects it not to end as if it were whole:
 * with an error; but without any end on HTTP/3 by the native engine, which cannot reset a stream
 * (docs/architecture.md).
 */
export async function expectCutShort(protocol: Protocol, body: ResponseBody, cut: () => void): Promise<void> {
  const outcome = body.bytes().then(
    () => "whole",
    () => "error",
  );
  cut();
  if (protocol !== "HTTP/3" || ENGINE === "quic") {
    expect(await inTime("the reset", 5_000, outcome)).toBe("error");
    return;
  }
  const open = Promise.withResolvers<string>();
  const timer = setTimeout(() => open.resolve("open"), STILL_OPEN);
  expect(await Promise.race([outcome, open.promise])).toBe("open");
  clearTimeout(timer);
  body.cancel();
}
