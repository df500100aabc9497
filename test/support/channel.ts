/** The other end of a channel between a reactor and a worker, without a process. */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { type Frame, FrameReader, FrameType, FrameWriter, WIRE_VERSION } from "../../src/wire/frames.ts";

/** Says something at the other end. */
export function say(socket: Duplex, write: (writer: FrameWriter) => void): void {
  const writer = new FrameWriter();
  write(writer);
  socket.emit("data", writer.take());
}

interface Hello {
  readonly workerId: number;
  readonly pid: number;
}

/** What ends a channel in the place of a hello: that of another version, and another frame with the same in it. */
export function wrongHellos(given: Hello): readonly ((writer: FrameWriter) => void)[] {
  const hello = { version: WIRE_VERSION, ...given };
  return [
    (writer) => writer.hello({ ...hello, version: WIRE_VERSION + 1 }),
    (writer) => {
      writer.hello(hello);
      const frame = writer.take();
      frame[4] = FrameType.data;
      writer.raw(frame);
    },
  ];
}

/**
 * Opens a channel, at whose other end hello is said.
 * @param attach takes this end
 * @param hello what is said of who is there; or something else in its place
 * @param told what is sent to the other end
 */
export function openChannel<Attached>(
  attach: (socket: Socket) => Attached,
  hello: Hello | ((writer: FrameWriter) => void),
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
  const first = (writer: FrameWriter) =>
    typeof hello === "function" ? hello(writer) : writer.hello({ version: WIRE_VERSION, ...hello });
  say(socket, first);
  return { socket, attached };
}
