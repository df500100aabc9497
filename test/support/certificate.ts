/** Self-signed certificates for localhost. */
import { generate } from "selfsigned";

export interface Pem {
  readonly cert: string;
  readonly key: string;
}

export async function makeCertificate(): Promise<Pem> {
  const made = await generate([{ name: "commonName", value: "localhost" }], {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [
      {
        name: "subjectAltName",
        altNames: [
          { type: 2, value: "localhost" },
          { type: 7, ip: "127.0.0.1" },
        ],
      },
    ],
  });
  return { cert: made.cert, key: made.private };
}

/** The certificate every test server uses. */
export const CERTIFICATE: Promise<Pem> = makeCertificate();

/** Another certificate and key, for the tests of certificates that do not go together. */
export const OTHER_CERTIFICATE: Promise<Pem> = makeCertificate();
