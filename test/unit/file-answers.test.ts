/** How many files are sent at a time, and that one which is refused is not left open. */
import { afterAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FileBody } from "../../src/exchange.ts";
import { FileAnswers, type FileOwner } from "../../src/files/file-answers.ts";
import { FileError, openFile } from "../../src/files/open.ts";
import { openMeant } from "../../src/files/send.ts";
import type { StaticFiles } from "../../src/files/static.ts";
import { failureOf } from "../support/poll.ts";
import { openFilesOf } from "../support/processes.ts";

const directory = mkdtempSync(join(tmpdir(), "tercet-files-"));
afterAll(() => rmSync(directory, { recursive: true }));

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

test("a file that was just replaced is looked for again, a few times, unless its response has begun", async () => {
  let headSent = false;
  let tries = 0;
  const answerAfter = async (failures: number, code: string) => {
    tries = 0;
    const answer = async () => {
      if (++tries <= failures) throw new FileError(code, "it has just been replaced");
      return { head: { status: 304, fields: [] }, body: null };
    };
    const files = { mayHave: () => true, answer } as unknown as StaticFiles;
    const sink = { headSent, respond: () => {} };
    const owner = { over: false, responding: () => {}, exchange: { sink } } as unknown as FileOwner;
    return await new FileAnswers(files).answer(owner).catch((error: FileError) => error.code);
  };
  expect([await answerAfter(4, "ENOENT"), tries]).toEqual([true, 5]);
  expect([await answerAfter(4, "ESTALE"), tries]).toEqual([true, 5]);
  expect([await answerAfter(5, "ESTALE"), tries]).toEqual(["ESTALE", 5]);
  expect([await answerAfter(1, "EIO"), tries]).toEqual(["EIO", 1]);
  headSent = true;
  expect([await answerAfter(1, "ESTALE"), tries]).toEqual(["ESTALE", 1]);
});

test("what is no regular file, or another than was meant, is closed again", async () => {
  const [pipe, path] = [join(directory, "pipe"), join(directory, "file")];
  execFileSync("mkfifo", [pipe]);
  writeFileSync(path, "content");
  expect(await failureOf("the pipe", 1000, openFile(pipe))).toMatchObject({ code: "EINVAL" });
  const meant = openMeant({ path, identity: "another", pieces: [] });
  expect(await failureOf("the file", 1000, meant)).toMatchObject({ code: "ESTALE" });
  expect(openFilesOf(process.pid).filter((open) => open.startsWith(directory))).toEqual([]);
});
