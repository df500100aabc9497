/** RFC 9218, priorities: the field, the frame, and what comes first on a line that is too narrow for all. */
import { setDefaultTimeout } from "bun:test";
import { conformance, type Rule, sent } from "../support/conformance.ts";
import { FrameType, frame, GET, headers, request, varint } from "../support/http3-frames.ts";
import { until } from "../support/poll.ts";
import { CONTROL, type RawHttp3 } from "../support/raw-http3.ts";

setDefaultTimeout(30_000);

/** Why an engine does otherwise. */
const OFF = "the engine has priorities switched off";
const IGNORES: Rule["but"] = { native: { outcome: "nothing", why: OFF } };

function update(id: number, value: string): Buffer {
  return frame(FrameType.priorityUpdate, Buffer.concat([varint(id), Buffer.from(value)]));
}

function onControl(name: string, met: readonly string[], bytes: Uint8Array, but: Rule["but"] = {}): Rule {
  return {
    name,
    met,
    but,
    http3: sent(CONTROL, bytes),
  };
}

/**
 * Where both responses of a race are made: in the process that sends them. On a busy machine a worker of its own made the one
 * that is ahead more slowly than it went out, and the other had its turn.
 */
const ONE_PROCESS = { mode: "base", workers: 1 };
const LARGE = 64 * 65_536;
/** Bytes for all streams together: less than each of the responses, so that they have to share. */
const NARROW = 65_536;

/**
 * Which of two large responses on one connection comes first: `in turn` where the second has had a third of its bytes by
 * the time that the first has all.
 */
async function race(
  peer: RawHttp3,
  first: readonly [path: string, priority?: string],
  second: readonly [path: string, priority?: string],
  between?: (id: number) => void,
): Promise<string> {
  const ask = ([path, priority]: typeof first) =>
    peer.begin(
      headers(request({ path, fields: priority === undefined ? [] : [["priority", priority]] })),
      true,
    );
  const earlier = ask(first);
  between?.(earlier);
  const ids = [earlier, ask(second)] as const;
  const ended = await until("one of them", 20_000, () => ids.find((id) => peer.stream(id).ended));
  const { lengthsAtEnd } = peer.stream(ended);
  const shares = ids.map((id) => (lengthsAtEnd.get(id) ?? 0) / LARGE) as [number, number];
  if (Math.min(...shares) > 1 / 3) return "in turn";
  return shares[0] > shares[1] ? "the first first" : "the second first";
}

conformance(
  "RFC 9218, priorities",
  [
    {
      name: "§4: a priority field that cannot be read is ignored",
      met: ["answered 200"],
      http3: (peer) => peer.outcome(peer.begin(headers([...GET, ["priority", "===="]]), true)),
      http2: {
        met: ["answered 200"],
        provoke: (peer) => peer.outcome(peer.begin([...GET, ["priority", "===="]])),
      },
    },
    onControl("§7.2: PRIORITY_UPDATE of a stream that is to come is taken", ["nothing"], update(0, "u=1, i")),
    {
      name: "§7.2: PRIORITY_UPDATE on a request's stream is H3_FRAME_UNEXPECTED",
      met: ["closed with H3_FRAME_UNEXPECTED"],
      but: { native: { outcome: "answered 200", why: OFF } },
      http3: (peer) => peer.outcome(peer.begin(Buffer.concat([update(0, "u=1"), headers(GET)]), true)),
    },
    onControl(
      "§7.2: PRIORITY_UPDATE of a stream that no client can open is H3_ID_ERROR",
      ["closed with H3_ID_ERROR"],
      update(2, "u=1"),
      IGNORES,
    ),
    onControl(
      "§7.2: PRIORITY_UPDATE of a stream beyond the limit is H3_ID_ERROR",
      ["closed with H3_ID_ERROR"],
      update(4 * 100_000, "u=1"),
      IGNORES,
    ),
    onControl(
      "§7.2: PRIORITY_UPDATE of a push that there is not is H3_ID_ERROR",
      ["closed with H3_ID_ERROR"],
      frame(FrameType.priorityUpdatePush, Buffer.concat([varint(2), Buffer.from("u=1")])),
      IGNORES,
    ),
    onControl(
      "§7.2: PRIORITY_UPDATE without an id is H3_FRAME_ERROR",
      ["closed with H3_FRAME_ERROR"],
      frame(FrameType.priorityUpdate),
      { quic: { outcome: "nothing", why: "lsquic does not look" }, native: { outcome: "nothing", why: OFF } },
    ),
    onControl(
      "§7: a value in PRIORITY_UPDATE that cannot be read is ignored, or an error of the connection",
      ["nothing", "closed with H3_FRAME_ERROR", "closed with H3_GENERAL_PROTOCOL_ERROR"],
      update(0, "===="),
    ),
    {
      name: "§10: what is more urgent comes first",
      met: ["the second first"],
      but: { native: { outcome: "in turn", why: OFF } },
      window: NARROW,
      http3: (peer) => race(peer, ["/race", "u=5"], ["/race", "u=1"]),
    },
    {
      name: "§10: what is incremental, and of the same urgency, shares the line",
      met: ["in turn"],
      window: NARROW,
      http3: (peer) => race(peer, ["/race", "i"], ["/race", "i"]),
    },
    {
      name: "§8: the server's own view, in the field of its response, counts",
      met: ["the second first"],
      but: { native: { outcome: "in turn", why: OFF } },
      window: NARROW,
      http3: (peer) => race(peer, ["/race?urgency=6"], ["/race?urgency=0"]),
    },
    {
      name: "§7: PRIORITY_UPDATE takes the place of the field",
      met: ["the first first"],
      but: { native: { outcome: "in turn", why: OFF } },
      window: NARROW,
      // Of the first, and before the second: on a busy machine one that came behind both could come late.
      http3: (peer) =>
        race(peer, ["/race", "u=5"], ["/race", "u=3"], (id) => peer.send(CONTROL, update(id, "u=1"))),
    },
  ],
  ONE_PROCESS,
);
