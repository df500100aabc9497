/** Asks and answers about QUIC connections, as bytes: RFC 8999, RFC 9000 §17.2.1. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  ASK_PLACE_MASK,
  type AskKind,
  askPacket,
  connectionId,
  ID_BYTES,
  idStart,
  isAsk,
  readAnswer,
  SECRET_BYTES,
} from "../../src/listeners/native/connection-ids.ts";
import { denial } from "../support/version-negotiation.ts";

const id = Buffer.from("0102030405060708", "hex");
const secret = Buffer.from("abcdef", "hex");

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length }).map(Buffer.from);

describe("an answer", () => {
  test("tells what was asked, of which id, and who answers", () => {
    const kind = fc.constantFrom<AskKind>("ask", "before", "control");
    fc.assert(
      fc.property(kind, fc.nat(ASK_PLACE_MASK), bytes(ID_BYTES), (kind, place, id) => {
        const answer = readAnswer(denial(askPacket(kind, place, id, secret)), secret);
        expect(answer).toEqual({ kind, place, idStart: idStart(id) });
      }),
    );
  });

  test("is none without the secret, of a version, or to an id of another length", () => {
    const answer = denial(askPacket("ask", 1, id, secret));
    const changed = (at: number) => Buffer.from(answer.map((byte, i) => (i === at ? byte ^ 1 : byte)));
    for (const at of [4, 5, 11, 12, 13]) expect(readAnswer(changed(at), secret)).toBeNull();
    // A short header.
    expect(readAnswer(Buffer.concat([Buffer.from([0x40]), answer.subarray(1)]), secret)).toBeNull();
    for (let length = 0; length < 14; length++)
      expect(readAnswer(answer.subarray(0, length), secret)).toBeNull();
  });

  test("is none of a kind that nobody asks", () => {
    const answer = denial(askPacket("ask", 1, id, secret));
    answer[6] = 0xc0;
    expect(readAnswer(answer, secret)).toBeNull();
  });
});

describe("an ask", () => {
  test("is for the connection in question, and a control for one that there is not", () => {
    const idOf = (kind: AskKind) => connectionId(askPacket(kind, 0, id, secret));
    expect(idOf("ask")).toEqual(id);
    for (const kind of ["before", "control"] as const) expect(idOf(kind)).not.toEqual(id);
  });

  test("is known as one, and nothing else is", () => {
    const ask = askPacket("ask", 0, id, secret);
    expect([isAsk(ask), isAsk(ask.subarray(1)), isAsk(Buffer.alloc(ask.length))]).toEqual([
      true,
      false,
      false,
    ]);
  });
});

describe("a client's packet", () => {
  const long = (idBytes: number) => Buffer.concat([Buffer.from([0xc0, 0, 0, 0, 1, idBytes]), id]);
  const short = Buffer.concat([Buffer.from([0x40]), id]);

  test("says which connection it is for, with either header", () => {
    for (const packet of [long(ID_BYTES), short]) expect(connectionId(packet)).toEqual(id);
  });

  test("does not where that is none of the engine's, or it ends too early", () => {
    for (const packet of [long(ID_BYTES - 1), long(ID_BYTES).subarray(0, -1), short.subarray(0, -1)])
      expect(connectionId(packet)).toBeNull();
  });
});

test("whatever comes is read", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), bytes(SECRET_BYTES), (packet, secret) => {
      readAnswer(Buffer.from(packet), secret);
      expect(connectionId(Buffer.from(packet))?.length ?? ID_BYTES).toBe(ID_BYTES);
    }),
  );
});
