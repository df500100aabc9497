/** The other end of the control socket: asks a running server. */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { ControlAnswer, ControlCommand, ServerStatus } from "./control.ts";

/** Why a server was not asked, or did not do it: the message says which, in one line. */
export class ControlError extends Error {
  readonly code = "TERCET_CONTROL";
  override readonly name = "ControlError";
  /** Nobody listens: the server has gone, or never was. */
  readonly isAbsent: boolean;
  /** It has taken the question, and says nothing. */
  readonly isLate: boolean;

  constructor(message: string, options: ErrorOptions & { isAbsent?: boolean; isLate?: boolean } = {}) {
    super(message, options);
    this.isAbsent = options.isAbsent ?? false;
    this.isLate = options.isLate ?? false;
  }
}

/** More than the status of thousands of processes has. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
/** Milliseconds between two looks at whether it still answers. */
const LOOK_INTERVAL = 1000;
const ABSENT = "nobody listens on it";
/** What it means that the system says. */
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: ABSENT,
  ENOTDIR: ABSENT,
  ECONNREFUSED: ABSENT,
  EACCES: "only the user whose server it is, and root, may open it",
};

export class ControlClient implements Disposable {
  readonly #path: string;
  readonly #socket: Socket;
  /** Resolves when the server has closed the connection. */
  readonly closed: Promise<void>;
  #received = "";
  #answered: ((line: string) => void) | null = null;
  #failed: (error: ControlError) => void = () => {};

  /** @throws ControlError (as a rejection) */
  static connect(path: string): Promise<ControlClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path, () => resolve(new ControlClient(path, socket)));
      socket.once("error", (error: NodeJS.ErrnoException) => {
        const reason = REASONS[error.code ?? ""] ?? error.message;
        const isAbsent = reason === ABSENT;
        reject(new ControlError(`the control socket ${path}: ${reason}`, { cause: error, isAbsent }));
      });
    });
  }

  private constructor(path: string, socket: Socket) {
    this.#path = path;
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#receive(text));
    // What follows it, 'close', tells whoever waits.
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.#failed(this.#gone());
        resolve();
      });
    });
  }

  /**
   * One at a time.
   * @param timeout milliseconds; 0 for none
   * @throws ControlError (as a rejection)
   */
  async ask(command: ControlCommand, timeout: number): Promise<unknown> {
    if (this.#socket.closed) throw this.#gone();
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    this.#answered = resolve;
    this.#failed = reject;
    const late = () =>
      reject(new ControlError(`no answer on ${this.#path} within ${timeout} ms`, { isLate: true }));
    const timer = timeout === 0 ? undefined : setTimeout(late, timeout);
    this.#socket.write(`${JSON.stringify({ command })}\n`);
    try {
      return resultOf(await promise, this.#path);
    } finally {
      clearTimeout(timer);
      this.#answered = null;
      this.#failed = () => {};
    }
  }

  /**
   * @param timeout as of `ask`
   * @throws ControlError (as a rejection)
   */
  async status(timeout: number): Promise<ServerStatus> {
    const status = (await this.ask("status", timeout)) as Partial<ServerStatus> | null;
    // Enough to tell it from anything else that speaks JSON: later versions have more.
    const isStatus =
      typeof status?.manager?.pid === "number" &&
      [status.protocols, status.reactors, status.workers, status.taskWorkers].every(Array.isArray) &&
      status.totals instanceof Object;
    if (!isStatus) throw notTercet(this.#path);
    return status as ServerStatus;
  }

  /**
   * Waits for what may take as long as it takes, and no longer than the server answers at all.
   * @param timeout milliseconds for an answer
   * @throws ControlError (as a rejection) where it says nothing any more, as one that was stopped (SIGSTOP)
   */
  whileItAnswers<T>(outcome: Promise<T>, timeout: number): Promise<T> {
    return Promise.race([outcome, this.#silence(timeout)]);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  /** Asks on connections of their own: this one may be waiting. */
  async #silence(timeout: number): Promise<never> {
    for (;;) {
      await sleep(LOOK_INTERVAL, undefined, { ref: false });
      try {
        using client = await ControlClient.connect(this.#path);
        await client.ask("status", timeout);
      } catch (error) {
        // One that refuses is there, and of one that has gone the outcome tells.
        if (!(error instanceof ControlError) || error.isLate) throw error;
      }
    }
  }

  #gone(): ControlError {
    return new ControlError(`the server has closed ${this.#path}`, { isAbsent: true });
  }

  #receive(text: string): void {
    this.#received += text;
    const end = this.#received.indexOf("\n");
    if (end !== -1) {
      this.#answered?.(this.#received.slice(0, end));
      this.#received = "";
    } else if (this.#received.length > MAX_ANSWER_BYTES) this.#socket.destroy();
  }
}

function resultOf(line: string, path: string): unknown {
  let answer: ControlAnswer;
  try {
    answer = JSON.parse(line);
  } catch (error) {
    throw notTercet(path, error);
  }
  if (answer?.ok === true) return answer.value;
  if (typeof answer?.error !== "string") throw notTercet(path);
  throw new ControlError(answer.error.replaceAll(/\s*\n\s*/g, " "));
}

function notTercet(path: string, cause?: unknown): ControlError {
  return new ControlError(`what answers on ${path} is no Tercet server`, { cause });
}
