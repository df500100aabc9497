/** A server that is started and shut down in an order that nobody expects: each call says what became of it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import net from "node:net";
import { type Program, runFixture } from "./support/server.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const GIVEN_UP = "StartError: the server was shut down before it was ready";

function run(name: string, env: Record<string, string> = {}): Promise<Program> {
  return runFixture("lifecycle.ts", {
    env: { TERCET_TEST_CASE: name, ...env },
    options: { workers: 2 },
  });
}

/** What it has said, when it has ended and left nothing. */
async function saidBy(program: Program, status = 0): Promise<string[]> {
  expect(await program.ended()).toBe(status);
  await program.leavesNothing();
  return program.stdout.split("\n").filter((line) => line !== "");
}

test("a server is started once, and shut down once, however often it is asked", async () => {
  await using program = await run("start twice");
  expect(await saidBy(program)).toEqual([
    "second: Error: start: the server was started already",
    "first: done",
    'on message: Error: on: the server was started already; a listener of "message" is added before start(), as workers run the script up to there',
    "on shutdown: done",
    "event: shutdown",
    "event: shutdown",
    ...["shutdown: done", "shutdown: done", "shutdown: done"],
  ]);
});

test("a shutdown before any process is there: the start fails", async () => {
  await using program = await run("shutdown at once");
  expect((await saidBy(program)).toSorted()).toEqual(["shutdown: done", `start: ${GIVEN_UP}`]);
});

test("a shutdown while processes start: the start fails, and they leave", async () => {
  await using program = await run("shutdown while processes start");
  expect(await saidBy(program)).toEqual(["event: shutdown", "shutdown: done", `start: ${GIVEN_UP}`]);
});

test("a signal while processes start ends the process, with 0", async () => {
  await using program = await run("signal while processes start");
  expect(await saidBy(program)).toEqual(["event: shutdown"]);
});

test("a start that has failed can be tried again", async () => {
  const taken = net.createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const { port } = taken.address() as net.AddressInfo;
  await using program = await run("start again", { TERCET_TEST_PORT: String(port) });
  await program.prints("waiting");
  await new Promise((resolve) => taken.close(resolve));
  program.kill("SIGUSR2");
  expect(await saidBy(program)).toEqual([
    `start: StartError: port ${port} on 127.0.0.1 is in use`,
    "waiting",
    "start: done",
    "event: shutdown",
    "shutdown: done",
  ]);
});

test("a listener can be added when a start has failed, however far it came", async () => {
  await using program = await run("a start listener fails once");
  expect(await saidBy(program)).toEqual([
    "start: Error: not yet",
    "on: done",
    "start: done",
    "event: shutdown",
    "shutdown: done",
  ]);
});

test("a listener that fails keeps none of the others from the end", async () => {
  await using program = await run("listeners fail");
  expect(await saidBy(program)).toEqual(["start: done", "event: shutdown", "shutdown: Error: shutdown one"]);
  await program.logs("manager: error in shutdown: Error: shutdown other");
  for (const which of ["one", "other"])
    await program.logs(`worker 1: error in workerStop: Error: workerStop ${which}`);
});

test("a process has one server: the workers of another would run the first one's handler", async () => {
  await using program = await run("two servers");
  expect(await saidBy(program)).toEqual([
    "first: done",
    expect.stringMatching(/^other: Error: start: another server of this process was started/),
    "event: shutdown",
    "shutdown: done",
  ]);
});
