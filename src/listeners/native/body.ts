/** A request's body, as the engine gives it. */
import { BodyLostError, type Fields, type RequestBody } from "../../exchange.ts";

export class NativeBody implements RequestBody {
  readonly length: number | undefined;
  /** The engine drops them. */
  readonly trailers: Fields = [];
  readonly #request: Request;
  #reader: { read(): Promise<{ value?: Uint8Array }>; cancel(): Promise<void> } | null = null;

  readonly #onLost: () => void;

  /** @param onLost told when the client has gone in the middle of its body */
  constructor(request: Request, length: number | undefined, onLost: () => void) {
    this.#request = request;
    this.length = length;
    this.#onLost = onLost;
  }

  async read(): Promise<Uint8Array | null> {
    this.#reader ??= (this.#request.body as NonNullable<Request["body"]>).getReader();
    try {
      return (await this.#reader.read()).value ?? null;
    } catch (error) {
      throw this.#lost(error);
    }
  }

  readAll(): Promise<Uint8Array> {
    return this.#request.bytes().catch((error: unknown) => {
      throw this.#lost(error);
    });
  }

  cancel(): void {
    // A client that has gone makes this fail, and then there is nothing left to cancel.
    this.#reader?.cancel().catch(() => {});
  }

  #lost(cause: unknown): BodyLostError {
    this.#onLost();
    return new BodyLostError("the client went away", { cause });
  }
}
