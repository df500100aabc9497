/** A server whose code changes: see test/fixtures/versions.ts. */
import { readFileSync, writeFileSync } from "node:fs";
import { Scratch, startFixture, type TestServer } from "./server.ts";

export interface Versioned extends AsyncDisposable {
  readonly server: TestServer;
  /** What the next processes load. */
  load(version: string): void;
  /** Has those of the version "late" go on, each of which waits in its `workerStart`. */
  release(): void;
  /** Lines of `workerStart` and `workerStop`. */
  log(): string[];
}

export async function startVersions(options: Readonly<Record<string, unknown>>): Promise<Versioned> {
  const scratch = await Scratch.make();
  const file = scratch.file("version");
  writeFileSync(file, "1");
  const env = { TERCET_TEST_VERSION: file };
  const server = await startFixture("versions.ts", { scratch, options, env });
  return {
    server,
    load: (version) => writeFileSync(file, version),
    release: () => writeFileSync(`${file}.go`, ""),
    log: () => readFileSync(`${file}.log`, "utf8").split("\n").filter(Boolean),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
