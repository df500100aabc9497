/** What the engine `quic` keeps of bodies that nobody reads, and of responses that leave together, without a connection. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ResponseHead } from "../../src/exchange.ts";
import { QuicBody } from "../../src/listeners/quic/body.ts";
import { Outbox, type Sender } from "../../src/listeners/quic/outbox.ts";
import { Spool, SpoolSpace } from "../../src/listeners/quic/spool.ts";
import { until } from "../support/poll.ts";

describe("a spool", () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "tercet-spool-"));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  /** Bytes of each file that is open. */
  const sizes = () =>
    readdirSync("/proc/self/fd").flatMap((fd) => {
      try {
        const path = `/proc/self/fd/${fd}`;
        return readlinkSync(path).startsWith(directory) ? [statSync(path).size] : [];
      } catch {
        // It was of the listing itself.
        return [];
      }
    });

  async function drain(spool: Spool): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    for (let chunk = await spool.read(); chunk !== null; chunk = await spool.read()) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  test("gives back what it was given, and gives back the disk when all was read", async () => {
    const spool = new Spool(directory, new SpoolSpace(2_000_000));
    const bytes = Buffer.from(Array.from({ length: 700_000 }, (_, i) => i % 251));
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < bytes.length; at += 30_000)
        expect(spool.push(bytes.subarray(at, at + 30_000))).toBe(true);
      expect(sizes()[0]).toBeGreaterThan(500_000);
      expect(bytes.equals(await drain(spool))).toBe(true);
      expect(sizes()).toEqual([0]);
    }
    spool.close();
    expect(sizes()).toEqual([]);
  });

  test("shares its space: what is over it is refused, until another was read, or is closed", async () => {
    const space = new SpoolSpace(1_000_000);
    const [one, other] = [new Spool(directory, space), new Spool(directory, space)];
    const bytes = Buffer.alloc(600_000);
    expect([one.push(bytes), other.push(bytes)]).toEqual([true, false]);
    await drain(one);
    expect([other.push(bytes), one.push(bytes)]).toEqual([true, false]);
    other.close();
    expect([one.push(bytes), one.push(bytes)]).toEqual([true, false]);
    one.close();
  });

  test("that is closed while it is being read lets go of its file behind the read", async () => {
    const spool = new Spool(directory, new SpoolSpace(1_000_000));
    spool.push(Buffer.alloc(300_000));
    const reading = spool.read();
    spool.close();
    expect((await reading)?.length).toBeGreaterThan(0);
    expect(sizes()).toEqual([]);
  });
});

describe("a body", () => {
  test("that is read as it comes needs no disk, however long it is", async () => {
    const piece = Buffer.alloc(64 * 1024);
    const pieces = Array(32).fill([piece]).values();
    const owner = { stopSending() {}, brokenOff() {}, wanted() {}, trailers: [] };
    const failures: string[] = [];
    const body = new QuicBody(
      undefined,
      {
        pieces: { next: async () => pieces.next() },
        first: Promise.resolve({ value: [piece], done: false }),
      },
      { ...owner, cannotKeep: ({ message }) => failures.push(message) },
      { directory: tmpdir(), space: new SpoolSpace(0), maxBodyBytes: 1e9 },
    );
    expect((await body.readAll()).length).toBe(33 * piece.length);
    expect(failures).toEqual([]);
  });
});

describe("the outbox", () => {
  const head: ResponseHead = { status: 200, fields: [] };

  /** Notes what is sent of it; the engine takes its body first where it does at all. */
  class Stream implements Sender {
    readonly #sent: string[];
    readonly #name: string;
    readonly #takesBodyFirst: boolean;
    blocked: () => void = () => {};
    isStuck = false;

    constructor(sent: string[], name: string, takesBodyFirst = true) {
      this.#sent = sent;
      this.#name = name;
      this.#takesBodyFirst = takesBodyFirst;
    }

    send(): void {
      this.#sent.push(this.#name);
    }

    sendBodyFirst(_body: Uint8Array, blocked: () => void): boolean {
      this.blocked = blocked;
      return this.#takesBodyFirst;
    }

    sendHeadLast(): void {
      this.#sent.push(`${this.#name}, carrying`);
    }

    notCalled(): void {
      this.isStuck = true;
    }
  }

  function filled(names: string, takesBodyFirst: (name: string) => boolean = () => true) {
    const sent: string[] = [];
    const outbox = new Outbox<Stream>();
    const streams = [...names].map((name) => new Stream(sent, name, takesBodyFirst(name)));
    const add = (exchange: Stream) => outbox.add({ exchange, head, body: Buffer.from("body") });
    for (const stream of streams) add(stream);
    return { sent, outbox, streams, add };
  }

  test("sends a few at once, and many in the engine's callback, those that come meanwhile with them", () => {
    const few = filled("abc");
    few.outbox.flush();
    expect(few.sent).toEqual(["a", "b", "c"]);
    const many = filled("abcd");
    many.outbox.flush();
    many.add(new Stream(many.sent, "e"));
    expect(many.sent).toEqual([]);
    many.streams[0]?.blocked();
    expect(many.sent).toEqual(["a, carrying", "b", "c", "d", "e"]);
  });

  test("waits for none whose stream takes no body, or has gone", () => {
    const late = filled("abcd", (name) => name !== "a");
    late.outbox.flush();
    late.streams[1]?.blocked();
    expect(late.sent).toEqual(["b, carrying", "a", "c", "d"]);
    const gone = filled("abcd");
    gone.outbox.flush();
    gone.outbox.gone(gone.streams[1] as Stream);
    expect(gone.sent).toEqual([]);
    gone.outbox.gone(gone.streams[0] as Stream);
    expect(gone.sent).toEqual(["a, carrying", "b", "c", "d"]);
  });

  test("waits for the engine's callback for a moment", async () => {
    const { sent, outbox, streams } = filled("abcd");
    outbox.flush();
    await until("the end of it", 5_000, () => sent.length > 0);
    expect(sent).toEqual(["a, carrying", "b", "c", "d"]);
    expect(streams.map(({ isStuck }) => isStuck)).toEqual([true, false, false, false]);
  });
});
