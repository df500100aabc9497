/** Hands tasks over to `test/fixtures/tasks.ts`, over one connection a client. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { TaskWorkerStats } from "../../src/index.ts";
import { HTTP2 } from "./clients.ts";
import type { Http2Client } from "./http2-client.ts";
import type { TestServer } from "./server.ts";
import { readStats } from "./stats.ts";

/** What became of a task: its result, or its error's properties. */
export interface TaskOutcome {
  readonly result?: {
    readonly name?: string;
    readonly pid: number;
    readonly attempt: number;
    readonly id: string;
    readonly isTaskWorker: boolean;
  } | null;
  readonly name?: string;
  readonly message?: string;
  readonly code?: string;
  readonly cause?: string;
  readonly stack?: string;
}

export class TaskCaller implements AsyncDisposable {
  readonly client: Http2Client;

  static async open(server: TestServer): Promise<TaskCaller> {
    return new TaskCaller((await HTTP2.open(server)) as Http2Client);
  }

  private constructor(client: Http2Client) {
    this.client = client;
  }

  task(data: object, options?: object): Promise<TaskOutcome> {
    return this.post("/task", { data, options });
  }

  defer(data: object, options?: object): Promise<TaskOutcome> {
    return this.post("/defer", { data, options });
  }

  async post(path: string, body: object): Promise<TaskOutcome> {
    const headers = { "content-type": "application/json" };
    const response = await this.client.request({ path, headers, body: JSON.stringify(body) });
    const text = await response.body.text();
    if (response.status !== 200) throw new Error(`${path} was answered with ${response.status}: ${text}`);
    return JSON.parse(text);
  }

  async get<T>(path: string): Promise<T> {
    return (await this.client.request({ path })).body.json<T>();
  }

  async taskWorkers(): Promise<readonly TaskWorkerStats[]> {
    return (await readStats(this.client)).taskWorkers;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.client.close();
  }
}

/** What tasks that `hold` wait for; at the end of the test it is open in any case. */
export class Gate implements Disposable {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  open(): void {
    writeFileSync(this.path, "");
  }

  [Symbol.dispose](): void {
    this.open();
  }
}

/** The lines that tasks have noted; none while there is no file. */
export function notesOf(file: string): string[] {
  return existsSync(file) ? readFileSync(file, "utf8").split("\n").filter(Boolean) : [];
}
