/**
 * The certificate while the server runs: read again at a reload, and handed to the reactors when it is another one. What a
 * reactor does with it is its listeners' affair.
 */
import type { ResolvedOptions } from "../options.ts";
import { type Certificate, loadCertificate } from "./certificate.ts";
import type { Pool, PoolChild } from "./pool.ts";

interface Reactor extends PoolChild {
  send(message: { readonly type: "certificate"; readonly tls: Certificate }): void;
}

/** Milliseconds within which a reactor has another certificate in force. */
const ANSWER_TIMEOUT = 10_000;

export class CertificateRenewal {
  readonly #source: ResolvedOptions["tls"];
  readonly #log: (line: string) => void;
  /** By the reactor's id: told why some protocol keeps the certificate before; null where none does. */
  readonly #answers = new Map<number, (failure: string | null) => void>();
  #current: Certificate | null;
  /** Some reactor has not taken the current one on every protocol: it is tried again. */
  #isPartial = false;

  /**
   * @param source of the user's; else a self-signed one was made, or there is none, and both stay
   * @param current null for plain HTTP/1.1
   */
  constructor(source: ResolvedOptions["tls"], current: Certificate | null, log: (line: string) => void) {
    this.#source = source;
    this.#current = current;
    this.#log = log;
  }

  /** What processes that are started from now on get. */
  get current(): Certificate | null {
    return this.#current;
  }

  /**
   * What is in the files now; null where nothing is to be done.
   * @throws CertificateError where it cannot serve
   */
  read(): Certificate | null {
    if (this.#source === null || this.#source === false) return null;
    const read = loadCertificate(this.#source);
    const isSame = read.cert === this.#current?.cert && read.key === this.#current.key;
    return isSame && !this.#isPartial ? null : read;
  }

  /**
   * Puts the certificate in force, if there is one, with the renewal of the workers: in the mode `base` they are what
   * listens, and new ones begin with it. Where the renewal fails nothing has changed.
   */
  async spread<C extends Reactor>(
    certificate: Certificate | null,
    reactors: Pool<C>,
    renew: () => Promise<void>,
  ): Promise<void> {
    if (certificate === null) return renew();
    const before = this.#current;
    this.#current = certificate;
    try {
      await renew();
    } catch (error) {
      this.#current = before;
      throw error;
    }
    const serving = reactors.slots.flatMap(({ id, serving }) => (serving === null ? [] : [{ id, serving }]));
    const failures = await Promise.all(serving.map(({ id, serving }) => this.#set(id, serving.child)));
    this.#isPartial = failures.some((failure) => failure !== null);
    for (const [index, failure] of failures.entries()) {
      if (failure !== null)
        this.#log(`reactor ${serving[index]?.id} keeps the certificate before: ${failure}`);
    }
  }

  /** @param failure as the reactor tells it */
  answered(reactorId: number, failure: string | null): void {
    this.#answers.get(reactorId)?.(failure);
  }

  /** Resolves with what the reactor says of it. One that dies starts again with the current one. */
  async #set(id: number, reactor: Reactor): Promise<string | null> {
    const { promise, resolve } = Promise.withResolvers<string | null>();
    this.#answers.set(id, resolve);
    const late = setTimeout(resolve, ANSWER_TIMEOUT, `no answer within ${ANSWER_TIMEOUT} ms`);
    void reactor.exited.then(() => resolve(null));
    reactor.send({ type: "certificate", tls: this.#current as Certificate });
    try {
      return await promise;
    } finally {
      clearTimeout(late);
      this.#answers.delete(id);
    }
  }
}
