/** The end of a stream of `node:quic` before its time, and the codes for it. */
import { QuicError, type QuicStream } from "node:quic";

/** RFC 9114 §8.1. */
export const Http3Error = {
  noError: 0x100,
  internalError: 0x102,
  excessiveLoad: 0x107,
  requestRejected: 0x10b,
  requestIncomplete: 0x10d,
  messageError: 0x10e,
} as const;

type Http3Code = (typeof Http3Error)[keyof typeof Http3Error];

/** RESET_STREAM for what is sent, STOP_SENDING for what is received. Nothing where the stream has gone. */
export function breakOff(stream: QuicStream, code: Http3Code): void {
  if (stream.destroyed) return;
  try {
    // A writer that is open would have the stream reset with 0.
    const { writer } = stream as unknown as { readonly writer: { fail(reason: QuicError): void } };
    writer.fail(new QuicError("the stream ends short", { errorCode: code }));
  } catch {
    // A body that was given whole has no writer.
  }
  stream.destroy(undefined, { code });
}
