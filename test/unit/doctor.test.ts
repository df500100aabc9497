/** What the doctor finds: on machines that are described by their files in /proc, and of certificates made for it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generate } from "selfsigned";
import { certificateFindings } from "../../src/doctor/certificate.ts";
import type { Finding } from "../../src/doctor/finding.ts";
import { type Machine, machineFindings, THIS_MACHINE } from "../../src/doctor/machine.ts";
import { portFindings, runDirectoryFinding, userFinding } from "../../src/doctor/place.ts";

/** A machine on which all is well. */
const HEALTHY: Readonly<Record<string, string>> = {
  "/proc/sys/kernel/osrelease": "6.12.0\n",
  "/proc/meminfo": "MemTotal:  8000000 kB\nMemAvailable:    4000000 kB\n",
  "/proc/self/limits": "Max open files            1024                 524288               files     \n",
  "/proc/sys/net/core/rmem_default": "4194304\n",
  "/proc/sys/net/core/rmem_max": "8388608\n",
  "/proc/sys/net/core/wmem_max": "4194304\n",
  "/proc/net/snmp": "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 100000 1 2 100000 3\n",
  "/proc/sys/net/core/somaxconn": "4096\n",
  "/proc/net/softnet_stat": "00001000 00000000 00000000\n00001000 00000000 00000000\n",
  "/proc/sys/net/core/netdev_max_backlog": "1000\n",
  "/proc/net/if_inet6": "00000000000000000000000000000001 01 80 10 80 lo\n",
};

function machine(files: Readonly<Record<string, string | null>> = {}, facts: Partial<Machine> = {}): Machine {
  const all = { ...HEALTHY, ...files };
  return { runtime: THIS_MACHINE.runtime, cores: 4, read: (path) => all[path] ?? null, ...facts };
}

const notOk = (findings: readonly Finding[]) => findings.filter(({ level }) => level !== "ok");

describe("a machine", () => {
  test("on which all is well", () => {
    expect(notOk(machineFindings(machine(), true))).toEqual([]);
  });

  const LACKS: [what: string, ill: Machine, level: string, subject: string, text: RegExp, advice: RegExp][] =
    [
      [
        "an old runtime",
        machine({}, { runtime: "1.2.0" }),
        "warning",
        "runtime",
        /1\.2\.0.*\^1/,
        /npm install bun/,
      ],
      [
        "another runtime",
        machine({}, { runtime: null }),
        "warning",
        "runtime",
        /Node\.js v.*no HTTP\/3/,
        /npx tercet/,
      ],
      [
        "little memory",
        machine({ "/sys/fs/cgroup/memory.max": "400000000\n" }),
        "warning",
        "cores, memory",
        /381 MiB of memory.*576 MiB/,
        /--workers 1$/,
      ],
      [
        "few open files",
        machine({ "/proc/self/limits": "Max open files            256         4096       files\n" }),
        "warning",
        "open files",
        /^4096/,
        /LimitNOFILE/,
      ],
      [
        "hardly any open files",
        machine({ "/proc/self/limits": "Max open files            256         512       files\n" }),
        "problem",
        "open files",
        /^512/,
        /ulimit -n/,
      ],
      [
        "Linux's own UDP buffers",
        machine({ "/proc/sys/net/core/rmem_default": "212992\n", "/proc/sys/net/core/rmem_max": "212992\n" }),
        "warning",
        "UDP receiving",
        /208 KiB.*4 MiB$/,
        /^sudo sysctl -w net\.core\.rmem_default=4194304 net\.core\.rmem_max=4194304$/,
      ],
      [
        "small UDP buffers for sending",
        machine({ "/proc/sys/net/core/wmem_max": "212992\n" }),
        "warning",
        "UDP sending",
        /208 KiB/,
        /wmem_max=4194304/,
      ],
      [
        "a short backlog",
        machine({ "/proc/sys/net/core/somaxconn": "128\n" }),
        "warning",
        "backlog",
        /^128 /,
        /somaxconn=4096/,
      ],
      [
        "a packet queue that was full",
        machine({ "/proc/net/softnet_stat": "00001000 00000010 00000000\n00001000 00000001 00000000\n" }),
        "warning",
        "packet queue",
        /^17 packets/,
        /netdev_max_backlog=4000/,
      ],
      [
        "a firewall with too many connections",
        machine({
          "/proc/sys/net/netfilter/nf_conntrack_max": "1000\n",
          "/proc/sys/net/netfilter/nf_conntrack_count": "900\n",
        }),
        "warning",
        "firewall",
        /900 connections of at most 1000/,
        /nf_conntrack_max=4000/,
      ],
      ["no IPv6", machine({ "/proc/net/if_inet6": "" }), "warning", "IPv6", /IPv4 alone/, /disable_ipv6=0/],
    ];

  for (const [what, ill, level, subject, text, advice] of LACKS) {
    test(`with ${what}`, () => {
      const found = notOk(machineFindings(ill, true));
      expect(found).toEqual([
        {
          level,
          subject,
          text: expect.stringMatching(text),
          advice: expect.stringMatching(advice),
        } as Finding,
      ]);
    });
  }

  test("tells of datagrams that were lost, where they were many", () => {
    const snmp = "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 100000 1 2 100000 5000\n";
    const texts = machineFindings(machine({ "/proc/net/snmp": snmp }), true).map(({ text }) => text);
    expect(texts.filter((text) => text.includes("5000 datagrams"))).toHaveLength(1);
  });

  test("without HTTP/3 nothing is said of UDP", () => {
    const files = { "/proc/sys/net/core/rmem_default": "212992\n" };
    expect(machineFindings(machine(files), false).filter(({ subject }) => subject.startsWith("UDP"))).toEqual(
      [],
    );
  });

  test("of another system, without /proc, is not judged by what is not known", () => {
    expect(notOk(machineFindings(machine({}, { read: () => null }), true))).toEqual([]);
  });

  test("whose kernel has no IPv6 is not said to have addresses of it", () => {
    const found = machineFindings(machine({ "/proc/net/if_inet6": null }), true);
    expect(found.filter(({ subject }) => subject === "IPv6")).toEqual([]);
  });

  test("that has not the host is told so, as the server would say it", async () => {
    const found = await portFindings("a..b", 9501, true, null);
    expect(found.map(({ level, text }) => [level, text])).toEqual([
      ["problem", "a..b is no address of this machine"],
      ["problem", "a..b is no address of this machine"],
    ]);
  });

  test("this one is described whole", () => {
    const subjects = machineFindings(THIS_MACHINE, true).map(({ subject }) => subject);
    expect(subjects).toEqual(
      expect.arrayContaining(["runtime", "cores, memory", "open files", "UDP receiving", "UDP sending"]),
    );
  });

  test("root is told to say another user", () => {
    expect(userFinding(0, 443)).toMatchObject({
      level: "warning",
      advice: expect.stringContaining("--user"),
    });
    // The system picks none that only root may have.
    expect(userFinding(0, 0).text).toBe("root: handlers would be root, too");
    expect(userFinding(1000, 8443).level).toBe("ok");
  });
});

describe("a run directory", () => {
  const folder = mkdtempSync(join(tmpdir(), "tercet-doctor-"));
  const missing = join(folder, "missing");
  const shared = join(folder, "shared");
  beforeAll(() => mkdirSync(shared, { mode: 0o755 }));
  afterAll(() => rmSync(folder, { recursive: true }));

  const cases: readonly [what: string, path: string | null, level: Finding["level"], text: string][] = [
    ["that is there", folder, "ok", `${folder} can be used`],
    ["that is not there", missing, "ok", `${missing} can be made`],
    ["of port 0", null, "ok", `one with a random name in ${tmpdir()} can be made`],
    ["that others may enter", shared, "problem", `${shared} has the mode 0755`],
    [
      "whose folder is not there",
      join(missing, "run"),
      "problem",
      `it cannot be made in ${missing} (ENOENT)`,
    ],
  ];
  for (const [what, path, level, text] of cases) {
    test(what, () => {
      expect(runDirectoryFinding(path, null)).toMatchObject({ level, text: expect.stringContaining(text) });
    });
  }
});

describe("a certificate", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "tercet-test-doctor-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const DAY = 24 * 60 * 60 * 1000;
  const NOW = Date.parse("2026-06-15T12:00:00Z");

  type Made = Awaited<ReturnType<typeof generate>>;
  const signer = (made: Made) => ({ key: made.private, cert: made.cert });
  const subjectOf = (name: string) => [{ name: "commonName", value: name }];
  const authority = (name: string, ca?: Made) =>
    generate(subjectOf(name), {
      keyType: "ec",
      algorithm: "sha256",
      extensions: [{ name: "basicConstraints", cA: true }],
      ...(ca && { ca: signer(ca) }),
    });
  const made = (ca: Made | null, days: [from: number, to: number], names: readonly string[]) =>
    generate(subjectOf("a.test"), {
      keyType: "ec",
      algorithm: "sha256",
      notBeforeDate: new Date(NOW + days[0] * DAY),
      notAfterDate: new Date(NOW + days[1] * DAY),
      extensions:
        names.length === 0
          ? [{ name: "basicConstraints", cA: false }]
          : [{ name: "subjectAltName", altNames: names.map((value) => ({ type: 2 as const, value })) }],
      ...(ca && { ca: signer(ca) }),
    });

  const files = (cert: string, key: string, mode = 0o600) => {
    const paths = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem") };
    writeFileSync(paths.cert, cert);
    writeFileSync(paths.key, key);
    chmodSync(paths.key, mode);
    return paths;
  };
  /** What is not well of a file with these certificates, and of their key. */
  const found = (certificates: readonly string[], key: string, host = "::", mode = 0o600) =>
    notOk(certificateFindings(files(certificates.join("\n"), key, mode), host, NOW)).map(
      ({ level, subject, text }) => `${level} ${subject}: ${text}`,
    );

  const chain = (async () => {
    const root = await authority("Test Root");
    const middle = await authority("Test Middle", root);
    const leaf = await made(middle, [-10, 90], ["a.test", "*.b.test"]);
    return { root, middle, leaf };
  })();

  test("with all that leads to its root", async () => {
    const { root, middle, leaf } = await chain;
    expect(found([leaf.cert, middle.cert, root.cert], leaf.private, "x.b.test")).toEqual([]);
  });

  test("without what leads to its root", async () => {
    const { leaf, middle } = await chain;
    expect(found([leaf.cert], leaf.private)).toEqual([
      expect.stringMatching(/^warning certificate chain: .*\(Test Middle\) is no root/),
    ]);
    expect(found([leaf.cert, middle.cert], leaf.private)).toEqual([
      expect.stringMatching(/Test Root\) is no root/),
    ]);
  });

  test("in the wrong order, with one that does not belong, or one that is cut off", async () => {
    const { root, middle, leaf } = await chain;
    expect(found([leaf.cert, root.cert, middle.cert], leaf.private)).toEqual([
      expect.stringMatching(/^problem certificate chain: in the wrong order: certificate 2/),
    ]);
    expect(found([leaf.cert, root.cert], leaf.private)).toEqual([
      expect.stringMatching(
        /^problem certificate chain: certificate 2 of the file \(Test Root\) did not issue/,
      ),
    ]);
    const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    expect(found([leaf.cert, broken], leaf.private)).toEqual([
      expect.stringMatching(/^problem certificate chain: certificate 2 of .*cert\.pem is not valid/),
    ]);
    expect(found([leaf.cert, middle.cert.slice(0, 200)], leaf.private)).toEqual([
      expect.stringMatching(/^problem certificate: .*cert\.pem cannot be used/),
    ]);
  });

  test("out of its time, or nearly", async () => {
    const { root, middle } = await chain;
    const withTime = async (from: number, to: number) => {
      const leaf = await made(middle, [from, to], ["a.test"]);
      return found([leaf.cert, middle.cert, root.cert], leaf.private);
    };
    expect(await withTime(-90, -1)).toEqual(["problem certificate time: expired on 2026-06-14"]);
    expect(await withTime(1, 90)).toEqual(["problem certificate time: not valid before 2026-06-16"]);
    expect(await withTime(-80, 10)).toEqual(["warning certificate time: valid until 2026-06-25, 10 days"]);
  });

  test("for other names, or none", async () => {
    const { root, middle, leaf } = await chain;
    const rest = [middle.cert, root.cert];
    expect(found([leaf.cert, ...rest], leaf.private, "c.test")).toEqual([
      "warning certificate names: a.test, *.b.test: not c.test",
    ]);
    expect(found([leaf.cert, ...rest], leaf.private, "192.0.2.1")).toEqual([
      "warning certificate names: a.test, *.b.test: not 192.0.2.1",
    ]);
    const nameless = await made(middle, [-1, 90], []);
    expect(found([nameless.cert, ...rest], nameless.private)).toEqual([
      expect.stringMatching(/^problem certificate names: it has no subjectAltName/),
    ]);
  });

  test("self-signed, with a key that everybody may use, with a short one, and none", async () => {
    const own = await made(null, [-1, 90], ["a.test"]);
    expect(found([own.cert], own.private)).toEqual([
      expect.stringMatching(/^warning certificate chain: self-signed/),
    ]);
    expect(found([own.cert], own.private, "::", 0o644).at(-1)).toMatch(
      /^warning certificate key: .*mode 0644/,
    );
    const short = await generate(subjectOf("a.test"), { keySize: 1024, algorithm: "sha256" });
    expect(found([short.cert], short.private)).toContainEqual(
      expect.stringMatching(/^problem .*RSA of 1024 bits/),
    );
    expect(certificateFindings(null, "::", NOW).map(({ level }) => level)).toEqual(["warning"]);
  });

  test("that cannot be read, or is no pair", async () => {
    const { root, leaf } = await chain;
    expect(found([leaf.cert], root.private)).toEqual([
      expect.stringMatching(/^problem certificate: .*is not the key of/),
    ]);
    const paths = { cert: join(folder, "none.pem"), key: join(folder, "key.pem") };
    expect(certificateFindings(paths, "::", NOW)).toEqual([
      expect.objectContaining({ level: "problem", text: expect.stringContaining("none.pem cannot be read") }),
    ]);
  });
});
