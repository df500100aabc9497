/** Whether a certificate and its key can serve: readable, a pair, in time, named, and with what leads to its root. */
import { X509Certificate } from "node:crypto";
import { statSync } from "node:fs";
import { isIP } from "node:net";
import { rootCertificates } from "node:tls";
import { CertificateError, dateOf, loadCertificate, loadPair, timeFault } from "../manager/certificate.ts";
import { type Finding, ok, problem, warning } from "./finding.ts";

const DAY = 24 * 60 * 60 * 1000;
/** Most certificates are renewed a month before their end. */
const SOON_DAYS = 14;
const MIN_RSA_BITS = 2048;
/** What stands for every name. */
const ANY_HOST = new Set(["::", "0.0.0.0"]);

/**
 * @param paths of PEM files; null for the one that is made where none is given
 * @param host that clients are to reach; one that stands for all addresses is not looked for
 * @param now milliseconds since the Unix epoch
 */
export function certificateFindings(
  paths: { cert: string; key: string } | null,
  host: string,
  now: number,
): Finding[] {
  if (paths === null) {
    const text = "none is given: one for localhost is made, which clients take only where they are told to";
    return [warning("certificate", text, "get one (certbot certonly), and give --cert and --key")];
  }
  try {
    return pairFindings(paths, host, now);
  } catch (error) {
    if (!(error instanceof CertificateError)) throw error;
    return [
      problem("certificate", error.message, "give --cert and --key as your certificate authority made them"),
    ];
  }
}

/** @throws CertificateError where the pair cannot be used, and there is nothing better to say of it */
function pairFindings(paths: { cert: string; key: string }, host: string, now: number): Finding[] {
  const { cert: pem } = loadPair(paths);
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  const chain = blocks.map(parsed);
  const broken = chain.indexOf(null);
  if (broken !== -1) {
    const text = `certificate ${broken + 1} of ${paths.cert} is not valid`;
    return [problem("certificate chain", text, "give --cert as your certificate authority made it")];
  }
  const [leaf, ...others] = chain as X509Certificate[];
  if (leaf === undefined) return [problem("certificate", `${paths.cert} has none`, "give --cert as PEM")];
  // One that is cut off is none of these, and no server starts with it.
  loadCertificate(paths);
  return [
    time(leaf, now),
    names(leaf, host),
    issuers(leaf, others),
    strength(leaf),
    secrecy(paths.key),
  ].flat();
}

function parsed(pem: string): X509Certificate | null {
  try {
    return new X509Certificate(pem);
  } catch {
    // It is told of by its place.
    return null;
  }
}

function time(leaf: X509Certificate, now: number): Finding {
  const to = Date.parse(leaf.validTo);
  const subject = "certificate time";
  const renew = "renew it, then: tercet reload";
  const fault = timeFault(leaf, now);
  if (fault !== null)
    return problem(subject, fault, now < to ? "set the clock right, or wait: timedatectl" : renew);
  const days = Math.floor((to - now) / DAY);
  const text = `valid until ${dateOf(to)}, ${days} days`;
  return days < SOON_DAYS ? warning(subject, text, renew) : ok(subject, text);
}

function names(leaf: X509Certificate, host: string): Finding {
  const named = (leaf.subjectAltName ?? "").replaceAll(/DNS:|IP Address:/g, "");
  const subject = "certificate names";
  // RFC 9110 §4.3.4: names are looked for there alone.
  if (named === "")
    return problem(
      subject,
      "it has no subjectAltName: no client takes it",
      "have it made with the server's names",
    );
  const isNamed = isIP(host) ? leaf.checkIP(host) : leaf.checkHost(host);
  if (ANY_HOST.has(host) || isNamed !== undefined) return ok(subject, named);
  return warning(
    subject,
    `${named}: not ${host}`,
    `have it made for ${host}, or give --host as clients know it`,
  );
}

function issuers(leaf: X509Certificate, others: readonly X509Certificate[]): Finding {
  const subject = "certificate chain";
  if (isIssued(leaf, leaf))
    return warning(
      subject,
      "self-signed: clients take it only where they are told to",
      "get one: certbot certonly",
    );
  let last = leaf;
  for (const [at, next] of others.entries()) {
    if (isIssued(last, next)) last = next;
    else {
      const isThere = others.some((each) => isIssued(last, each));
      return problem(
        subject,
        isThere
          ? `in the wrong order: certificate ${at + 2} of the file did not issue the one before it`
          : `certificate ${at + 2} of the file (${nameOf(next.subject)}) did not issue the one before it`,
        "put the server's first, then each that issued the one before it (certbot: fullchain.pem)",
      );
    }
  }
  const isRoot = (pem: string) => isIssued(last, new X509Certificate(pem));
  if (isIssued(last, last) || rootCertificates.some(isRoot))
    return ok(subject, [leaf, ...others].map((each) => nameOf(each.issuer)).join(", "));
  return warning(
    subject,
    `who issued the last of the file (${nameOf(last.issuer)}) is no root that is known: clients may not find it`,
    "give --cert with those that lead to the root (certbot: fullchain.pem)",
  );
}

function isIssued(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function strength(leaf: X509Certificate): Finding[] {
  const bits = leaf.publicKey.asymmetricKeyDetails?.modulusLength;
  if (bits === undefined || bits >= MIN_RSA_BITS) return [];
  return [
    problem("certificate key", `RSA of ${bits} bits: no client takes it`, "have it made with ECDSA P-256"),
  ];
}

function secrecy(key: string): Finding[] {
  // It is the text itself.
  if (key.includes("-----BEGIN")) return [];
  const mode = statSync(key).mode & 0o777;
  if ((mode & 0o007) === 0) return [];
  const shown = `0${mode.toString(8)}`;
  return [warning("certificate key", `everybody may use ${key} (mode ${shown})`, `chmod 600 ${key}`)];
}

/** The common name, or all of it where there is none. */
function nameOf(subject: string): string {
  return /^CN=(.*)$/m.exec(subject)?.[1] ?? subject.replaceAll("\n", ", ");
}
