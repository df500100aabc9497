/**
 * A handler's exchange whose response is compressed where that is of use and the client takes it. It is the exchange's
 * own sink and no second one around it: a response that is too small costs one comparison, one of another type a look
 * at its fields, and neither an object.
 */
import type { Fields, ResponseHead } from "../exchange.ts";
import { byteBound, toBytes } from "../http/body.ts";
import { type ContentCoding, codedHead, notModifiedHead, type Plan } from "../http/content-coding.ts";
import { contentLength } from "../http/fields.ts";
import type { Coding } from "../options.ts";
import { Encoder, encode } from "./encoder.ts";
import type { AnsweringExchange } from "./handler-exchange.ts";

/**
 * Bytes of a body that are compressed in one turn of the event loop, which takes zstd half a millisecond, br and gzip one
 * to two. The threads of node:zlib would take a tenth of a millisecond more for a body of 1 KiB, and are no gain where
 * there is a worker for each core.
 */
const TURN_BYTES = 128 * 1024;
const NOTHING = new Uint8Array(0);

/** A body that is compressed piece by piece. */
interface Streaming {
  readonly encoder: Encoder;
  /** Of the body, not compressed yet: the client, or the event loop, is to come first. */
  readonly waiting: Uint8Array[];
  /** What is to come behind that; null while the response has not ended. */
  ending: { readonly trailers: Fields | null } | null;
}

// biome-ignore lint/suspicious/noExplicitAny: what TypeScript asks of a mixin's constructor
type ExchangeClass = new (...args: any[]) => AnsweringExchange;

/** A class of exchanges, whose responses are compressed. */
export function compressing<Base extends ExchangeClass>(base: Base, compression: ContentCoding): Base {
  return class CompressingExchange extends base {
    #streaming: Streaming | null = null;

    override respond(head: ResponseHead, body: Uint8Array | string | null): void {
      if (body === null) {
        super.respond(this.#headWithoutBody(head), null);
        return;
      }
      if (byteBound(body) < compression.options.minBytes) {
        super.respond(head, body);
        return;
      }
      this.#respondWith(head, toBytes(body));
    }

    #respondWith(head: ResponseHead, body: Uint8Array): void {
      const plan = this.#planOf(head, body.length);
      if (plan === null || plan.coding === null) {
        super.respond(plan?.head ?? head, body);
        return;
      }
      if (body.length > TURN_BYTES) {
        this.#begin(plan.head, plan.coding);
        this.data(body);
        this.end(null);
        return;
      }
      const coded = encode(plan.coding, compression.options.levels, body);
      if (coded.length >= body.length) super.respond(plan.head, body);
      else super.respond(codedHead(plan.head, plan.coding, coded.length), coded);
    }

    override head(head: ResponseHead): void {
      const plan = this.#planOf(head, contentLength(head.fields));
      if (plan === null || plan.coding === null) super.head(plan?.head ?? head);
      else this.#begin(plan.head, plan.coding);
    }

    override data(chunk: Uint8Array): boolean {
      const streaming = this.#streaming;
      if (streaming === null || chunk.length === 0) return super.data(chunk);
      streaming.waiting.push(chunk);
      // Behind one that waits it goes on when that does.
      return streaming.waiting.length === 1 && this.#encode(streaming);
    }

    override end(trailers: Fields | null): void {
      const streaming = this.#streaming;
      if (streaming === null) {
        super.end(trailers);
        return;
      }
      streaming.ending = { trailers };
      if (streaming.waiting.length === 0) this.#encode(streaming);
      // As without compression: its client may take nothing until then.
      this.body?.cancel();
    }

    override abort(reason: string): void {
      this.#close();
      super.abort(reason);
    }

    override abandon(reason: string): void {
      this.#close();
      super.abandon(reason);
    }

    override drained(): void {
      this.#goOn();
    }

    #planOf(head: ResponseHead, length: number | undefined): Plan | null {
      return length !== undefined && length < compression.options.minBytes
        ? null
        : compression.plan(this, head);
    }

    /** To HEAD says what GET would say, as far as it is known: a body of unknown length may be too small. */
    #headWithoutBody(head: ResponseHead): ResponseHead {
      if (head.status === 304) return notModifiedHead(this, head);
      if (this.method !== "HEAD") return head;
      const length = contentLength(head.fields);
      const plan = this.#planOf(head, length);
      if (plan === null) return head;
      return length === undefined || plan.coding === null
        ? plan.head
        : codedHead(plan.head, plan.coding, null);
    }

    #begin(head: ResponseHead, coding: Coding): void {
      super.head(codedHead(head, coding, null));
      if (this.method !== "HEAD" && !this.aborted) {
        const encoder = new Encoder(coding, compression.options.levels);
        this.#streaming = { encoder, waiting: [], ending: null };
      }
    }

    /** Compresses what waits, up to a turn's worth. False where some is left, or the client has no room. */
    #encode(streaming: Streaming): boolean {
      const { encoder, waiting } = streaming;
      let left = TURN_BYTES;
      while (waiting.length > 0) {
        if (left === 0) {
          setImmediate(() => this.#goOn());
          return false;
        }
        const chunk = waiting[0] as Uint8Array;
        const piece = chunk.subarray(0, left);
        left -= piece.length;
        if (piece.length === chunk.length) waiting.shift();
        else waiting[0] = chunk.subarray(piece.length);
        const isLast = waiting.length === 0;
        const then = !isLast ? "continue" : streaming.ending === null ? "flush" : "finish";
        const hasRoom = super.data(encoder.encode(piece, then));
        if (then === "finish") {
          this.#finish(streaming);
          return true;
        }
        if (!hasRoom) return false;
      }
      if (streaming.ending !== null) {
        super.data(encoder.encode(NOTHING, "finish"));
        this.#finish(streaming);
      }
      return true;
    }

    /** The client has room again, or the event loop has come round. */
    #goOn(): void {
      if (this.#streaming === null || this.#encode(this.#streaming)) super.drained();
    }

    #finish({ ending }: Streaming): void {
      this.#close();
      super.end(ending?.trailers ?? null);
    }

    #close(): void {
      this.#streaming?.encoder.close();
      this.#streaming = null;
    }
  };
}
