/** How many files are sent at a time, without a file. */
import { expect, test } from "bun:test";
import type { FileBody } from "../../src/exchange.ts";
import { FileAnswers, type FileOwner } from "../../src/files/file-answers.ts";
import { failureOf } from "../support/poll.ts";

test("of 2000 files that are being sent one more is refused, until one of them was, or could not be", async () => {
  const answers = new FileAnswers(null);
  const body: FileBody = { path: "/a", identity: "", pieces: [] };
  const begin = () => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const owner = { over: false, responding: () => {}, exchange: { sink: { file: () => promise } } };
    const sent = answers.send(owner as unknown as FileOwner, { status: 200, fields: [] }, body);
    return { sent, resolve, reject };
  };
  const sending = Array.from({ length: 2000 }, begin);
  expect((await failureOf("one more", 1000, begin().sent)).message).toBe("/a: 2000 files are being sent");
  sending[0]?.resolve();
  await sending[0]?.sent;
  sending[1]?.reject(new Error("it is gone"));
  await sending[1]?.sent.catch(() => {});
  for (let i = 0; i < 2; i++) begin();
  expect((await failureOf("one more", 1000, begin().sent)).message).toBe("/a: 2000 files are being sent");
});
