/** A request's body, as the engine gives it. */
import { BodyLostError, type Fields, type RequestBody } from "../../exchange.ts";
import { collect } from "../../http/body.ts";

type Piece = Promise<{ value?: Uint8Array }>;

export class NativeBody implements RequestBody {
  readonly length: number | undefined;
  /** The engine drops them. */
  readonly trailers: Fields = [];
  readonly #request: Request;
  #reader: { read(): Piece; cancel(): Promise<void> } | null = null;
  /** Being read already. */
  #first: Piece | null = null;

  readonly #onLost: () => void;

  /** @param onLost told when the client has gone in the middle of its body */
  constructor(request: Request, length: number | undefined, onLost: () => void) {
    this.#request = request;
    this.length = length;
    this.#onLost = onLost;
  }

  /** Tells within a turn of the event loop whether its end came with the head. */
  isNone(): Promise<boolean> {
    const first = this.#next();
    this.#first = first;
    return new Promise((resolve) => {
      setImmediate(resolve, false);
      first.then(
        ({ value }) => resolve(value === undefined),
        () => resolve(false),
      );
    });
  }

  async read(): Promise<Uint8Array | null> {
    const next = this.#first ?? this.#next();
    this.#first = null;
    try {
      return (await next).value ?? null;
    } catch (error) {
      throw this.#lost(error);
    }
  }

  readAll(): Promise<Uint8Array> {
    if (this.#reader !== null) return collect(this);
    return this.#request.bytes().catch((error: unknown) => {
      throw this.#lost(error);
    });
  }

  cancel(): void {
    // A client that has gone makes this fail, and then there is nothing left to cancel.
    this.#reader?.cancel().catch(() => {});
  }

  #next(): Piece {
    this.#reader ??= (this.#request.body as NonNullable<Request["body"]>).getReader();
    return this.#reader.read();
  }

  #lost(cause: unknown): BodyLostError {
    this.#onLost();
    return new BodyLostError("the client went away", { cause });
  }
}
