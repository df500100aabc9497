/** What a QUIC engine makes of a packet of a version that is nobody's, where it knows no connection of its id. */

/** Says which versions it speaks, from and to as they came (RFC 9000 §17.2.1). */
export function denial(packet: Buffer): Buffer {
  const destination = packet.subarray(5, 6 + (packet[5] as number));
  const at = 5 + destination.length;
  const source = packet.subarray(at, at + 1 + (packet[at] as number));
  return Buffer.concat([Buffer.from([0xca, 0, 0, 0, 0]), source, destination, Buffer.from([0, 0, 0, 1])]);
}
