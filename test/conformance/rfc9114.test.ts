/**
 * RFC 9114, HTTP/3: what becomes of a peer that breaks a rule, frame by frame and line by line; and of HTTP/2's peers, where
 * RFC 9113 has the same rule.
 */
import { setDefaultTimeout } from "bun:test";
import { conformance, type Rule, sent } from "../support/conformance.ts";
import {
  type Field,
  FrameType,
  frame,
  GET,
  headers,
  request,
  StreamType,
  settings,
  varint,
} from "../support/http3-frames.ts";
import type { RawHttp2 } from "../support/raw-http2.ts";
import { CONTROL, ENCODER } from "../support/raw-http3.ts";

setDefaultTimeout(30_000);

const MESSAGE_ERROR = ["reset with H3_MESSAGE_ERROR", "closed with H3_MESSAGE_ERROR"];
const REFUSED_BY_2 = ["answered 400", "reset with PROTOCOL_ERROR", "closed with PROTOCOL_ERROR"];
const FRAME_UNEXPECTED = ["closed with H3_FRAME_UNEXPECTED"];

/** Why an engine does otherwise. */
const NO_RESET = "the engine cannot reset a stream, and a status says the same";
const HIDDEN = "the engine does not show it";
const UNCHECKED = "lsquic does not look";
const NATIVE_400: Rule["but"] = { native: { outcome: "answered 400", why: NO_RESET } };
const nativeTakes = (status: number): Rule["but"] => ({
  native: { outcome: `answered ${status}`, why: HIDDEN },
});
/** Both engines stand on lsquic. */
const ofLsquic = (outcome: string): Rule["but"] => {
  const deviation = { outcome, why: UNCHECKED };
  return { quic: deviation, native: deviation };
};

const EMPTY_NAME: Rule["but"] = {
  quic: { outcome: "closed with QPACK_DECOMPRESSION_FAILED", why: "lsquic cannot decode it" },
  native: { outcome: "closed with QPACK_DECOMPRESSION_FAILED", why: "lsquic cannot decode it" },
  "HTTP/2": { outcome: "closed with COMPRESSION_ERROR", why: "node:http2 cannot decode it" },
};

const POST = request({ method: "POST", path: "/echo" });
const [METHOD, SCHEME, AUTHORITY, PATH] = GET as [Field, Field, Field, Field];

/** A request that is whole with its head. */
function asked(fields: readonly Field[]): Pick<Rule, "http3" | "http2"> {
  return {
    http3: (peer) => peer.outcome(peer.begin(headers(fields), true)),
    http2: { met: REFUSED_BY_2, provoke: (peer) => peer.outcome(peer.begin(fields)) },
  };
}

/** A header section that is malformed. */
function malformed(name: string, fields: readonly Field[], but: Rule["but"] = {}): Rule {
  return { name, met: MESSAGE_ERROR, ...asked(fields), but };
}

/** Frames on a stream for a request. */
function onRequest(
  name: string,
  met: readonly string[],
  frames: readonly Uint8Array[],
  but: Rule["but"] = {},
): Rule {
  return { name, met, but, http3: (peer) => peer.outcome(peer.begin(Buffer.concat(frames), true)) };
}

/** Frames on the control stream, behind SETTINGS. */
function onControl(
  name: string,
  met: readonly string[],
  frames: readonly Uint8Array[],
  but: Rule["but"] = {},
): Rule {
  return {
    name,
    met,
    but,
    http3: sent(CONTROL, Buffer.concat(frames)),
  };
}

/** The bytes that a control stream begins with. */
function controlBegins(
  name: string,
  met: readonly string[],
  bytes: readonly Uint8Array[],
  but: Rule["but"] = {},
): Rule {
  return {
    name,
    met,
    but,
    bare: true,
    http3: sent(CONTROL, Buffer.concat([varint(StreamType.control), ...bytes])),
  };
}

/** A second unidirectional stream of a type, or one that no client opens. */
function opened(
  name: string,
  met: readonly string[],
  streams: readonly (readonly [id: number, bytes: Uint8Array])[],
  but: Rule["but"] = {},
): Rule {
  return {
    name,
    met,
    but,
    http3: (peer) => {
      for (const [id, bytes] of streams) peer.send(id, bytes);
      return peer.outcome();
    },
  };
}

async function body2(peer: RawHttp2, fields: readonly Field[], text: string): Promise<string> {
  const stream = peer.begin(fields, false);
  peer.data(stream, text, true);
  return peer.outcome(stream);
}

async function trailers2(peer: RawHttp2, fields: readonly Field[]): Promise<string> {
  const stream = peer.begin(POST, false);
  peer.data(stream, "abc", false);
  peer.headers(stream, fields, true);
  return peer.outcome(stream);
}

function withTrailers(name: string, fields: readonly Field[], but: Rule["but"] = {}): Rule {
  return {
    name,
    met: MESSAGE_ERROR,
    but,
    http3: (peer) =>
      peer.outcome(
        peer.begin(Buffer.concat([headers(POST), frame(FrameType.data, "abc"), headers(fields)]), true),
      ),
    http2: { met: REFUSED_BY_2, provoke: (peer) => trailers2(peer, fields) },
  };
}

function withBody(
  name: string,
  met: Rule["met"],
  fields: readonly Field[],
  text: string,
  but: Rule["but"] = {},
): Rule {
  return {
    name,
    met,
    but,
    http3: (peer) =>
      peer.outcome(
        peer.begin(Buffer.concat([headers([...POST, ...fields]), frame(FrameType.data, text)]), true),
      ),
    http2: {
      met: met.includes("answered 200") ? met : REFUSED_BY_2,
      provoke: (peer) => body2(peer, [...POST, ...fields], text),
    },
  };
}

const DATA = frame(FrameType.data, "abc");

const RULES: readonly Rule[] = [
  // What is in order.
  {
    name: "§4.1: a request of HEADERS alone is answered",
    met: ["answered 200"],
    http3: (peer) => peer.outcome(peer.begin(headers(GET), true)),
    http2: { met: ["answered 200"], provoke: (peer) => peer.outcome(peer.begin(GET)) },
  },
  withBody(
    "§4.1: a request of HEADERS and DATA is answered",
    ["answered 200"],
    [["content-length", "3"]],
    "abc",
  ),
  onRequest(
    "§9: frames of unknown types are ignored, wherever they are",
    ["answered 200"],
    [frame(0x21, "abc"), headers(GET), frame(0x21 + 0x1f * 1000, "abc")],
  ),
  opened(
    "§6.2.3, §9: streams of unknown types are ignored, or stopped",
    ["nothing"],
    [[ENCODER, Buffer.concat([varint(0x21), DATA])]],
  ),
  controlBegins("§7.2.4.1: settings that are not known are ignored", ["nothing"], [settings([[0x21, 5]])]),
  onControl(
    "§7.2.8: frames of reserved types on the control stream are ignored",
    ["nothing"],
    [frame(0x21, "abc")],
  ),

  // Messages: §4.1.
  onRequest("§4.1: DATA before HEADERS is H3_FRAME_UNEXPECTED", FRAME_UNEXPECTED, [DATA, headers(GET)]),
  onRequest("§4.1: a second request on a stream is H3_FRAME_UNEXPECTED", FRAME_UNEXPECTED, [
    headers(POST),
    DATA,
    headers([["a", "b"]]),
    headers(GET),
  ]),
  onRequest("§4.1: DATA behind trailers is H3_FRAME_UNEXPECTED", FRAME_UNEXPECTED, [
    headers(POST),
    DATA,
    headers([["a", "b"]]),
    DATA,
  ]),
  onRequest(
    "§4.1: a stream that ends without a request is H3_REQUEST_INCOMPLETE",
    ["reset with H3_REQUEST_INCOMPLETE"],
    [],
    ofLsquic("nothing"),
  ),

  // §4.1.2, §4.2, §4.3: malformed requests. Each is a stream error H3_MESSAGE_ERROR, and on HTTP/2 PROTOCOL_ERROR or 400 (RFC 9113 §8.1.1).
  withBody(
    "§4.1.2: content-length that is more than the body is malformed",
    MESSAGE_ERROR,
    [["content-length", "10"]],
    "abc",
  ),
  withBody(
    "§4.1.2: content-length that is less than the body is malformed",
    MESSAGE_ERROR,
    [["content-length", "2"]],
    "abc",
  ),
  withBody(
    "§4.1.2: a negative content-length is malformed",
    MESSAGE_ERROR,
    [["content-length", "-3"]],
    "abc",
  ),
  withBody(
    "§4.1.2: two content-lengths that differ are malformed",
    MESSAGE_ERROR,
    [
      ["content-length", "3"],
      ["content-length", "4"],
    ],
    "abc",
  ),
  malformed(
    "§4.1.2: content-length without a body is malformed",
    request({ fields: [["content-length", "3"]] }),
  ),
  malformed("§4.2: an upper-case field name is malformed", request({ fields: [["Accept", "a"]] })),
  malformed("§4.2: an empty field name is malformed", request({ fields: [["", "a"]] }), EMPTY_NAME),
  malformed("§4.2: a field name with a blank is malformed", request({ fields: [["a b", "c"]] })),
  malformed("§4.2: a field name with a colon is malformed", request({ fields: [["a:b", "c"]] })),
  malformed("§4.2: CR in a field value is malformed (RFC 9110 §5.5)", request({ fields: [["a", "b\rc"]] })),
  malformed("§4.2: LF in a field value is malformed (RFC 9110 §5.5)", request({ fields: [["a", "b\nc"]] })),
  malformed("§4.2: NUL in a field value is malformed (RFC 9110 §5.5)", request({ fields: [["a", "b\0c"]] })),
  malformed(
    "§4.2: a blank before a field value is malformed (RFC 9113 §8.2.1)",
    request({ fields: [["a", " b"]] }),
    {
      native: { outcome: "answered 200", why: "the engine takes blanks away" },
      "HTTP/2": { outcome: "answered 200", why: "node:http2 leaves the field out" },
    },
  ),
  malformed("§4.2: connection is malformed", request({ fields: [["connection", "close"]] }), NATIVE_400),
  malformed("§4.2: keep-alive is malformed", request({ fields: [["keep-alive", "5"]] }), NATIVE_400),
  malformed(
    "§4.2: proxy-connection is malformed",
    request({ fields: [["proxy-connection", "close"]] }),
    NATIVE_400,
  ),
  malformed(
    "§4.2: transfer-encoding is malformed",
    request({ fields: [["transfer-encoding", "chunked"]] }),
    NATIVE_400,
  ),
  malformed("§4.2: upgrade is malformed", request({ fields: [["upgrade", "a"]] }), NATIVE_400),
  malformed(
    "§4.2: te that says more than trailers is malformed",
    request({ fields: [["te", "gzip"]] }),
    NATIVE_400,
  ),
  malformed(
    "§4.3: a pseudo field behind a regular field is malformed",
    [METHOD, SCHEME, AUTHORITY, ["a", "b"], PATH],
    nativeTakes(200),
  ),
  malformed("§4.3: an unknown pseudo field is malformed", [...GET, [":a", "b"]], nativeTakes(200)),
  malformed("§4.3: a response's pseudo field is malformed", [...GET, [":status", "200"]], nativeTakes(200)),
  malformed("§4.3.1: without :method it is malformed", [SCHEME, AUTHORITY, PATH], nativeTakes(200)),
  malformed("§4.3.1: without :scheme it is malformed", [METHOD, AUTHORITY, PATH], nativeTakes(200)),
  malformed("§4.3.1: without :path it is malformed", [METHOD, SCHEME, AUTHORITY], nativeTakes(404)),
  malformed("§4.3.1: two :method are malformed", [METHOD, ...GET], nativeTakes(200)),
  malformed("§4.3.1: two :path are malformed", [...GET, PATH], nativeTakes(200)),
  malformed("§4.3.1: an empty :path is malformed", request({ path: "" }), nativeTakes(404)),
  malformed(
    "§4.3.1: a :path that does not begin with a slash is malformed",
    request({ path: "hello" }),
    NATIVE_400,
  ),
  malformed("§4.3.1: an asterisk for GET is malformed", request({ path: "*" }), NATIVE_400),
  malformed("§4.3.1: without :authority and host it is malformed", [METHOD, SCHEME, PATH], NATIVE_400),
  malformed(
    "§4.3.1: an empty :authority is malformed",
    [METHOD, SCHEME, [":authority", ""], PATH],
    NATIVE_400,
  ),
  malformed(
    "§4.3.1: userinfo in :authority is malformed",
    [METHOD, SCHEME, [":authority", "a@localhost"], PATH],
    NATIVE_400,
  ),
  malformed(
    "§4.3.1: host that disagrees with :authority is malformed",
    request({ fields: [["host", "b"]] }),
    nativeTakes(200),
  ),
  malformed(
    "§4.4: CONNECT with :scheme and :path is malformed",
    [[":method", "CONNECT"], SCHEME, AUTHORITY, PATH],
    nativeTakes(501),
  ),
  malformed("§4.4: CONNECT without :authority is malformed", [[":method", "CONNECT"]], nativeTakes(404)),
  malformed(
    "RFC 9220 §3: extended CONNECT, which was not offered, is malformed",
    [[":method", "CONNECT"], SCHEME, AUTHORITY, PATH, [":protocol", "websocket"]],
    nativeTakes(501),
  ),
  {
    name: "§4.4: CONNECT of its own form is refused with a status",
    but: nativeTakes(404),
    met: ["answered 501"],
    ...asked([
      [":method", "CONNECT"],
      [":authority", "a.example:443"],
    ]),
    http2: {
      met: ["answered 501"],
      provoke: (peer) =>
        peer.outcome(
          peer.begin([
            [":method", "CONNECT"],
            [":authority", "a.example:443"],
          ]),
        ),
    },
  },
  withTrailers("§4.3: a pseudo field in a trailer section is malformed", [[":path", "/"]], nativeTakes(200)),
  withTrailers("§4.2: an upper-case name in a trailer section is malformed", [["Sum", "1"]]),
  withTrailers(
    "§4.2: a field of the connection in a trailer section is malformed",
    [["connection", "close"]],
    nativeTakes(200),
  ),

  // §6.2: unidirectional streams.
  controlBegins(
    "§6.2.1: a control stream that does not begin with SETTINGS is H3_MISSING_SETTINGS",
    ["closed with H3_MISSING_SETTINGS"],
    [frame(FrameType.goaway, [0])],
  ),
  controlBegins(
    "§6.2.1: not even a reserved frame comes before SETTINGS",
    ["closed with H3_MISSING_SETTINGS"],
    [frame(0x21, "abc"), settings()],
  ),
  opened(
    "§6.2.1: a second control stream is H3_STREAM_CREATION_ERROR",
    ["closed with H3_STREAM_CREATION_ERROR"],
    [[ENCODER, Buffer.concat([varint(StreamType.control), settings()])]],
  ),
  opened(
    "§6.2.2: a push stream from a client is H3_STREAM_CREATION_ERROR",
    ["closed with H3_STREAM_CREATION_ERROR"],
    [[ENCODER, Buffer.concat([varint(StreamType.push), varint(0)])]],
  ),
  {
    name: "§6.2.1: the end of the control stream is H3_CLOSED_CRITICAL_STREAM",
    met: ["closed with H3_CLOSED_CRITICAL_STREAM"],
    http3: sent(CONTROL, new Uint8Array(0), true),
  },

  // §7.2: frames where they do not belong.
  ...(
    [
      ["DATA", FrameType.data],
      ["HEADERS", FrameType.headers],
      ["PUSH_PROMISE", FrameType.pushPromise],
    ] as const
  ).map(([name, type]) =>
    onControl(`§7.2: ${name} on the control stream is H3_FRAME_UNEXPECTED`, FRAME_UNEXPECTED, [
      frame(type, [0, 0, 0]),
    ]),
  ),
  ...(
    [
      ["CANCEL_PUSH", FrameType.cancelPush],
      ["SETTINGS", FrameType.settings],
      ["GOAWAY", FrameType.goaway],
      ["MAX_PUSH_ID", FrameType.maxPushId],
      ["PUSH_PROMISE", FrameType.pushPromise],
    ] as const
  ).map(([name, type]) =>
    onRequest(`§7.2: ${name} on a request's stream is H3_FRAME_UNEXPECTED`, FRAME_UNEXPECTED, [
      frame(type, type === FrameType.settings ? [] : [0]),
      headers(GET),
    ]),
  ),
  onControl(
    "§7.2.3: CANCEL_PUSH of a push that there is not is H3_ID_ERROR",
    ["closed with H3_ID_ERROR"],
    [frame(FrameType.cancelPush, [5])],
  ),
  onControl("§7.2.4: a second SETTINGS is H3_FRAME_UNEXPECTED", FRAME_UNEXPECTED, [settings()]),
  controlBegins(
    "§7.2.4: SETTINGS that end within a setting are H3_FRAME_ERROR",
    ["closed with H3_FRAME_ERROR"],
    [frame(FrameType.settings, [6])],
    ofLsquic("nothing"),
  ),
  ...([2, 3, 4, 5] as const).map((id) =>
    controlBegins(
      `§7.2.4.1: HTTP/2's setting ${id} is H3_SETTINGS_ERROR`,
      ["closed with H3_SETTINGS_ERROR"],
      [settings([[id, 1]])],
    ),
  ),
  onControl(
    "§7.2.6, §5.2: a GOAWAY with more than the one before is H3_ID_ERROR",
    ["closed with H3_ID_ERROR"],
    [frame(FrameType.goaway, [4]), frame(FrameType.goaway, [8])],
    ofLsquic("nothing"),
  ),
  onControl(
    "§7.2.6: a GOAWAY without an id is H3_FRAME_ERROR",
    ["closed with H3_FRAME_ERROR"],
    [frame(FrameType.goaway)],
    ofLsquic("nothing"),
  ),
  onControl(
    "§7.2.7: a MAX_PUSH_ID with less than the one before is H3_ID_ERROR",
    ["closed with H3_ID_ERROR"],
    [frame(FrameType.maxPushId, [5]), frame(FrameType.maxPushId, [3])],
  ),
  onControl(
    "§7.1: a frame with bytes behind its fields is H3_FRAME_ERROR",
    ["closed with H3_FRAME_ERROR"],
    [frame(FrameType.maxPushId, [5, 5])],
  ),
  onRequest(
    "§7.1: a stream that ends within HEADERS is H3_FRAME_ERROR",
    ["closed with H3_FRAME_ERROR"],
    [headers(GET).subarray(0, 20)],
  ),
  onRequest(
    "§7.1: a stream that ends within DATA is H3_FRAME_ERROR",
    ["closed with H3_FRAME_ERROR"],
    [headers(POST), frame(FrameType.data, "abcdef").subarray(0, 4)],
    ofLsquic("answered 200"),
  ),
  ...([2, 6, 8, 9] as const).flatMap((type) => [
    onRequest(
      `§7.2.8: HTTP/2's frame ${type} on a request's stream is H3_FRAME_UNEXPECTED`,
      FRAME_UNEXPECTED,
      [frame(type, [0]), headers(GET)],
    ),
    onControl(
      `§7.2.8: HTTP/2's frame ${type} on the control stream is H3_FRAME_UNEXPECTED`,
      FRAME_UNEXPECTED,
      [frame(type, [0])],
      ofLsquic("nothing"),
    ),
  ]),
];

conformance("RFC 9114, HTTP/3", RULES);
