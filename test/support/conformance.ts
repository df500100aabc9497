/**
 * A suite of rules, each held against every engine that it concerns, and the table of what came of it in
 * docs/conformance.md. What an engine does not meet is said with its reason, and is a failure of the test when that changes,
 * either way. The table is written by `npm run conformance`; otherwise the run must find it as it would write it.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { RawHttp2 } from "./raw-http2.ts";
import { RawHttp3 } from "./raw-http3.ts";
import { ROOT, startFixture } from "./server.ts";
import { type SharedServer, sharedServer } from "./shared-server.ts";

const DOCUMENT = join(ROOT, "docs/conformance.md");
const WRITES = process.env.TERCET_WRITE_CONFORMANCE === "1";
const TARGETS = ["quic", "native", "HTTP/2"] as const;

export type Target = (typeof TARGETS)[number];

/** What a target does instead, and why. */
export interface Deviation {
  readonly outcome: string;
  readonly why: string;
}

export interface Rule {
  /** The section and the rule in a few words. */
  readonly name: string;
  /** What meets it, any of them. */
  readonly met: readonly string[];
  /** Provokes it on a connection of HTTP/3. @returns what has come of it */
  readonly http3: (peer: RawHttp3, target: "quic" | "native") => Promise<string>;
  /** The same on HTTP/2, where it has the rule, and what meets it there. */
  readonly http2?: { readonly met: readonly string[]; readonly provoke: (peer: RawHttp2) => Promise<string> };
  /** Those that do not meet it. */
  readonly but?: Readonly<Partial<Record<Target, Deviation>>> | undefined;
  /** The connection has no control stream yet: the rule is about it. */
  readonly bare?: boolean;
  /** Bytes that the server may have under way on the connection. */
  readonly window?: number;
}

/** Sends bytes on a stream. @returns what has come of it */
export function sent(id: number, bytes: Uint8Array, ends = false): Rule["http3"] {
  return (peer) => {
    peer.send(id, bytes, ends);
    return peer.outcome();
  };
}

/**
 * @param title as the heading of its table, such as "RFC 9114, HTTP/3"
 * @param options of every server
 * @param quic of the engine quic
 */
export function conformance(
  title: string,
  rules: readonly Rule[],
  options: object = {},
  quic: object = { engine: "quic" },
): void {
  const start = (http3: object | string) => () =>
    startFixture("conformance.ts", { options: { ...options, http3 } });
  const servers: Readonly<Record<"quic" | "native", SharedServer>> = {
    quic: sharedServer(start(quic)),
    native: sharedServer(start("native")),
  };
  const cells = new Map<string, string>();

  const hold = (rule: Rule, target: Target, met: readonly string[], provoke: () => Promise<string>) => {
    test(`${rule.name} (${target})`, async () => {
      const outcome = await provoke();
      const deviation = rule.but?.[target];
      if (deviation === undefined) expect(met).toContain(outcome);
      else expect(outcome).toBe(deviation.outcome);
      const by =
        outcome.startsWith("closed") && met[0]?.startsWith("closed") === false
          ? ", by closing the connection"
          : "";
      cells.set(
        `${rule.name} ${target}`,
        deviation === undefined ? `met${by}` : `**no**: ${deviation.outcome}; ${deviation.why}`,
      );
    });
  };

  describe(title, () => {
    for (const rule of rules) {
      for (const target of ["quic", "native"] as const) {
        hold(rule, target, rule.met, async () => {
          const { port } = servers[target].server;
          await using peer = await (rule.bare ? RawHttp3.connect(port) : RawHttp3.open(port, rule.window));
          return await rule.http3(peer, target);
        });
      }
      const { http2 } = rule;
      if (http2 === undefined) continue;
      hold(rule, "HTTP/2", http2.met, async () => {
        using peer = await RawHttp2.open(servers.native.server.port);
        return await http2.provoke(peer);
      });
    }

    test("docs/conformance.md says what was measured", () => {
      const rows = rules.map((rule) => {
        const cellOf = (target: Target) =>
          cells.get(`${rule.name} ${target}`) ?? (target === "HTTP/2" && !rule.http2 ? "–" : "failed");
        return `| ${rule.name} | ${TARGETS.map(cellOf).join(" | ")} |`;
      });
      const table = ["| rule | quic | native | HTTP/2 |", "|---|---|---|---|", ...rows].join("\n");
      const before = existsSync(DOCUMENT) ? readFileSync(DOCUMENT, "utf8") : "";
      const after = withTable(before, title, table);
      if (WRITES) writeFileSync(DOCUMENT, after);
      else expect(before).toBe(after);
    });
  });
}

/** The document with the table under its heading, in place of the one that stood there. */
function withTable(document: string, title: string, table: string): string {
  const heading = `## ${title}\n`;
  const at = document.indexOf(heading);
  if (at === -1) return `${document.trimEnd()}\n\n${heading}\n${table}\n`;
  const next = document.indexOf("\n## ", at + heading.length);
  const rest = next === -1 ? "" : document.slice(next);
  return `${document.slice(0, at)}${heading}\n${table}\n${rest}`;
}
