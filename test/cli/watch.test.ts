/** `tercet serve --watch`: what an editor does to files reaches the server, and what does not load does no harm. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HTTP2 } from "../support/clients.ts";
import { until } from "../support/poll.ts";
import { Scratch, startCli, TestServer } from "../support/server.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const app = (text: string) => `export default { fetch: () => new Response(${text}) };\n`;

describe("a server that watches", () => {
  let server: TestServer;
  let folder: string;
  const path = (name: string) => join(folder, name);
  const write = (name: string, text: string) => writeFileSync(path(name), text);
  const answer = async () => {
    await using client = await HTTP2.open(server);
    return await (await client.request({ path: "/" })).body.text();
  };
  const untilAnswer = (text: string) => until(text, 10_000, async () => (await answer()) === text);
  /** Reloads so far, those that failed too. */
  const reloads = () => server.stderr.match(/manager: reload/g)?.length ?? 0;

  beforeAll(async () => {
    const scratch = await Scratch.make();
    folder = scratch.file("app");
    mkdirSync(join(folder, "node_modules/library"), { recursive: true });
    mkdirSync(join(folder, ".git"));
    write("app.ts", app('"one"'));
    server = await startCli(path("app.ts"), { scratch, flags: { watch: true } });
    await until("it to watch", 10_000, () => server.stdout.includes(`tercet: watching ${folder}\n`));
  });
  afterAll(() => server[Symbol.asyncDispose]());

  test("reloads when the module was written, and says which file it was", async () => {
    write("app.ts", app('"two"'));
    await untilAnswer("two");
    await server.prints(/^tercet: app\.ts changed$/m);
  });

  test("reloads when the module was replaced by a rename, again and again", async () => {
    for (const text of ["three", "four"]) {
      write(".app.ts.part", app(`"${text}"`));
      renameSync(path(".app.ts.part"), path("app.ts"));
      await untilAnswer(text);
    }
  });

  test("reloads on files in new folders, and keeps the old code while the new does not load", async () => {
    write("app.ts", `import { text } from "./parts/text.ts";\n${app("text")}`);
    await until("the reason", 10_000, () =>
      /still serves: .*Cannot find module '\.\/parts\/text\.ts'/.test(server.stderr),
    );
    expect(await answer()).toBe("four");
    mkdirSync(path("parts"));
    write("parts/text.ts", 'export const text = "five";\n');
    await untilAnswer("five");
    write("parts/text.ts", "export const text = ;\n");
    await until("the reason", 10_000, () =>
      /still serves: .*Unexpected ; \(.*parts\/text\.ts:1:21\)/.test(server.stderr),
    );
    expect(await answer()).toBe("five");
    write("parts/text.ts", 'export const text = "six";\n');
    await untilAnswer("six");
  });

  test("reloads once for many files, and when some are removed", async () => {
    const from = server.stdout.length;
    const lines = () => server.stdout.slice(from).match(/^tercet: .* changed$/gm) ?? [];
    /** Files that were told of: by their names, and by how many more there were. */
    const told = () =>
      lines().reduce((sum, line) => {
        const [, more = "0"] = / and (\d+) more /.exec(line) ?? [];
        return sum + (line.match(/part-\d+\.ts/g)?.length ?? 0) + Number(more);
      }, 0);
    for (let i = 0; i < 20; i++) {
      write(`parts/part-${i}.ts`, "");
      // One after another, as a checkout does.
      await Bun.sleep(10);
    }
    await until("all of them", 10_000, () => told() >= 20);
    expect(lines().length).toBeLessThan(8);
    rmSync(path("parts"), { recursive: true });
    await until("the reason", 10_000, () => server.stderr.split("Cannot find module").length > 2);
    expect(await answer()).toBe("six");
    write("app.ts", app('"seven"'));
    await untilAnswer("seven");
  });

  test("keeps the old code while the module itself is not there, and says so", async () => {
    rmSync(path("app.ts"));
    await server.logs(/still serves: .*app\.ts does not load: .*Cannot find module '.*app\.ts'/);
    expect(await answer()).toBe("seven");
    write("app.ts", app('"seven again"'));
    await untilAnswer("seven again");
  });

  test("does not reload for what is installed, hidden, or written by the app", async () => {
    const before = reloads();
    for (const name of [
      "node_modules/library/index.js",
      ".git/HEAD",
      ".env",
      "app.log",
      "app.db-wal",
      "app.ts~",
      "#app.ts#",
    ]) {
      write(name, "");
    }
    // What comes after them was seen after them.
    write("app.ts", app('"eight"'));
    await untilAnswer("eight");
    expect(reloads()).toBe(before + 1);
    expect(server.stdout.trimEnd()).toEndWith("tercet: app.ts changed");
  });

  test("goes on watching when its folder is removed and made anew, or another takes its place", async () => {
    rmSync(folder, { recursive: true });
    mkdirSync(folder);
    write("app.ts", app('"nine"'));
    await untilAnswer("nine");
    write("app.ts", app('"ten"'));
    await untilAnswer("ten");
    mkdirSync(`${folder}-new`);
    writeFileSync(`${folder}-new/app.ts`, app('"eleven"'));
    renameSync(folder, `${folder}-old`);
    renameSync(`${folder}-new`, folder);
    await untilAnswer("eleven");
    write("app.ts", app('"twelve"'));
    await untilAnswer("twelve");
  });
});

test("a server that watches does not reload for its own output", async () => {
  const scratch = await Scratch.make();
  const { cert, key } = scratch;
  mkdirSync(scratch.file("app"));
  const write = (text: string) => writeFileSync(scratch.file("app/app.ts"), app(`"${text}"`));
  write("one");
  const flags = ["--host", "127.0.0.1", "--port", "0", "--workers", "1", "--cert", cert, "--key", key];
  const serve = ["src/cli/main.ts", "serve", scratch.file("app/app.ts"), "--watch", ...flags];
  const command = ["sh", "-c", `exec "$@" 2>${scratch.file("app/out")}`, "sh", process.execPath, ...serve];
  await using server = await new TestServer(scratch, command).ready();
  await server.prints(/^tercet: watching/m);
  await using client = await HTTP2.open(server);
  for (const text of ["two", "three"]) {
    write(text);
    await until(text, 10_000, async () => (await (await client.request({ path: "/" })).body.text()) === text);
  }
  expect(server.stdout).not.toMatch(/out.* changed/);
  await server.stop();
});
