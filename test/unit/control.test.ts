/** The control socket without the server behind it: what one client costs that takes nothing. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ControlServer, type ServerStatus } from "../../src/manager/control.ts";
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
