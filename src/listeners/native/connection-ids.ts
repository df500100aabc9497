/**
 * Asking an engine whether it has a QUIC connection, by packets that are the same in every version (RFC 8999). Bytes
 * alone, no sockets.
 *
 * An ask is a packet of a version that is nobody's, with the connection id in question. An engine that knows no connection
 * of that id tells which versions it speaks (RFC 9000 §6.1); one that does drops the packet as not the connection's. So
 * an answer denies. For silence to say something, a control follows, which is an ask with a random id: what answers it has
 * heard the ask. Answers are sent to the ask's own id, which repeats what was asked:
 *
 *     0      1         5   6        14  15             16        20
 *     │ 0xc0 │ version │ 8 │ the id │ 8 │ kind + place │ id[0…3] │ secret │ padding …
 */
import { randomBytes } from "node:crypto";

/** RFC 9000 §15 keeps versions of this form free. */
export const ASK_VERSION = 0x7aca_8afa;
/** Of the byte that says for which of the sockets that share the port an ask is. */
export const ASK_PLACE_OFFSET = 15;
/** Of that byte, without the kind. */
export const ASK_PLACE_MASK = 0x3f;
/** What an ask is for. `before` is a control that nothing comes before. */
const ASK_KINDS = { ask: 0x00, before: 0x40, control: 0x80 } as const;
/** What an answer must repeat to be one. */
export const SECRET_BYTES = 3;
/** So long are the ids that Bun's engine gives to its connections; a short header does not say it. */
export const ID_BYTES = 8;

const KINDS = Object.keys(ASK_KINDS) as AskKind[];
const LONG_HEADER = 0x80;
const FIXED_BIT = 0x40;
const VERSION_OFFSET = 1;
const ID_OFFSET = 6;
const OWN_ID_BYTES = 8;
/** A smaller packet need not be answered (RFC 9000 §6.1, §14.1). */
const ASK_BYTES = 1200;

export type AskKind = keyof typeof ASK_KINDS;

/** What an answer says. */
export interface Answer {
  readonly kind: AskKind;
  /** Of the engine that answers. */
  readonly place: number;
  readonly idStart: number;
}

/**
 * @param place up to ASK_PLACE_MASK
 * @param id of a connection, as `connectionId` reads it
 */
export function askPacket(kind: AskKind, place: number, id: Buffer, secret: Buffer): Buffer {
  const packet = Buffer.alloc(ASK_BYTES);
  packet[0] = LONG_HEADER | FIXED_BIT;
  packet.writeUInt32BE(ASK_VERSION, VERSION_OFFSET);
  packet[ID_OFFSET - 1] = ID_BYTES;
  (kind === "ask" ? id : randomBytes(ID_BYTES)).copy(packet, ID_OFFSET);
  packet[ASK_PLACE_OFFSET - 1] = OWN_ID_BYTES;
  packet[ASK_PLACE_OFFSET] = ASK_KINDS[kind] | place;
  packet.writeUInt32BE(idStart(id), ASK_PLACE_OFFSET + 1);
  secret.copy(packet, ASK_PLACE_OFFSET + 5);
  return packet;
}

export function isAsk(packet: Buffer): boolean {
  return packet.length === ASK_BYTES && packet.readUInt32BE(VERSION_OFFSET) === ASK_VERSION;
}

/** Null for what is no answer to an ask. */
export function readAnswer(packet: Buffer, secret: Buffer): Answer | null {
  const isAnswer =
    packet.length >= ID_OFFSET + OWN_ID_BYTES &&
    (packet[0] as number) >= LONG_HEADER &&
    packet.readUInt32BE(VERSION_OFFSET) === 0 &&
    packet[ID_OFFSET - 1] === OWN_ID_BYTES &&
    packet.subarray(ID_OFFSET + 5, ID_OFFSET + OWN_ID_BYTES).equals(secret);
  if (!isAnswer) return null;
  const byte = packet[ID_OFFSET] as number;
  const kind = KINDS.find((each) => ASK_KINDS[each] === (byte & ~ASK_PLACE_MASK));
  if (kind === undefined) return null;
  return { kind, place: byte & ASK_PLACE_MASK, idStart: packet.readUInt32BE(ID_OFFSET + 1) };
}

/** The connection id that a client's packet is for; null where it is none that the engine gives. */
export function connectionId(packet: Buffer): Buffer | null {
  const isLong = (packet[0] ?? 0) >= LONG_HEADER;
  if (isLong && packet[ID_OFFSET - 1] !== ID_BYTES) return null;
  const offset = isLong ? ID_OFFSET : 1;
  return packet.length < offset + ID_BYTES ? null : packet.subarray(offset, offset + ID_BYTES);
}

/** The four bytes by which ids are told apart. */
export function idStart(id: Buffer): number {
  return id.readUInt32BE(0);
}
