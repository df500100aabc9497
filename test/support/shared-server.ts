/** One server for all tests of a `describe` block or a file, stopped gracefully and checked at its end. */
import { afterAll, beforeAll } from "bun:test";
import type { TestServer } from "./server.ts";

export interface SharedServer {
  readonly server: TestServer;
}

export function sharedServer(start: () => Promise<TestServer>): SharedServer {
  let server: TestServer | null = null;
  beforeAll(async () => {
    server = await start();
  }, 60_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  }, 60_000);
  return {
    get server() {
      if (server === null) throw new Error("the server has not started");
      return server;
    },
  };
}
