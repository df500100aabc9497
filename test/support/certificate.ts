/** Self-signed certificates for localhost. */
import { generate } from "selfsigned";

export interface Pem {
  readonly cert: string;
  readonly key: string;
}

/** @param validity from when to when it is valid; a year from now where it is left out */
export async function makeCertificate(validity?: { readonly from: Date; readonly to: Date }): Promise<Pem> {
  const made = await generate([{ name: "commonName", value: "localhost" }], {
    keyType: "ec",
    algorithm: "sha256",
    ...(validity && { notBeforeDate: validity.from, notAfterDate: validity.to }),
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
