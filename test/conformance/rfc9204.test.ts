/** RFC 9204, QPACK: instructions and field sections that cannot be read, and what is done about them. */
import { setDefaultTimeout } from "bun:test";
import { conformance, type Rule, sent } from "../support/conformance.ts";
import {
  FrameType,
  frame,
  GET,
  headers,
  readFrames,
  readVarint,
  Setting,
  StreamType,
  varint,
} from "../support/http3-frames.ts";
import { until } from "../support/poll.ts";
import { DECODER, ENCODER, type RawHttp3 } from "../support/raw-http3.ts";

setDefaultTimeout(30_000);

const DECOMPRESSION_FAILED = ["closed with QPACK_DECOMPRESSION_FAILED"];
const ENCODER_ERROR = ["closed with QPACK_ENCODER_STREAM_ERROR"];
const DECODER_ERROR = ["closed with QPACK_DECODER_STREAM_ERROR"];
const CRITICAL = ["closed with H3_CLOSED_CRITICAL_STREAM"];
/** What both engines tell: RFC 9204 §5. */
const CAPACITY = 4096;

/** A HEADERS frame with a section of these bytes. */
function section(
  name: string,
  met: readonly string[],
  bytes: readonly number[],
  but: Rule["but"] = {},
): Rule {
  return { name, met, but, http3: (peer) => peer.outcome(peer.begin(frame(FrameType.headers, bytes), true)) };
}

/** The same in HPACK's words, where it has the rule (RFC 7541): a block of these bytes is all of a request. */
function stream(
  name: string,
  met: readonly string[],
  id: number,
  type: number,
  bytes: readonly number[],
  but: Rule["but"] = {},
): Rule {
  return {
    name,
    met,
    but,
    http3: sent(id, Buffer.concat([varint(type), Buffer.from(bytes)])),
  };
}

async function settingsOf(peer: RawHttp3): Promise<Map<number, number>> {
  const settings = await until("SETTINGS", 5_000, () => {
    const control = peer.serverStream(StreamType.control);
    return control && readFrames(control.data).find(({ type }) => type === FrameType.settings);
  });
  const found = new Map<number, number>();
  for (let at = 0; at < settings.payload.length; ) {
    const id = readVarint(settings.payload, at);
    const value = id && readVarint(settings.payload, id.next);
    if (id === null || value === null) throw new Error("SETTINGS end within a setting");
    found.set(id.value, value.value);
    at = value.next;
  }
  return found;
}

/** The server's setting, in words. */
function setting(name: string, id: number, value: number, but: Rule["but"] = {}): Rule {
  return {
    name,
    met: [`${value}`],
    but,
    http3: async (peer) => String((await settingsOf(peer)).get(id) ?? "not told"),
  };
}

const NOT_TOLD = "the engine's settings stay as they are (lsquic)";

conformance(
  "RFC 9204, QPACK",
  [
    // §2, §4.5: field sections.
    section(
      "§2.2.3: a section that is cut short within a line is QPACK_DECOMPRESSION_FAILED",
      DECOMPRESSION_FAILED,
      [0, 0, 0x27, 0x50],
    ),
    section(
      "§3.1: an index beyond the static table is QPACK_DECOMPRESSION_FAILED",
      DECOMPRESSION_FAILED,
      [0, 0, 0xff, 36],
    ),
    section(
      "§3.2.4: a reference to an entry that the section does not require is QPACK_DECOMPRESSION_FAILED",
      DECOMPRESSION_FAILED,
      [0, 0, 0x80],
    ),
    section("§4.1.1: an integer that never ends is QPACK_DECOMPRESSION_FAILED", DECOMPRESSION_FAILED, [
      0,
      0,
      0xff,
      ...new Array(20).fill(0xff),
    ]),
    section(
      "§4.1.2: a string that is no Huffman code is QPACK_DECOMPRESSION_FAILED",
      DECOMPRESSION_FAILED,
      [0, 0, 0x2b, 0xff, 0xff, 0xff, 0x01, 0x61],
    ),
    section("§4.5.1: a section without its prefix is QPACK_DECOMPRESSION_FAILED", DECOMPRESSION_FAILED, [0]),
    section(
      "§4.5.1.1: a required insert count that there cannot be is QPACK_DECOMPRESSION_FAILED",
      DECOMPRESSION_FAILED,
      [0xff, 0xff, 0x7f, 0, 0x80],
    ),
    {
      name: "§2.1.2: a section that waits for the dynamic table does not hold up other streams",
      met: ["nothing"],
      http3: (peer) => peer.outcome(peer.begin(frame(FrameType.headers, [2, 0, 0x80]), true)),
    },
    {
      name: "§2.2.1: a section that waited for the dynamic table is answered when its entry has come",
      met: ["answered 200"],
      http3: async (peer) => {
        // :method GET, :scheme https and :path / by the static table; :authority by the entry to come.
        const id = peer.begin(frame(FrameType.headers, [2, 0, 0x80, 0xd1, 0xd7, 0xc1]), true);
        await peer.get();
        const insert = [0x3f, 0xe1, 0x1f, 0xc0, 1, "a".charCodeAt(0)];
        peer.send(ENCODER, Buffer.concat([varint(StreamType.encoder), Buffer.from(insert)]));
        return peer.outcome(id);
      },
    },
    // §4.2: the streams.
    {
      name: "§4.2: a second encoder stream is H3_STREAM_CREATION_ERROR",
      met: ["closed with H3_STREAM_CREATION_ERROR"],
      http3: (peer) => {
        for (const id of [ENCODER, DECODER]) peer.send(id, varint(StreamType.encoder));
        return peer.outcome();
      },
    },
    {
      name: "§4.2: a second decoder stream is H3_STREAM_CREATION_ERROR",
      met: ["closed with H3_STREAM_CREATION_ERROR"],
      http3: (peer) => {
        for (const id of [ENCODER, DECODER]) peer.send(id, varint(StreamType.decoder));
        return peer.outcome();
      },
    },
    ...(["encoder", "decoder"] as const).map(
      (type): Rule => ({
        name: `§4.2: the end of the ${type} stream is H3_CLOSED_CRITICAL_STREAM`,
        met: CRITICAL,
        http3: sent(ENCODER, varint(StreamType[type]), true),
      }),
    ),
    // §4.3: instructions of the encoder.
    stream(
      "§3.2.3, §4.3.1: a capacity above what was allowed is QPACK_ENCODER_STREAM_ERROR",
      ENCODER_ERROR,
      ENCODER,
      StreamType.encoder,
      [0x3f, 0xe2, 0x1f],
    ),
    stream(
      "§3.2.2: an entry that is larger than the table is QPACK_ENCODER_STREAM_ERROR",
      ENCODER_ERROR,
      ENCODER,
      StreamType.encoder,
      [0x21, 0x41, 0x61, 1, 0x62],
    ),
    stream(
      "§4.3.2: a name by an index beyond the static table is QPACK_ENCODER_STREAM_ERROR",
      ENCODER_ERROR,
      ENCODER,
      StreamType.encoder,
      [0x3f, 0xe1, 0x1f, 0xff, 36, 1, 0x61],
    ),
    stream(
      "§4.3.2: a name by an entry that there is not is QPACK_ENCODER_STREAM_ERROR",
      ENCODER_ERROR,
      ENCODER,
      StreamType.encoder,
      [0x3f, 0xe1, 0x1f, 0x85, 1, 0x61],
    ),
    stream(
      "§4.3.4: the duplicate of an entry that there is not is QPACK_ENCODER_STREAM_ERROR",
      ENCODER_ERROR,
      ENCODER,
      StreamType.encoder,
      [0x3f, 0xe1, 0x1f, 0x00],
    ),
    stream(
      "§4.1.1: an integer that never ends is QPACK_ENCODER_STREAM_ERROR",
      ENCODER_ERROR,
      ENCODER,
      StreamType.encoder,
      [0x3f, ...new Array(20).fill(0xff)],
    ),
    // §4.4: instructions of the decoder.
    stream(
      "§4.4.1: an acknowledgement of a section that was not sent is QPACK_DECODER_STREAM_ERROR",
      DECODER_ERROR,
      DECODER,
      StreamType.decoder,
      [0x80],
    ),
    stream(
      "§4.4.2: the cancellation of a stream that there is not is no error",
      ["nothing"],
      DECODER,
      StreamType.decoder,
      [0x44],
    ),
    stream(
      "§4.4.3: an increment of zero is QPACK_DECODER_STREAM_ERROR",
      DECODER_ERROR,
      DECODER,
      StreamType.decoder,
      [0x00],
    ),
    stream(
      "§4.4.3: an increment beyond what was sent is QPACK_DECODER_STREAM_ERROR",
      DECODER_ERROR,
      DECODER,
      StreamType.decoder,
      [0x05],
    ),
    // §5: what was asked for by the options of the test.
    setting(
      "§5: SETTINGS_QPACK_MAX_TABLE_CAPACITY is as the options say (here 1024)",
      Setting.qpackMaxTableCapacity,
      1024,
      {
        quic: { outcome: `${CAPACITY}`, why: NOT_TOLD },
        native: { outcome: `${CAPACITY}`, why: NOT_TOLD },
      },
    ),
    setting(
      "§5: SETTINGS_QPACK_BLOCKED_STREAMS is as the options say (here 7)",
      Setting.qpackBlockedStreams,
      7,
      {
        quic: { outcome: "100", why: NOT_TOLD },
        native: { outcome: "100", why: NOT_TOLD },
      },
    ),
    setting(
      "RFC 9114 §7.2.4.1: SETTINGS_MAX_FIELD_SECTION_SIZE is as the options say (here 16384)",
      Setting.maxFieldSectionSize,
      16_384,
      {
        quic: { outcome: "not told", why: "node:quic keeps it to itself; 431 is answered all the same" },
        native: { outcome: "65536", why: "fourfold, so that a section over it gets its 431" },
      },
    ),
    {
      name: "RFC 9114 §4.2.2: a section over it is refused with 431",
      met: ["answered 431"],
      http3: (peer) => peer.outcome(peer.begin(headers([...GET, ["a", "b".repeat(16_384)]]), true)),
    },
  ],
  { maxHeaderBytes: 16_384 },
  { engine: "quic", qpackMaxTableCapacity: 1024, qpackBlockedStreams: 7, maxFieldSectionSize: 16_384 },
);
