/** The body of a response that comes piece by piece, pulled by the engine as its client takes it. */
export class ResponseStream {
  readonly readable: ReadableStream<Uint8Array>;
  readonly #mayEndAnywhere: boolean;
  readonly #abandoned: Set<ResponseStream>;
  readonly #drained: () => void;
  #controller: ReadableStreamDefaultController<Uint8Array> | null = null;
  #queue: Uint8Array[] = [];
  /** Set while the engine waits for a chunk. */
  #pulled: (() => void) | null = null;
  #state: "open" | "ended" | "abandoned" | "over" = "open";

  constructor(
    mayEndAnywhere: boolean,
    drained: () => void,
    lost: () => void,
    abandoned: Set<ResponseStream>,
  ) {
    this.#mayEndAnywhere = mayEndAnywhere;
    this.#drained = drained;
    this.#abandoned = abandoned;
    const cancel = () => {
      abandoned.delete(this);
      lost();
    };
    this.readable = new ReadableStream(
      { pull: (controller) => this.#pull(controller), cancel },
      { highWaterMark: 0 },
    );
  }

  /** False where the chunk has to wait for its turn. */
  push(chunk: Uint8Array): boolean {
    if (this.#pulled === null) {
      this.#queue.push(chunk);
      return false;
    }
    this.#controller?.enqueue(chunk);
    this.#release();
    return true;
  }

  end(): void {
    this.#state = "ended";
    if (this.#pulled === null) return;
    this.#close();
    this.#release();
  }

  /**
   * Ends short. The engine cannot reset a stream: all that ends a body, an error too, ends it as if it were whole, and
   * without the content-length that could tell. So the body is left without its end, and its client's own timeout or
   * the connection's end tells the truth; what was handed over before still goes out. An event stream may end anywhere (HTML, "server-sent events"), and its
   * client then connects again.
   */
  abandon(): void {
    if (this.#mayEndAnywhere) {
      this.end();
      return;
    }
    this.#state = "abandoned";
    this.#abandoned.add(this);
  }

  /** Nobody will read what is left. */
  discard(): void {
    this.#state = "over";
    this.#queue = [];
    this.#release();
  }

  #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> | undefined {
    this.#controller = controller;
    const chunk = this.#queue.shift();
    if (chunk !== undefined) {
      controller.enqueue(chunk);
      if (this.#queue.length === 0) this.#drained();
      return;
    }
    if (this.#state === "ended") {
      this.#close();
      return;
    }
    return new Promise((resolve) => {
      this.#pulled = resolve;
    });
  }

  #close(): void {
    this.#state = "over";
    this.#controller?.close();
  }

  #release(): void {
    this.#pulled?.();
    this.#pulled = null;
  }
}
