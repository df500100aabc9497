/** HTTP/3 engines that take turns on one port, each with a certificate of its own. In this process, and with little patience. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { networkInterfaces } from "node:os";
import type { ExchangeId } from "../src/exchange.ts";
import { ConnectionLimits } from "../src/listeners/connection-limits.ts";
import type { Certificates, Listener, ListenerHost } from "../src/listeners/listener.ts";
import { NativeEngine } from "../src/listeners/native/engine.ts";
import { listenHttp3Native } from "../src/listeners/native/listener.ts";
import { udpSocketsOf } from "../src/listeners/udp-socket.ts";
import { makeCertificate } from "./support/certificate.ts";
import { QuicheClient } from "./support/http3-quiche-client.ts";
import { inTime, until } from "./support/poll.ts";
import { RawHttp3 } from "./support/raw-http3.ts";
import { fingerprintOf, shownByQuic } from "./support/shown-certificate.ts";
import { UdpRelay } from "./support/udp-relay.ts";

setDefaultTimeout(60_000);

const TIMES = { catching: 1000, handshake: 100, check: 50 };
const ENDED = "HTTP/3: the last connection with an earlier certificate has ended";
const hasIpv6 = Object.values(networkInterfaces()).some((own) =>
  own?.some(({ family }) => family === "IPv6"),
);

/** Answers every request with the client's port. */
class Host implements ListenerHost {
  readonly tellConnection = null;
  readonly lines: string[] = [];
  #id = 0;

  nextId(): ExchangeId {
    return ++this.#id as ExchangeId;
  }

  accept({ sink, remotePort }: Parameters<ListenerHost["accept"]>[0]): void {
    sink.respond({ status: 200, fields: [] }, Buffer.from(String(remotePort)));
  }

  turnAway(exchange: Parameters<ListenerHost["accept"]>[0]): void {
    this.accept(exchange);
  }

  log(line: string): void {
    this.lines.push(line);
  }

  get ended(): number {
    return this.lines.filter((line) => line === ENDED).length;
  }
}

async function makeCertificates(): Promise<Certificates> {
  return { ...(await makeCertificate()), sni: {} };
}

/** @returns what the server takes for the client's port */
async function portOf(client: QuicheClient): Promise<number> {
  const answer = client.request({ path: "/" }).then(({ body }) => body.text());
  return Number(await inTime("an answer", 8_000, answer));
}

describe(hasIpv6 ? "on all addresses" : "on all addresses of IPv4", () => {
  let host: Host;
  let listener: Listener;
  beforeEach(async () => {
    host = new Host();
    listener = await listenHttp3Native(
      {
        host: hasIpv6 ? "::" : "0.0.0.0",
        port: 0,
        reusePort: false,
        tls: await makeCertificates(),
        maxHeaderBytes: 65_536,
        keepAliveTimeout: 60_000,
        connectionLimits: new ConnectionLimits({ maxConnections: 0, maxConnectionsPerAddress: 0 }),
        spareDescriptors: 0,
        maxRequestsPerConnection: 0,
        altSvc: null,
      },
      host,
      TIMES,
    );
  });
  afterEach(() => listener.close());

  /** @param open clients, who speak at once: one that was silent is given up sooner here than anywhere else */
  async function change(...open: QuicheClient[]): Promise<void> {
    await listener.setCertificates(await makeCertificates());
    for (const client of open) await portOf(client);
  }

  test("each is there for as long as it has a connection", async () => {
    await using first = await QuicheClient.connect(listener);
    const port = await portOf(first);
    const others: QuicheClient[] = [];
    try {
      for (let i = 0; i < 3; i++) {
        await change(first, ...others);
        others.push(await QuicheClient.connect(listener));
      }
      // The first engine and the last are not the only ones.
      await others[0]?.close();
      await until("the end of the second engine", 10_000, () => host.ended === 1);
      for (const client of [first, ...others.slice(1)]) await portOf(client);
      await change(first, ...others.slice(1));
      await others[1]?.close();
      await until("the end of the third engine", 10_000, () => host.ended === 2);
      await others[2]?.close();
      await until("the end of the fourth engine", 10_000, () => host.ended === 3);
      expect(await portOf(first)).toBe(port);
      expect(first.closedBecause).toBeNull();
      await first.close();
      await until("the end of the first engine", 10_000, () => host.ended === 4);
      await using last = await QuicheClient.connect(listener);
      const certificate = await makeCertificates();
      await listener.setCertificates(certificate);
      await portOf(last);
      expect(await shownByQuic(listener.port)).toBe(fingerprintOf(certificate));
    } finally {
      for (const client of others) await client.close();
    }
  });

  test("one that takes its time to close leaves the others the port as they need it", async () => {
    const { close } = NativeEngine.prototype;
    using slow = spyOn(NativeEngine.prototype, "close").mockImplementation(async function (
      this: NativeEngine,
    ) {
      await close.call(this);
      await Bun.sleep(5 * TIMES.check);
    });
    const client = await QuicheClient.connect(listener);
    await change(client);
    await client.close();
    await until("the end of the first engine", 10_000, () => host.ended === 1);
    expect(host.lines).toEqual([ENDED]);
    expect(slow).toHaveBeenCalledTimes(1);
  });

  test("a client whose port changes keeps its connection", async () => {
    using router = await UdpRelay.to(listener.port);
    await using client = await QuicheClient.connect(router);
    let port = await portOf(client);
    await change(client);
    for (let i = 0; i < 2; i++) {
      await router.move();
      // The engine first makes sure that it is the client's (RFC 9000 §9.3).
      port = await until("another port", 8_000, async () => {
        const now = await portOf(client);
        return now !== port && now;
      });
      // Until all that is unknown is taken for new.
      await Bun.sleep(1.5 * TIMES.catching);
    }
    expect(client.closedBecause).toBeNull();
    expect(host.ended).toBe(0);
  });

  test("an answer that is there at once comes behind the 100 that the engine sends (RFC 9110 §10.1.1)", async () => {
    await using peer = await RawHttp3.open(listener.port);
    // Once in four times, or each time: as the client is.
    for (let i = 0; i < 20; i++) expect(await peer.get({ fields: [["expect", "100-continue"]] })).toBe(200);
  });

  test("a certificate that is none changes nothing", async () => {
    await using client = await QuicheClient.connect(listener);
    await portOf(client);
    expect(listener.setCertificates({ cert: "none", key: "none", sni: {} })).rejects.toThrow();
    await using another = await QuicheClient.connect(listener);
    await change(client, another);
    await using last = await QuicheClient.connect(listener);
    for (const each of [client, another, last]) await portOf(each);
  });

  test("the same certificate again is no change", async () => {
    const certificate = await makeCertificates();
    await listener.setCertificates(certificate);
    await until("the end of the first engine", 10_000, () => host.ended === 1);
    const sockets = udpSocketsOf(listener.port);
    await listener.setCertificates({ ...certificate });
    expect(udpSocketsOf(listener.port)).toEqual(sockets);
  });
});
