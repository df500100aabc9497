/** RFC 6265bis, the server's half: what `response.cookie` sends (§4.1), and what it refuses to send. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { ClientResponse } from "../support/client.ts";
import { ALL_CLIENTS } from "../support/clients.ts";
import { startFixture } from "../support/server.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

const shared = sharedServer(() => startFixture("responses.ts"));

/** One element a line; a client that joins them is undone. No cookie of these tests has a comma but in a date. */
function setCookies(response: ClientResponse): string[] {
  return [response.headers["set-cookie"] ?? []].flat().flatMap((line) => line.split(/, (?=[\w-]+=)/));
}

for (const kind of ALL_CLIENTS) {
  describe(kind.name, () => {
    test("§4.1.1: one set-cookie line a cookie, with what no value may hold percent-encoded", async () => {
      await using client = await kind.open(shared.server);
      const cookies = setCookies(await client.request({ path: "/cookies" }));
      expect(cookies).toHaveLength(4);
      expect(cookies[0]).toBe("plain=a%20b%3Bc; Path=/");
    });

    test("§4.1.2: attributes", async () => {
      await using client = await kind.open(shared.server);
      const cookies = setCookies(await client.request({ path: "/cookies" }));
      const attributes = (at: number) => (cookies[at] ?? "").split("; ").sort();
      expect(attributes(1)).toEqual(
        ["__Host-id=1", "HttpOnly", "Max-Age=60", "Path=/", "SameSite=Strict", "Secure"].sort(),
      );
      expect(attributes(2)).toEqual(
        ["part=1", "Domain=example.org", "Partitioned", "Path=/p", "SameSite=None", "Secure"].sort(),
      );
      expect(attributes(3)).toEqual(
        ["old=", "Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Max-Age=0", "Path=/p"].sort(),
      );
    });
  });
}

test("§4.1.3, §5.7: what a browser would drop is an error at the call, and nothing is sent", async () => {
  const [kind] = ALL_CLIENTS;
  if (kind === undefined) throw new Error("there is no client");
  await using client = await kind.open(shared.server);
  const response = await client.request({ path: "/bad-cookies" });
  const { errors, sent } = await response.body.json<{ errors: string[]; sent: string[] }>();
  expect(sent).toEqual([]);
  expect(errors).toEqual([
    'TypeError: cookie: "__Secure-a" needs secure: true, as its prefix says (RFC 6265bis)',
    'TypeError: cookie: "__Host-a" needs secure: true, path "/" and no domain, as its prefix says (RFC 6265bis)',
    'TypeError: cookie: "__host-a" needs secure: true, path "/" and no domain, as its prefix says (RFC 6265bis)',
    'TypeError: cookie: "a" needs secure: true for sameSite "none" (RFC 6265bis)',
    'TypeError: cookie: "a" needs secure: true to be partitioned (RFC 6265bis)',
    expect.stringMatching(/^TypeError: cookie: "a b" is no cookie: /),
    expect.stringMatching(/^TypeError: cookie: "a" is no cookie: .*path/),
    `TypeError: cookie: "a" has the path 'admin', which does not begin with "/" (RFC 6265bis)`,
    expect.stringMatching(/^TypeError: cookie: "a" is no cookie: .*domain/),
    expect.stringMatching(/^TypeError: cookie: "a" is no cookie: .*maxAge/),
    expect.stringMatching(/^TypeError: cookie: "a" is no cookie: .*expires/),
    'TypeError: cookie: "a" has 5001 bytes, over 4096 (RFC 6265bis)',
  ]);
});
