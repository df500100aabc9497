/** RFC 6265bis, cookies, by section; each test over every protocol. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { ALL_CLIENTS } from "../support/clients.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { startFixture } from "../support/server.ts";
import { sharedServer } from "../support/shared-server.ts";

setDefaultTimeout(60_000);

const shared = sharedServer(() => startFixture("requests.ts"));

for (const kind of ALL_CLIENTS) {
  describe(`RFC 6265bis §4.2, the Cookie field, ${kind.name}`, () => {
    const cookies: [rule: string, header: string, expected: Record<string, string>][] = [
      ["pairs are separated by a semicolon and a space (§4.2.1)", "a=1; b=2", { a: "1", b: "2" }],
      ["a space more or less does not matter", "a=1;b=2 ;  c=3", { a: "1", b: "2", c: "3" }],
      ["a value may have an equals sign (§4.1.1)", "a=b=c==", { a: "b=c==" }],
      ["a value may be empty", "a=; b=1", { a: "", b: "1" }],
      ["quotes are part of a value (§4.1.1, §5.6)", 'a="b c"', { a: '"b c"' }],
      ["names differ by case (§5.7)", "a=1; A=2", { a: "1", A: "2" }],
      [
        "of two cookies of a name the one with the longer path is first (§5.8.3)",
        "a=long; a=short",
        { a: "long" },
      ],
      ["what is percent-encoded is decoded", "a=%E2%82%AC%3B%20x", { a: "€; x" }],
      [
        "what only looks percent-encoded stays (§4.2.2: the semantics are the server's)",
        "a=100%; b=%ff",
        { a: "100%", b: "%ff" },
      ],
      ["what is no pair is passed over", "a; ; =; b=1", { b: "1" }],
      [
        "names of an object's own are names like any other",
        "__proto__=1; constructor=2; toString=3",
        JSON.parse('{"__proto__":"1","constructor":"2","toString":"3"}'),
      ],
    ];
    for (const [rule, cookie, expected] of cookies) {
      test(rule, async () => {
        await using client = await kind.open(shared.server);
        const response = await client.request({ path: "/facts", headers: { cookie } });
        const answer = await response.body.json<{ cookie: Record<string, string> }>();
        delete answer.cookie[""];
        expect(JSON.stringify(answer.cookie)).toBe(JSON.stringify(expected));
      });
    }

    test("no Cookie field, no cookies", async () => {
      await using client = await kind.open(shared.server);
      const { cookie } = await (await client.request({ path: "/facts" })).body.json<{ cookie: object }>();
      expect(cookie).toEqual({});
    });
  });
}

test("cookies in several fields are all there (§4.2.2, RFC 9113 §8.2.3), HTTP/1.1", async () => {
  using raw = await RawConnection.open(shared.server.port);
  raw.send("GET /facts HTTP/1.1\r\nhost: localhost\r\ncookie: a=1\r\ncookie: b=2; c=3\r\n\r\n");
  expect(await raw.untilReceived(/"protocol"/)).toContain('"cookie":{"a":"1","b":"2","c":"3"}');
});
