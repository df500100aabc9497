/** An exchange as a handler has it, in either mode, compressed and not, without a client. */
import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { LocalExchange, type LocalOwner } from "../../src/base/local-exchange.ts";
import type { Exchange, ExchangeId, RequestHead } from "../../src/exchange.ts";
import { HttpResponse } from "../../src/handler/response.ts";
import { ContentCoding } from "../../src/http/content-coding.ts";
import { resolveOptions } from "../../src/options.ts";
import type { Channel } from "../../src/wire/channel.ts";
import { FrameWriter } from "../../src/wire/frames.ts";
import { ChannelExchange } from "../../src/worker/channel-exchange.ts";
import { compressing } from "../../src/worker/compressing-exchange.ts";
import { inTime } from "../support/poll.ts";

const HEAD = { protocol: "HTTP/2", method: "GET", path: "/", fields: ["accept-encoding", "gzip"] };
const { compression } = resolveOptions({});
const coding = new ContentCoding(compression as Exclude<typeof compression, false>);

const KINDS = {
  "in the mode process": (isCompressed: boolean) => {
    const Made = isCompressed ? compressing(ChannelExchange, coding) : ChannelExchange;
    const channel = { writer: new FrameWriter() } as Channel;
    return new Made(1 as ExchangeId, HEAD as unknown as RequestHead, false, channel, () => {});
  },
  "in the mode base": (isCompressed: boolean) => {
    const Made = isCompressed ? compressing(LocalExchange, coding) : LocalExchange;
    const sink = { head: () => {}, data: () => false, end: () => {}, onDrain: null };
    const exchange = { id: 1, body: null, sink } as unknown as Exchange;
    return new Made(exchange, HEAD as unknown as RequestHead, {} as LocalOwner);
  },
};

for (const [mode, open] of Object.entries(KINDS)) {
  describe(mode, () => {
    test.each([false, true])(
      "a write that waits for room resolves when the client has gone, compressed: %p",
      async (isCompressed) => {
        const exchange = open(isCompressed);
        const response = new HttpResponse(exchange).header("content-type", "text/plain");
        let isDone = false;
        const writing = response.write(randomBytes(1_000_000)).then(() => {
          isDone = true;
        });
        await Bun.sleep(1);
        expect(isDone).toBe(false);
        exchange.abandon("the client left");
        await inTime("the write", 1000, writing);
        await inTime("another write", 1000, response.write("more"));
        response.end();
      },
    );
  });
}
