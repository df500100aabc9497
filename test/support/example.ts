/** Starts a file of `examples/` as its reader would: `bun examples/NAME`, with the system's choice of a port. */
import { join } from "node:path";
import { ROOT, Scratch, TestServer } from "./server.ts";

export async function startExample(name: string): Promise<TestServer> {
  const scratch = await Scratch.make();
  const command = [process.execPath, join(ROOT, "examples", name)];
  return new TestServer(scratch, command, { PORT: "0" }).ready();
}
