/** The other end of a channel between a reactor and a worker, without a process. */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { type Frame, FrameReader, FrameWriter, WIRE_VERSION } from "../../src/wire/frames.ts";

/** Says something at the other end. */
export function say(socket: Duplex, write: (writer: FrameWriter) => void): void {
  const writer = new FrameWriter();
  write(writer);
  socket.emit("data", writer.take());
}

/**
 * Opens a channel, at whose other end hello is said.
 * @param attach takes this end
 * @param told what is sent to the other end
 */
export function openChannel<Attached>(
  attach: (socket: Socket) => Attached,
  hello: { readonly workerId: number; readonly pid: number },
  told: (frame: Frame) => void = () => {},
): { readonly socket: Duplex; readonly attached: Attached } {
  const reader = new FrameReader();
  const socket = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      reader.push(chunk, told);
      done();
    },
  });
  const attached = attach(socket as Socket);
  say(socket, (writer) => writer.hello({ version: WIRE_VERSION, ...hello }));
  return { socket, attached };
}
