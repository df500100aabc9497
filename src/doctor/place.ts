/** Whether a server could take its place here: the port, the run directory, and who it would be. */
import { accessSync, constants, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname } from "node:path";
import { addressOf } from "../listeners/address.ts";
import { bindTcp, bindUdp } from "../listeners/ports.ts";
import { runDirectoryFault } from "../manager/run-directory.ts";
import { type Finding, ok, problem, warning } from "./finding.ts";

const LAST_PRIVILEGED_PORT = 1023;

/** @param serverPid the process of a server of ours that has the port; null for none */
export async function portFindings(
  host: string,
  port: number,
  withHttp3: boolean,
  serverPid: number | null,
): Promise<Finding[]> {
  const tcp = await portFinding("TCP", host, port, bindTcp, serverPid);
  return withHttp3 ? [tcp, await portFinding("UDP", host, port, bindUdp, serverPid)] : [tcp];
}

async function portFinding(
  transport: "TCP" | "UDP",
  host: string,
  port: number,
  bind: (host: string, port: number) => Promise<void>,
  serverPid: number | null,
): Promise<Finding> {
  const subject = `${transport} port`;
  try {
    await bind(await addressOf(host), port);
    return ok(subject, `${port} on ${host} is free`);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    switch (code) {
      case "EADDRINUSE":
        if (serverPid !== null)
          return ok(subject, `${port} is that of the running server, process ${serverPid}`);
        return problem(
          subject,
          `${port} on ${host} is in use`,
          `find out by whom: sudo ss -lnp${transport === "TCP" ? "t" : "u"} 'sport = :${port}'`,
        );
      case "EACCES":
        return problem(
          subject,
          `${port} may not be opened by this user`,
          `start as root with --user, or: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=${port}`,
        );
      case "EADDRNOTAVAIL":
      case "ENOTFOUND":
      case "EAI_AGAIN":
        return problem(subject, `${host} is no address of this machine`, "see which there are: ip address");
      default:
        return problem(subject, message, "see which addresses there are: ip address");
    }
  }
}

/** @param uid of this process */
export function userFinding(uid: number, port: number): Finding {
  if (uid !== 0) return ok("user", `${uid}, which is not root`);
  const why = port > 0 && port <= LAST_PRIVILEGED_PORT ? `, which port ${port} takes` : "";
  return warning(
    "user",
    `root${why}: handlers would be root, too`,
    "tercet serve --user www-data, or another",
  );
}

/** @param path null for one with a random name in the temporary folder */
export function runDirectoryFinding(path: string | null, serverPid: number | null): Finding {
  const subject = "run directory";
  if (path !== null && serverPid !== null)
    return ok(subject, `${path} is that of the running server, process ${serverPid}`);
  const fault = path === null ? null : runDirectoryFault(path);
  if (fault !== null) return problem(subject, `${path} ${fault}`, "tercet serve --run-dir with another");
  if (path !== null && existsSync(path)) return ok(subject, `${path} can be used`);
  const folder = path === null ? tmpdir() : dirname(path);
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return problem(
      subject,
      `it cannot be made in ${folder} (${code})`,
      "tercet serve --run-dir with a folder elsewhere, or another TMPDIR",
    );
  }
  return ok(subject, `${path ?? `one with a random name in ${folder}`} can be made`);
}
