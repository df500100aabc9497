/**
 * A request's body on a stream of `node:quic`. The engine reads whatever comes and returns the credit for it at once, so
 * that no client is held back: what nobody has read yet waits in memory up to a bound, and beyond it on the disk.
 */
import { BodyLostError, type Fields, type RequestBody } from "../../exchange.ts";
import { collect } from "../../http/body.ts";
import { Spool, type SpoolSpace } from "./spool.ts";

/** Bytes that wait in memory. */
const IN_MEMORY = 256 * 1024;
/** Of a body that nobody wants, bytes that are let go by before its client is told to stop: most end within them. */
const LET_GO_BY = 64 * 1024;
/** The same in milliseconds, from when nobody wants it: a stream without an end would keep its connection open. */
const LET_GO_FOR = 1000;

/** What the engine gives of a stream: pieces of it, several at a time. */
export interface Reading {
  readonly pieces: AsyncIterator<Uint8Array[], unknown, undefined>;
  /** The first of them, which was asked for already. */
  readonly first: Promise<IteratorResult<Uint8Array[], unknown>>;
}

export interface BodyOwner {
  /** No more of the body is wanted: the client is asked to send no more (RFC 9114 §4.1). */
  stopSending(): void;
  /** The body cannot be kept: the exchange ends short. */
  cannotKeep(error: Error): void;
  /** The client has broken the body off, and may still wait for a response. */
  brokenOff(): void;
  /** Somebody wants the body: a client that waits to be asked for it is asked (RFC 9110 §10.1.1). */
  wanted(): void;
  /** The trailer section, empty until it has come. */
  readonly trailers: Fields;
}

export interface BodyStore {
  /** Where bodies wait that are not read in time. */
  readonly directory: string;
  readonly space: SpoolSpace;
  /** Bytes of a body: a byte beyond is still handed on, for the reader to see, and no more are kept. */
  readonly maxBodyBytes: number;
}

export class QuicBody implements RequestBody {
  readonly length: number | undefined;
  readonly #owner: BodyOwner;
  readonly #store: BodyStore;
  #queue: Uint8Array[] = [];
  #queued = 0;
  #received = 0;
  #spool: Spool | null = null;
  /** `ending`: all of it is here, and there may be trailers behind it. */
  #state: "open" | "ending" | "ended" | "lost" | "cancelled" = "open";
  #wake: (() => void) | null = null;
  #asked = false;
  /** Runs while what nobody wants may still come to its end by itself. */
  #patience: NodeJS.Timeout | undefined;

  constructor(length: number | undefined, reading: Reading, owner: BodyOwner, store: BodyStore) {
    this.length = length;
    this.#owner = owner;
    this.#store = store;
    void this.#receive(reading);
  }

  /** Some of it has come, or its end. */
  get hasBegun(): boolean {
    return this.#received > 0 || this.#state !== "open";
  }

  get trailers(): Fields {
    return this.#owner.trailers;
  }

  async read(): Promise<Uint8Array | null> {
    if (!this.#asked) {
      this.#asked = true;
      this.#owner.wanted();
    }
    for (;;) {
      const chunk = this.#queue.shift();
      if (chunk !== undefined) {
        this.#queued -= chunk.length;
        return chunk;
      }
      if (this.#state === "cancelled") return null;
      if (this.#spool !== null && this.#spool.size > 0) return this.#readSpool(this.#spool);
      if (this.#state === "ended") return null;
      if (this.#state === "lost") throw new BodyLostError("the client went away");
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  readAll(): Promise<Uint8Array> {
    return collect(this);
  }

  cancel(): void {
    const isLong = this.#received > LET_GO_BY || (this.length ?? 0) > LET_GO_BY;
    if (this.#state === "open") {
      if (isLong) this.#owner.stopSending();
      else this.#patience = setTimeout(() => this.#owner.stopSending(), LET_GO_FOR);
    }
    this.#drop("cancelled");
  }

  /** The stream has gone: what lies on the disk is of no use any more. */
  lost(): void {
    if (this.#state === "open" || this.#spool !== null) this.#drop("lost");
  }

  async #readSpool(spool: Spool): Promise<Uint8Array | null> {
    try {
      return await spool.read();
    } catch (error) {
      this.#drop("lost");
      this.#owner.cannotKeep(error as Error);
      throw new BodyLostError("the body could not be kept", { cause: error });
    }
  }

  async #receive({ pieces, first }: Reading): Promise<void> {
    try {
      for (let next = await first; !next.done; next = await pieces.next()) {
        for (const piece of next.value) this.#take(piece);
      }
      clearTimeout(this.#patience);
      if (this.#state !== "open") return;
      this.#state = "ending";
      // The engine tells of trailers after the end, in the same turn.
      setImmediate(() => this.#end());
    } catch {
      clearTimeout(this.#patience);
      if (this.#state === "open") this.#owner.brokenOff();
    }
  }

  #end(): void {
    if (this.#state === "ending") this.#state = "ended";
    this.#notify();
  }

  #take(piece: Uint8Array): void {
    const before = this.#received;
    this.#received += piece.length;
    if (this.#state !== "open") {
      if (before <= LET_GO_BY && this.#received > LET_GO_BY) this.#owner.stopSending();
      return;
    }
    const { maxBodyBytes } = this.#store;
    if (before > maxBodyBytes) return;
    if (this.#received > maxBodyBytes) this.#owner.stopSending();
    try {
      this.#keep(piece);
      this.#notify();
    } catch (error) {
      this.#drop("lost");
      this.#owner.cannotKeep(error as Error);
    }
  }

  #keep(piece: Uint8Array): void {
    const spooling = this.#spool !== null && this.#spool.size > 0;
    if (!spooling && this.#queued + piece.length <= IN_MEMORY) {
      this.#queue.push(piece);
      this.#queued += piece.length;
      return;
    }
    this.#spool ??= new Spool(this.#store.directory, this.#store.space);
    if (!this.#spool.push(piece))
      throw new Error("bodies that were not read in time have filled their space");
  }

  #drop(state: "lost" | "cancelled"): void {
    this.#state = state;
    this.#queue = [];
    this.#queued = 0;
    this.#spool?.close();
    this.#spool = null;
    this.#notify();
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = null;
  }
}
