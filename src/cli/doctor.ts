/** `tercet doctor`: what on this machine would keep a server from starting, from being reached, or from being fast. */
import { Command } from "commander";
import { certificateFindings } from "../doctor/certificate.ts";
import type { Finding } from "../doctor/finding.ts";
import { machineFindings, THIS_MACHINE } from "../doctor/machine.ts";
import { portFindings, runDirectoryFinding, userFinding } from "../doctor/place.ts";
import { ControlError } from "../manager/control-client.ts";
import { defaultRunDirectory } from "../manager/run-directory.ts";
import { checkAddress, resolveOptions, type ServerOptions } from "../options.ts";
import { type CertificateFlags, DEFAULT_COLUMNS, hostFlag, numberOf, portFlag, tlsOf } from "./flags.ts";
import { ANSWER_TIMEOUT, connectTo } from "./running-server.ts";

interface DoctorFlags extends CertificateFlags {
  readonly host: string;
  readonly port: string;
  readonly http3?: string;
}

const LEVEL_WIDTH = "warning".length;

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("check machine, port and certificate for a server; exit code 1 where something is a problem")
    .addOption(hostFlag("that the server is to listen on"))
    .addOption(portFlag("that it is to have"))
    .option("--cert <file>", "its PEM certificate")
    .option("--key <file>", "the PEM private key of the certificate")
    .option("--no-tls", "it is to be plain HTTP/1.1")
    .option("--http3 <engine>", "its engine, or off")
    .action(doctor);
}

async function doctor(flags: DoctorFlags): Promise<void> {
  const { host } = flags;
  const port = numberOf(flags.port);
  checkAddress(host, port);
  const tls = tlsOf(flags);
  const { http3 } = resolveOptions({ http3: flags.http3 } as ServerOptions);
  const withHttp3 = tls !== false && http3 !== "off";
  const serverPid = await serverPidOn(flags.port);
  const uid = process.geteuid?.() ?? 0;
  const findings = [
    ...machineFindings(THIS_MACHINE, withHttp3),
    userFinding(uid, port),
    runDirectoryFinding(defaultRunDirectory(port), serverPid),
    ...(await portFindings(host, port, withHttp3, serverPid)),
    ...(tls === false ? [] : certificateFindings(tls ?? null, host, Date.now())),
  ];
  const width = Math.max(...findings.map(({ subject }) => subject.length));
  for (const finding of findings) console.log(linesOf(finding, width));
  const problems = findings.filter(({ level }) => level === "problem").length;
  const warnings = findings.filter(({ level }) => level === "warning").length;
  console.log(`\n${counted(problems, "problem")}, ${counted(warnings, "warning")}`);
  if (problems > 0) process.exitCode = 1;
}

/** @param width of the longest subject */
function linesOf({ level, subject, text, advice }: Finding, width: number): string {
  const label = `${level.padEnd(LEVEL_WIDTH)}  ${subject.padEnd(width)}  `;
  const columns = (process.stdout.columns ?? DEFAULT_COLUMNS) - label.length;
  const lines = [...wrapped(text, columns), ...(advice === undefined ? [] : [`→ ${advice}`])];
  return lines.map((line, i) => (i === 0 ? label : " ".repeat(label.length)) + line).join("\n");
}

/** Advice is left whole, to be copied. */
function wrapped(text: string, columns: number): string[] {
  const lines: string[] = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1) ?? "";
    if (line !== "" && line.length + 1 + word.length > columns) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** The process of a server of ours on this port; null where there is none that answers. */
async function serverPidOn(port: string): Promise<number | null> {
  try {
    using client = await connectTo({ port });
    const { manager } = await client.status(ANSWER_TIMEOUT);
    return manager.pid;
  } catch (error) {
    if (error instanceof ControlError) return null;
    throw error;
  }
}
