/** The certificate is replaced while the server runs: what new connections get, and that the open ones notice nothing. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { CERTIFICATE, makeCertificate, OTHER_CERTIFICATE, type Pem } from "./support/certificate.ts";
import type { Client, ClientRequest } from "./support/client.ts";
import { HTTP1, HTTP2, QUICHE, QUINN } from "./support/clients.ts";
import { Http2Client } from "./support/http2-client.ts";
import { QuicheClient } from "./support/http3-quiche-client.ts";
import { inTime, until } from "./support/poll.ts";
import { Scratch, startFixture, type TestServer } from "./support/server.ts";
import { sharedServer } from "./support/shared-server.ts";
import {
  fingerprintOf,
  reloadCertificates,
  replaceCertificate,
  shownByQuic,
  shownByTcp,
} from "./support/shown-certificate.ts";
import { untilInFlight } from "./support/stats.ts";
import { startVersions } from "./support/versions.ts";

// Milliseconds: longer than any deadline in a test and the stop of its server, so that every failure is cleaned up.
setDefaultTimeout(60_000);

const EXPIRED = { from: new Date("2020-01-01"), to: new Date("2020-02-01") };

/** Milliseconds: a lost connection would take a client longer to notice. */
const ANSWERED_WITHIN = 8_000;

async function textOf(client: Client, request: ClientRequest): Promise<string> {
  const answer = client.request(request).then(async ({ status, body }) => `${status} ${await body.text()}`);
  return inTime(`${client.name}: an answer`, ANSWERED_WITHIN, answer);
}

/** Requests one after the other on each client, until it is stopped. */
class Load {
  readonly wrong: string[] = [];
  readonly #answered = new Map<Client, number>();
  readonly #running: Promise<void>[];
  #isOver = false;

  constructor(clients: readonly Client[]) {
    this.#running = clients.map((client) => this.#run(client));
  }

  /** Waits until each client has got so many answers more, or something is wrong. */
  async answers(count: number): Promise<void> {
    const before = new Map(this.#answered);
    await until(`${count} answers to each client`, 30_000, () => {
      const isAnswered = ([client, answered]: [Client, number]) =>
        answered >= (before.get(client) ?? 0) + count;
      return this.wrong.length > 0 || [...this.#answered].every(isAnswered);
    });
    expect(this.wrong).toEqual([]);
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
  }

  async #run(client: Client): Promise<void> {
    for (let answered = 0; !this.#isOver; answered++) {
      this.#answered.set(client, answered);
      const text = await textOf(client, { path: "/hello" }).catch(String);
      if (!/^200 Hello from HTTP/.test(text)) this.wrong.push(`${client.name}: ${text}`);
    }
  }
}

/** Both protocols of the network show the certificate to new connections. */
async function expectShown(server: TestServer, certificate: Pem): Promise<void> {
  const shown = await Promise.all([shownByTcp(server.port), shownByQuic(server.port)]);
  expect(shown).toEqual([fingerprintOf(certificate), fingerprintOf(certificate)]);
}

describe("a certificate is replaced", () => {
  const shared = sharedServer(() => startFixture("certificate.ts", { options: { workers: 1 } }));

  test("twice under load: new connections get it, no request fails, and no connection closes", async () => {
    const { server } = shared;
    await expectShown(server, await CERTIFICATE);
    await using http2 = await Http2Client.connect(server);
    const quiche = await Promise.all(Array.from({ length: 2 }, () => QuicheClient.connect(server)));
    const silent = await Promise.all(Array.from({ length: 2 }, () => QuicheClient.connect(server)));
    const busy = [http2, ...quiche, await HTTP1.open(server), await QUINN.open(server)];
    const load = new Load(busy);
    const later: Load[] = [];
    try {
      await load.answers(10);
      for (let change = 0; change < 2; change++) {
        const certificate = await makeCertificate();
        expect(await replaceCertificate(server, certificate)).toBe("in force");
        await expectShown(server, certificate);
        // Opened before, and not used until now.
        expect(await textOf(silent[change] as Client, { path: "/hello" })).toBe("200 Hello from HTTP/3!");
        later.push(new Load([await QUICHE.open(server), await QUINN.open(server)]));
        for (const each of [load, ...later]) await each.answers(10);
      }
      expect([...quiche, ...silent].map(({ closedBecause }) => closedBecause)).toEqual(Array(4).fill(null));
      expect(http2.isLost).toBe(false);
    } finally {
      for (const each of [load, ...later]) await each.stop();
      for (const client of [...busy, ...silent]) await client.close();
    }
  });

  test("one that is wrong is refused with a reason, and the one before stays", async () => {
    const { server } = shared;
    const good = await makeCertificate();
    expect(await replaceCertificate(server, good)).toBe("in force");
    const mismatched = { cert: good.cert, key: (await OTHER_CERTIFICATE).key };
    const { cert, key } = server.scratch;
    expect(await replaceCertificate(server, mismatched)).toBe(
      `ReloadError: the key ${key} is not the key of the certificate ${cert}`,
    );
    expect(await replaceCertificate(server, { cert: "no PEM", key: good.key })).toStartWith(
      `ReloadError: the certificate ${cert} is not valid PEM: `,
    );
    await expectShown(server, good);
  });

  test("one that is not valid yet is taken, and the log says so at each reload", async () => {
    const { server } = shared;
    const early = await makeCertificate({ from: new Date("2200-01-02"), to: new Date("2200-02-01") });
    const line = `the certificate ${server.scratch.cert}, not valid before 2200-01-02, is refused by clients`;
    const told = (times: number) =>
      until(`${times} lines`, 1_000, () => server.stderr.split(line).length === times + 1);
    expect(await replaceCertificate(server, early)).toBe("in force");
    await told(1);
    await expectShown(server, early);
    expect(await reloadCertificates(server)).toBe("in force");
    await told(2);
  });
});

test("the engine quic: certificates by name, over TCP too, are read from their files again, and told of once when expired", async () => {
  const scratch = await Scratch.make();
  const [cert, key] = [scratch.file("named-cert.pem"), scratch.file("named-key.pem")];
  const put = (certificate: Pem) => {
    writeFileSync(cert, certificate.cert);
    writeFileSync(key, certificate.key);
  };
  const [own, first, second] = [await CERTIFICATE, await makeCertificate(EXPIRED), await makeCertificate()];
  put(first);
  const sni = { "Other.example": { cert, key }, "*.wild.example": { cert, key } };
  await using server = await startFixture("certificate.ts", {
    scratch,
    options: { workers: 1, http3: { engine: "quic", sni } },
  });
  const names = ["other.example", "OTHER.example", "a.wild.example", "a.b.wild.example", "localhost"];
  const shown = async (by: typeof shownByTcp) => {
    const fingerprints = [];
    for (const name of names) fingerprints.push(await by(server.port, name));
    return fingerprints;
  };
  const expected = (other: Pem, elsewhere: Pem) =>
    [other, other, other, elsewhere, elsewhere].map(fingerprintOf);

  expect(await shown(shownByTcp)).toEqual(expected(first, own));
  expect(await shown(shownByQuic)).toEqual(expected(first, own));
  const expired = `the certificate ${cert}, expired on 2020-02-01, is refused by clients`;
  expect(server.stderr.split(expired).length).toBe(2);
  await using open = await QuicheClient.connect(server);
  put(second);
  expect(await reloadCertificates(server)).toBe("in force");
  expect(await shown(shownByTcp)).toEqual(expected(second, own));
  expect(await shown(shownByQuic)).toEqual(expected(second, own));
  const third = await makeCertificate();
  expect(await replaceCertificate(server, third)).toBe("in force");
  expect(await shown(shownByTcp)).toEqual(expected(second, third));
  expect(await shown(shownByQuic)).toEqual(expected(second, third));
  expect(await textOf(open, { path: "/hello" })).toBe("200 Hello from HTTP/3!");
  expect(open.closedBecause).toBeNull();
  writeFileSync(key, own.key);
  expect(await reloadCertificates(server)).toBe(
    `ReloadError: the key ${key} is not the key of the certificate ${cert}`,
  );
  expect(await shown(shownByQuic)).toEqual(expected(second, third));
});

describe("where listeners cannot take another certificate on HTTP/3", () => {
  test("several reactors: TCP gets it, HTTP/3 keeps the one before, and the log says so", async () => {
    await using server = await startFixture("certificate.ts", {
      options: { workers: 1, reactors: 2, http3: "native" },
    });
    const certificate = await makeCertificate();
    expect(await replaceCertificate(server, certificate)).toBe("in force");
    expect(await shownByTcp(server.port)).toBe(fingerprintOf(certificate));
    expect(await shownByQuic(server.port)).toBe(fingerprintOf(await CERTIFICATE));
    for (const id of [1, 2]) {
      await server.logs(
        new RegExp(`reactor ${id} keeps the certificate before: HTTP/3: .* takes a restart of the server`),
      );
    }
  });
});

test("one whose reload has failed for the code comes with the next that does not", async () => {
  await using versions = await startVersions({ workers: 1 });
  const { server } = versions;
  await using client = await HTTP1.open(server);
  const { cert, key } = await OTHER_CERTIFICATE;
  writeFileSync(server.scratch.cert, cert);
  writeFileSync(server.scratch.key, key);
  versions.load("broken");
  expect(await textOf(client, { path: "/reload" })).toMatch(/^500 ReloadError: /);
  expect(await shownByTcp(server.port)).toBe(fingerprintOf(await CERTIFICATE));
  versions.load("2");
  expect(await textOf(client, { path: "/reload" })).toBe("200 reloaded");
  expect(await shownByTcp(server.port)).toBe(fingerprintOf(await OTHER_CERTIFICATE));
});

test("in the mode base new workers begin with it", async () => {
  const options = { workers: 1, mode: "base", http3: "native" } as const;
  await using server = await startFixture("certificate.ts", { options });
  const certificate = await makeCertificate();
  expect(await replaceCertificate(server, certificate)).toBe("in force");
  await until("the new certificate on both", 10_000, async () => {
    const shown = await Promise.all([shownByTcp(server.port), shownByQuic(server.port).catch(String)]);
    return shown.every((each) => each === fingerprintOf(certificate));
  });
});

test("a shutdown after it finishes what is in flight on old and new connections", async () => {
  await using server = await startFixture("certificate.ts");
  await using observer = await HTTP2.open(server);
  await using old = await QUICHE.open(server);
  await textOf(old, { path: "/hello" });
  expect(await replaceCertificate(server, await makeCertificate())).toBe("in force");
  const clients = await Promise.all(Array.from({ length: 4 }, () => QUICHE.open(server)));
  try {
    const uploads = clients.map((client) => textOf(client, { path: "/echo", body: slowly() }));
    const wait = textOf(old, { path: "/wait?ms=500" });
    await untilInFlight(observer, clients.length + 1);
    server.kill("SIGTERM");
    expect(await wait).toBe("200 waited as GET");
    // With its connection the engine of the old certificate goes.
    await old.close();
    expect(await Promise.all(uploads)).toEqual(clients.map(() => `200 ${"piece ".repeat(PIECES)}`));
    expect(await server.ended()).toBe(0);
    await server.leavesNothing();
  } finally {
    for (const client of clients) await client.close();
  }
});

const PIECES = 15;

/** A body of a second and a half. */
async function* slowly(): AsyncGenerator<Uint8Array, void> {
  for (let piece = 0; piece < PIECES; piece++) {
    yield Buffer.from("piece ");
    await Bun.sleep(100);
  }
}
