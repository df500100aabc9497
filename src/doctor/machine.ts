/** What the machine has for a server: the runtime, cores, memory, and the limits that Linux sets in /proc. */
import { readFileSync } from "node:fs";
import { availableParallelism, release } from "node:os";
import { BUN_RANGE, VERSION } from "../version.ts";
import { type Finding, ok, problem, warning } from "./finding.ts";

/** Where a machine's facts come from. */
export interface Machine {
  /** The version of Bun; null on Node.js. */
  readonly runtime: string | null;
  readonly cores: number;
  /** A file's text; null where there is none, as on another system than Linux. */
  read(path: string): string | null;
}

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
/** Resident memory of a process that does nothing yet, and of a little work. */
const PROCESS_BYTES = 96 * MIB;
/** Beside a worker for each core: the manager and a reactor. */
const OTHER_PROCESSES = 2;
/** A reactor has a descriptor for each connection and each file that it sends. */
const FEW_FILES = 1024;
const ENOUGH_FILES = 16_384;
/**
 * The UDP socket holds what arrives while its reactor is busy. 20 clients that upload over HTTP/3 lost 6 % of their
 * datagrams with Linux's own 208 KiB, and 0.2 % with this (docs/guide/deployment.md).
 */
const UDP_BUFFER_BYTES = 4 * MIB;
/** Of all datagrams, lost for want of room: more than this shows in the speed of uploads. */
const LOST_SHARE = 0.001;
/** What is asked of listen(2). */
const BACKLOG = 511;
/** Of the table of connections that the firewall keeps. */
const CONNTRACK_SHARE = 0.8;

export const THIS_MACHINE: Machine = {
  runtime: process.versions.bun ?? null,
  cores: availableParallelism(),
  read: (path) => {
    try {
      return readFileSync(path, "latin1");
    } catch {
      // Not this system's, or not this user's: what it would tell is not known.
      return null;
    }
  },
};

/** @param withHttp3 whether UDP matters */
export function machineFindings(machine: Machine, withHttp3: boolean): Finding[] {
  return [
    runtime(machine),
    processes(machine),
    openFiles(machine),
    ...(withHttp3 ? udpBuffers(machine) : []),
    ...backlog(machine),
    ...softnet(machine),
    ...conntrack(machine),
    ...ipv6(machine),
  ];
}

function runtime({ runtime, read }: Machine): Finding {
  const kernel = read("/proc/sys/kernel/osrelease")?.trim() ?? release();
  const name = runtime === null ? `Node.js ${process.version}` : `Bun ${runtime}`;
  const text = `Tercet ${VERSION}, ${name}, ${process.platform} ${kernel}`;
  if (runtime === null)
    return warning("runtime", `${text}: it has no HTTP/3`, "npx tercet, which is run by Bun");
  if (Bun.semver.satisfies(runtime, BUN_RANGE)) return ok("runtime", text);
  return warning("runtime", `${text}: it is made for Bun ${BUN_RANGE}`, "npm install bun");
}

function processes({ cores, read }: Machine): Finding {
  const available = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(read("/proc/meminfo") ?? "")?.[1]) * KIB;
  const limit = Number(read("/sys/fs/cgroup/memory.max") ?? Number.NaN);
  const bytes = Math.min(...[available, limit].filter((each) => !Number.isNaN(each)));
  if (bytes === Number.POSITIVE_INFINITY) return ok("cores", `${cores}, for as many workers`);
  const needed = (cores + OTHER_PROCESSES) * PROCESS_BYTES;
  const text = `${cores} cores, for as many workers; ${size(bytes)} of memory`;
  if (bytes >= needed) return ok("cores, memory", text);
  const workers = Math.max(1, Math.floor(bytes / PROCESS_BYTES) - OTHER_PROCESSES);
  return warning(
    "cores, memory",
    `${text}, and they want ${size(needed)}`,
    `tercet serve --workers ${workers}`,
  );
}

function openFiles({ read }: Machine): Finding {
  const limits = read("/proc/self/limits") ?? "";
  // The runtime raises its own limit to the hard one.
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  if (hard === undefined) return ok("open files", "not known on this system");
  const count = hard === "unlimited" ? Number.POSITIVE_INFINITY : Number(hard);
  const text = `${hard} for one process, which has one for each connection`;
  const advice = `in a unit of systemd: LimitNOFILE=${4 * ENOUGH_FILES}; as root, in its shell: ulimit -n ${4 * ENOUGH_FILES}`;
  if (count < FEW_FILES) return problem("open files", text, advice);
  return count < ENOUGH_FILES ? warning("open files", text, advice) : ok("open files", text);
}

function udpBuffers({ read }: Machine): Finding[] {
  const receive = sysctl(read, "net.core.rmem_default");
  const receiveMax = sysctl(read, "net.core.rmem_max");
  const sendMax = sysctl(read, "net.core.wmem_max");
  if (receive === null || receiveMax === null || sendMax === null) return [];
  const text = `${size(receive)} (net.core.rmem_default), to ${size(receiveMax)} (rmem_max)${lostDatagrams(read)}`;
  const settings = ["net.core.rmem_default", "net.core.rmem_max"].map(
    (name) => `${name}=${Math.max(sysctl(read, name) ?? 0, UDP_BUFFER_BYTES)}`,
  );
  return [
    Math.min(receive, receiveMax) < UDP_BUFFER_BYTES
      ? warning(
          "UDP receiving",
          `${text}; HTTP/3 wants ${size(UDP_BUFFER_BYTES)}`,
          `sudo sysctl -w ${settings.join(" ")}`,
        )
      : ok("UDP receiving", text),
    sendMax < UDP_BUFFER_BYTES
      ? warning(
          "UDP sending",
          `at most ${size(sendMax)} (net.core.wmem_max); HTTP/3 wants ${size(UDP_BUFFER_BYTES)}`,
          `sudo sysctl -w net.core.wmem_max=${UDP_BUFFER_BYTES}`,
        )
      : ok("UDP sending", `at most ${size(sendMax)} (net.core.wmem_max)`),
  ];
}

/** What the system counts since it was booted, where it is much. */
function lostDatagrams(read: Machine["read"]): string {
  const [names = [], values = []] = (read("/proc/net/snmp")?.match(/^Udp: .*$/gm) ?? []).map((line) =>
    line.split(" "),
  );
  const counted = (name: string) => Number(values[names.indexOf(name)] ?? 0);
  const received = counted("InDatagrams");
  const lost = counted("RcvbufErrors");
  return lost > LOST_SHARE * (received + lost) ? `; ${lost} datagrams found it full since boot` : "";
}

function backlog({ read }: Machine): Finding[] {
  const connections = sysctl(read, "net.core.somaxconn");
  if (connections === null) return [];
  const text = `${connections} connections may wait to be taken (net.core.somaxconn)`;
  return connections < BACKLOG
    ? [warning("backlog", text, "sudo sysctl -w net.core.somaxconn=4096")]
    : [ok("backlog", text)];
}

function softnet({ read }: Machine): Finding[] {
  // The second column: packets that found the queue of their core full.
  const cores = (read("/proc/net/softnet_stat") ?? "").trim().split("\n");
  const dropped = cores.reduce(
    (sum, line) => sum + (Number.parseInt(line.split(/\s+/)[1] ?? "", 16) || 0),
    0,
  );
  const queue = sysctl(read, "net.core.netdev_max_backlog");
  if (dropped === 0 || queue === null) return [];
  return [
    warning(
      "packet queue",
      `${dropped} packets found it full since boot; it has ${queue} (net.core.netdev_max_backlog)`,
      `sudo sysctl -w net.core.netdev_max_backlog=${queue * 4}`,
    ),
  ];
}

function conntrack({ read }: Machine): Finding[] {
  const most = sysctl(read, "net.netfilter.nf_conntrack_max");
  const now = sysctl(read, "net.netfilter.nf_conntrack_count");
  if (most === null || now === null || now < CONNTRACK_SHARE * most) return [];
  return [
    warning(
      "firewall",
      `it knows ${now} connections of at most ${most}: beyond them packets are dropped`,
      `sudo sysctl -w net.netfilter.nf_conntrack_max=${most * 4}`,
    ),
  ];
}

function ipv6({ read }: Machine): Finding[] {
  const addresses = read("/proc/net/if_inet6");
  // Of a kernel that has none, or another system.
  if (addresses === null) return [];
  if (addresses.trim() !== "") return [ok("IPv6", "there are addresses")];
  return [
    warning(
      "IPv6",
      "no address: :: is all of IPv4 alone",
      "sudo sysctl -w net.ipv6.conf.all.disable_ipv6=0, if clients come by IPv6",
    ),
  ];
}

function sysctl(read: Machine["read"], name: string): number | null {
  const text = read(`/proc/sys/${name.replaceAll(".", "/")}`);
  return text === null ? null : Number(text);
}

function size(bytes: number): string {
  if (bytes >= GIB) return `${(bytes / GIB).toFixed(1)} GiB`;
  return bytes >= MIB ? `${(bytes / MIB).toFixed(0)} MiB` : `${(bytes / KIB).toFixed(0)} KiB`;
}
