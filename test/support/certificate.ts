/** A self-signed certificate for localhost, made once in a test run. */
import { generate } from "selfsigned";

export interface Pem {
  readonly cert: string;
  readonly key: string;
}

async function make(): Promise<Pem> {
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
export const CERTIFICATE: Promise<Pem> = make();

/** Another certificate and key, for the tests of certificates that do not go together. */
export const OTHER_CERTIFICATE: Promise<Pem> = make();
