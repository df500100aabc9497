/** The control socket without the server behind it: what one client costs that takes nothing. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ControlServer, type ServerStatus } from "../../src/manager/control.ts";
import { ControlClient } from "../../src/manager/control-client.ts";
import { ControlConnection } from "../support/control-connection.ts";

const directory = mkdtempSync(join(tmpdir(), "tercet-control-"));
afterAll(() => rmSync(directory, { recursive: true }));

test("a client that reads no answer gets no more of them, and one that reads gets all", async () => {
  let asked = 0;
  const status = async () => {
    asked++;
    return { host: "x".repeat(50_000) } as ServerStatus;
  };
  const server = await ControlServer.listen(join(directory, "control.sock"), {
    status,
    reload: async () => {},
    stop: () => {},
  });
  try {
    using silent = await ControlConnection.open(directory);
    using reader = await ControlConnection.open(directory);
    silent.pause();
    silent.send('{"command":"status"}\n'.repeat(1_000));
    for (let i = 0; i < 20; i++) {
      reader.send('{"command":"status"}\n');
      expect((await reader.answer()).ok).toBe(true);
    }
    expect(asked).toBeLessThan(200);
  } finally {
    server.close();
  }
});

test("what answers with no status is said to be no Tercet server", async () => {
  const path = join(directory, "other.sock");
  const processes = '"protocols":[],"reactors":[],"workers":[]';
  const answers = [
    "{}",
    "null",
    "HTTP/1.1 400 Bad Request",
    '{"ok":false}',
    '{"ok":true}',
    '{"ok":true,"value":null}',
    '{"ok":true,"value":{}}',
    `{"ok":true,"value":{"manager":{"pid":1},"totals":{},${processes}}}`,
    `{"ok":true,"value":{"manager":{"pid":1},"totals":null,${processes},"taskWorkers":[]}}`,
  ];
  const left = answers.values();
  const server = createServer((socket) => {
    socket.on("data", () => socket.write(`${left.next().value}\n`));
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  try {
    using client = await ControlClient.connect(path);
    for (const answer of answers) {
      const error = await client.status(5_000).catch((error: unknown) => error);
      expect([answer, String(error)]).toEqual([
        answer,
        `ControlError: what answers on ${path} is no Tercet server`,
      ]);
    }
  } finally {
    server.close();
  }
});
