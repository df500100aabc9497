/** The certificate: the user's, read and checked before anything starts; or a self-signed one for localhost. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { userFolder } from "../home.ts";
import type { Certificate, Certificates } from "../listeners/listener.ts";

/** A certificate or key that cannot serve: the message says which file and why. */
export class CertificateError extends Error {
  readonly code = "TERCET_CERTIFICATE";
  override readonly name = "CertificateError";
}

const DAY = 24 * 60 * 60 * 1000;
const VALID_DAYS = 365;
const RENEW_DAYS = 7;
/** RFC 7468 §11; RFC 1421 §4.6.1.1. */
const ENCRYPTED = /^(-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED)/m;

/**
 * The pair, checked; of what stands behind the certificate nothing is looked at.
 * @param source as in `ServerOptions.tls`: each a path to a PEM file, or PEM text
 */
export function loadPair(source: Certificate): Certificate {
  const cert = readPem(source.cert, "certificate");
  const key = readPem(source.key, "key");
  const parsedCert = parse(cert, source.cert, "certificate", (pem) => new X509Certificate(pem));
  const parsedKey = parse(key, source.key, "key", createPrivateKey);
  if (!parsedCert.checkPrivateKey(parsedKey)) {
    throw new CertificateError(
      `the key ${nameOf(source.key)} is not the key of the certificate ${nameOf(source.cert)}`,
    );
  }
  return { cert, key };
}

/** What a server can show. @param source as in `loadPair` */
export function loadCertificate(source: Certificate): Certificate {
  const { cert, key } = loadPair(source);
  try {
    // The certificates behind the first are read by this alone.
    createSecureContext({ cert, key });
  } catch (error) {
    throw new CertificateError(
      `the certificate ${nameOf(source.cert)} cannot be used: ${(error as Error).message}`,
      { cause: error },
    );
  }
  return { cert, key };
}

/**
 * All that a server can show. One that is out of its time serves: the log is told that clients refuse it.
 * @param source each as in `loadPair`
 * @param now milliseconds since the Unix epoch
 */
export function loadCertificates(
  source: Certificates,
  now: number,
  log: (line: string) => void,
): Certificates {
  // One may have several names.
  const refused = new Set<string>();
  const load = (pair: Certificate) => {
    const loaded = loadCertificate(pair);
    const fault = timeFault(new X509Certificate(loaded.cert), now);
    if (fault !== null) refused.add(`the certificate ${nameOf(pair.cert)}, ${fault}, is refused by clients`);
    return loaded;
  };
  const own = load(source);
  const sni = Object.entries(source.sni).map(([name, pair]) => [name.toLowerCase(), load(pair)]);
  for (const line of refused) log(line);
  return { ...own, sni: Object.fromEntries(sni) };
}

/** How a certificate is out of its time (RFC 5280 §4.1.2.5); null where it is not. @param now as in `loadCertificates` */
export function timeFault({ validFrom, validTo }: X509Certificate, now: number): string | null {
  const [from, to] = [Date.parse(validFrom), Date.parse(validTo)];
  if (now < from) return `not valid before ${dateOf(from)}`;
  return now >= to ? `expired on ${dateOf(to)}` : null;
}

/** @param time milliseconds since the Unix epoch */
export function dateOf(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}

/** Makes a certificate for localhost, or finds the one that was made before. Returns where it is kept. */
export async function selfSignedCertificate(now: number): Promise<Certificate & { readonly path: string }> {
  const cache = userFolder(process.env.XDG_CACHE_HOME, ".cache");
  if (cache === null)
    throw new CertificateError(
      "no self-signed certificate can be kept, for this user has no home directory; give your own, or XDG_CACHE_HOME",
    );
  const folder = join(cache, "tercet");
  const path = join(folder, "localhost.pem");
  const kept = readKept(path, now);
  if (kept !== null) return { ...kept, path };
  // Half of all that a process loads to start, where it is imported above.
  const { generate } = await import("selfsigned");
  const made = await generate([{ name: "commonName", value: "localhost" }], {
    keyType: "ec",
    algorithm: "sha256",
    notBeforeDate: new Date(now - DAY),
    notAfterDate: new Date(now + VALID_DAYS * DAY),
    extensions: [
      { name: "basicConstraints", cA: false },
      { name: "keyUsage", digitalSignature: true },
      { name: "extKeyUsage", serverAuth: true },
      {
        name: "subjectAltName",
        altNames: [
          { type: 2, value: "localhost" },
          { type: 7, ip: "127.0.0.1" },
          { type: 7, ip: "::1" },
        ],
      },
    ],
  });
  // One file for both, put in place by a rename: whoever starts at the same time finds a pair, never a half.
  const partial = `${path}.${process.pid}`;
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeFileSync(partial, `${made.cert}\n${made.private}`, { mode: 0o600 });
    renameSync(partial, path);
  } catch (error) {
    if (existsSync(partial)) rmSync(partial);
    throw new CertificateError(
      `no self-signed certificate can be kept in ${folder}: ${(error as Error).message}; give your own, or another XDG_CACHE_HOME`,
      { cause: error },
    );
  }
  return { cert: made.cert, key: made.private, path };
}

function readKept(path: string, now: number): Certificate | null {
  try {
    const kept = loadCertificate({ cert: path, key: path });
    const certificate = new X509Certificate(kept.cert);
    const isOverSoon = Date.parse(certificate.validTo) - now <= RENEW_DAYS * DAY;
    // Made when the clock was ahead, it would be refused until then.
    return isOverSoon || timeFault(certificate, now) !== null ? null : kept;
  } catch {
    // Not there, or no longer what it was: a new one takes its place.
    return null;
  }
}

function readPem(source: string, what: string): string {
  if (source.includes("-----BEGIN")) return source;
  try {
    return readFileSync(source, "utf8");
  } catch (error) {
    throw new CertificateError(`the ${what} ${source} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function parse<Parsed>(pem: string, source: string, what: string, parser: (pem: string) => Parsed): Parsed {
  try {
    return parser(pem);
  } catch (error) {
    const fault = ENCRYPTED.test(pem)
      ? "is encrypted, and must have no passphrase"
      : `is not valid PEM: ${(error as Error).message}`;
    throw new CertificateError(`the ${what} ${nameOf(source)} ${fault}`, { cause: error });
  }
}

function nameOf(source: string): string {
  return source.includes("-----BEGIN") ? "(given as text)" : source;
}
