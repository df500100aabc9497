/** What trusted proxies are believed: RFC 7239, and X-Forwarded-*. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { nameOf, type RequestHead } from "../../src/exchange.ts";
import { isProxyEntry, TrustedProxies } from "../../src/http/proxy.ts";

const proxies = new TrustedProxies(["127.0.0.1", "10.0.0.0/8", "fd00::/8"]);

function headWith(fields: Record<string, string | string[]>, remoteAddress = "127.0.0.1"): RequestHead {
  return {
    protocol: "HTTP/3",
    method: "GET",
    scheme: "https",
    authority: "inner:9501",
    path: "/",
    fields: Object.entries(fields).flatMap(([name, value]) => [value].flat().flatMap((one) => [name, one])),
    receivedAt: 0,
    remoteAddress,
    remotePort: 4711,
    localPort: 9501,
    session: "",
    stream: 8,
    sendsInterim: true,
    sendsTrailers: false,
  };
}

type Client = Partial<Record<"remoteAddress" | "remotePort" | "scheme" | "authority", string | number>>;

const cases: [rule: string, fields: Record<string, string | string[]>, expected: Client][] = [
  [
    "the nearest that is not trusted is the client",
    { "x-forwarded-for": "1.1.1.1, 2.2.2.2, 10.9.9.9" },
    { remoteAddress: "2.2.2.2", remotePort: 0 },
  ],
  [
    "where all are trusted, the farthest",
    { "x-forwarded-for": "10.0.0.1, fd00::2" },
    { remoteAddress: "10.0.0.1" },
  ],
  [
    "several lines are one list",
    { "x-forwarded-for": ["1.1.1.1", "2.2.2.2,10.1.1.1"] },
    { remoteAddress: "2.2.2.2" },
  ],
  [
    "a port is told",
    { "x-forwarded-for": "2.2.2.2:65535" },
    { remoteAddress: "2.2.2.2", remotePort: 65_535 },
  ],
  [
    "what is no port makes no address",
    { "x-forwarded-for": "2.2.2.2:65536, 10.0.0.1" },
    { remoteAddress: "10.0.0.1" },
  ],
  [
    "IPv6, with and without brackets",
    { "x-forwarded-for": "2001:db8::1, [fd00::1]:5" },
    { remoteAddress: "2001:db8::1" },
  ],
  [
    "an IPv4 address that is mapped to IPv6 is the IPv4 one",
    { "x-forwarded-for": "2.2.2.2, ::ffff:10.0.0.1" },
    { remoteAddress: "2.2.2.2" },
  ],
  ["and so is a client's", { "x-forwarded-for": "::ffff:2.2.2.2" }, { remoteAddress: "2.2.2.2" }],
  [
    "with its port as well",
    { "x-forwarded-for": "[::FFFF:2.2.2.2]:5" },
    { remoteAddress: "2.2.2.2", remotePort: 5 },
  ],
  [
    "behind what is no address nothing is believed",
    { "x-forwarded-for": "1.1.1.1, unknown, 10.0.0.1" },
    { remoteAddress: "10.0.0.1" },
  ],
  [
    "garbage is ignored",
    { "x-forwarded-for": "1.1.1.1, <script>", "x-forwarded-proto": "gopher", "x-forwarded-host": "a b" },
    {},
  ],
  [
    "scheme and host of the client's own hop",
    {
      "x-forwarded-for": "1.1.1.1, 2.2.2.2",
      "x-forwarded-proto": "https, http",
      "x-forwarded-host": "a, b.org:81",
    },
    { remoteAddress: "2.2.2.2", remotePort: 0, scheme: "http", authority: "b.org:81" },
  ],
  [
    "lists of another length: the nearest proxy's word",
    { "x-forwarded-for": "1.1.1.1, 2.2.2.2", "x-forwarded-proto": "http" },
    { remoteAddress: "2.2.2.2", scheme: "http" },
  ],
  [
    "scheme and host alone",
    { "x-forwarded-proto": "HTTP", "x-forwarded-host": "[2001:db8::1]:8443" },
    { remoteAddress: "127.0.0.1", remotePort: 4711, scheme: "http", authority: "[2001:db8::1]:8443" },
  ],
  ["scheme alone", { "x-forwarded-proto": "http" }, { scheme: "http" }],
  ["host alone", { "x-forwarded-host": "b.org" }, { authority: "b.org" }],
  [
    "Forwarded, with all its parameters (RFC 7239 §4)",
    { forwarded: 'for=1.1.1.1, For="[2001:db8::1]:4712";Proto=http;by=_x;host="b\\.org", for=10.0.0.1' },
    { remoteAddress: "2001:db8::1", remotePort: 4712, scheme: "http", authority: "b.org" },
  ],
  [
    "a name of the proxy's own (RFC 7239 §6.3) ends the walk",
    { forwarded: "for=1.1.1.1, for=_hidden, for=10.0.0.1" },
    { remoteAddress: "10.0.0.1" },
  ],
  [
    "what an element of Forwarded does not say, no other says for it",
    { forwarded: "for=1.1.1.1;proto=http;host=evil.org, for=2.2.2.2" },
    { remoteAddress: "2.2.2.2" },
  ],
  [
    "no other field is taken for Forwarded",
    { forwarded: "for=2.2.2.2", cookie: "for=6.6.6.6" },
    { remoteAddress: "2.2.2.2" },
  ],
  [
    "scheme and host alone in Forwarded are the nearest proxy's word",
    { forwarded: "proto=https;host=evil.org, proto=http;host=b.org" },
    { scheme: "http", authority: "b.org" },
  ],
  ["of a Forwarded that is malformed anywhere nothing is believed", { forwarded: "for=2.2.2.2, =x" }, {}],
  ["a malformed Forwarded is ignored", { forwarded: 'for=1.1.1.1;, for="2.2.2.2' }, {}],
  [
    "X-Forwarded-For goes before Forwarded, which most proxies let through",
    { forwarded: "for=6.6.6.6;host=evil.org", "x-forwarded-for": "2.2.2.2" },
    { remoteAddress: "2.2.2.2", authority: "inner:9501" },
  ],
  ["no field, no change", {}, {}],
];

describe("trusted proxies", () => {
  for (const [rule, fields, expected] of cases) {
    test(rule, () => {
      const { remoteAddress, remotePort, scheme, authority } = proxies.clientOf(headWith(fields));
      const unchanged = {
        remoteAddress: "127.0.0.1",
        remotePort: 4711,
        scheme: "https",
        authority: "inner:9501",
      };
      const port = expected.remoteAddress === undefined ? {} : { remotePort: 0 };
      expect({ remoteAddress, remotePort, scheme, authority } as Client).toEqual({
        ...unchanged,
        ...port,
        ...expected,
      });
    });
  }

  test("a peer that is not trusted is not believed, and neither is one whose address is not known", () => {
    for (const peer of ["8.8.8.8", ""]) {
      const head = headWith({ "x-forwarded-for": "1.1.1.1", forwarded: "for=1.1.1.1" }, peer);
      expect(proxies.clientOf(head)).toBe(head);
    }
  });

  test("a trusted peer is known by its IPv4 address that is mapped to IPv6", () => {
    const head = headWith({ "x-forwarded-for": "1.1.1.1" }, "::ffff:10.0.0.1");
    expect(proxies.clientOf(head).remoteAddress).toBe("1.1.1.1");
  });

  test("the exchange keeps its name, and everything else", () => {
    const head = headWith({ "x-forwarded-for": "1.1.1.1" });
    const client = proxies.clientOf(head);
    expect(nameOf(client)).toBe(nameOf(head));
    expect(client).toEqual({ ...head, remoteAddress: "1.1.1.1", remotePort: 0, session: "127.0.0.1:4711" });
  });

  test("whatever a field says, the address is one, and never one that only a stranger wrote", () => {
    const text = fc.stringMatching(/^[ -~]{0,60}$/);
    fc.assert(
      fc.property(text, text, (forwardedFor, forwarded) => {
        const fields = { "x-forwarded-for": `${forwardedFor}, 9.9.9.9`, forwarded };
        expect(proxies.clientOf(headWith(fields)).remoteAddress).toBe("9.9.9.9");
        const { remoteAddress, scheme } = proxies.clientOf(headWith({ forwarded }));
        expect(remoteAddress).toMatch(/^[0-9a-f.:]+$/i);
        expect(["http", "https"]).toContain(scheme);
      }),
    );
  });

  test("entries are addresses and networks", () => {
    const right = ["127.0.0.1", "::1", "10.0.0.0/8", "0.0.0.0/0", "fd00::/8", "::/0", "2001:db8::1/128"];
    const wrong = [
      "",
      "localhost",
      "10.0.0.0/33",
      "::/129",
      "10.0.0.0/",
      "10.0.0.0/8/8",
      "/8",
      "10.0.0/8",
      "fe80::1%eth0",
      "10.0.0.0/-1",
    ];
    expect(right.filter((entry) => !isProxyEntry(entry))).toEqual([]);
    expect(wrong.filter(isProxyEntry)).toEqual([]);
  });
});
