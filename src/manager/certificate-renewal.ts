/**
 * The certificates while the server runs: read again at a reload, and handed to the reactors when one is another. What a
 * reactor does with them is its listeners' affair.
 */
import { isDeepStrictEqual } from "node:util";
import type { Certificates } from "../listeners/listener.ts";
import type { ResolvedOptions } from "../options.ts";
import { loadCertificates } from "./certificate.ts";
import type { Pool, PoolChild } from "./pool.ts";

interface Reactor extends PoolChild {
  send(message: { readonly type: "certificate"; readonly tls: Certificates }): void;
}

/** Milliseconds within which a reactor has other certificates in force. */
const ANSWER_TIMEOUT = 10_000;

export class CertificateRenewal {
  readonly #source: Pick<ResolvedOptions, "tls" | "quic">;
  readonly #log: (line: string) => void;
  /** By the reactor's id: told why some protocol keeps the certificates before; null where none does. */
  readonly #answers = new Map<number, (failure: string | null) => void>();
  #current: Certificates | null;
  /** Some reactor has not taken the current ones on every protocol: it is tried again. */
  #isPartial = false;

  /**
   * @param source of the user's; where `tls` names none a self-signed one was made, and stays
   * @param current null for plain HTTP/1.1
   */
  constructor(
    source: Pick<ResolvedOptions, "tls" | "quic">,
    current: Certificates | null,
    log: (line: string) => void,
  ) {
    this.#source = source;
    this.#current = current;
    this.#log = log;
  }

  /** What processes that are started from now on get. */
  get current(): Certificates | null {
    return this.#current;
  }

  /**
   * What is in the files now; null where nothing is to be done.
   * @throws CertificateError where it cannot serve
   */
  read(): Certificates | null {
    if (this.#current === null) return null;
    const { tls, quic } = this.#source;
    const source = { ...(tls || this.#current), sni: quic?.sni ?? {} };
    const read = loadCertificates(source, Date.now(), this.#log);
    return isDeepStrictEqual(read, this.#current) && !this.#isPartial ? null : read;
  }

  /**
   * Puts the certificates in force, if there are any, with the renewal of the workers: in the mode `base` they are what
   * listens, and new ones begin with it. Where the renewal fails nothing has changed.
   */
  async spread<C extends Reactor>(
    certificates: Certificates | null,
    reactors: Pool<C>,
    renew: () => Promise<void>,
  ): Promise<void> {
    if (certificates === null) return renew();
    const before = this.#current;
    this.#current = certificates;
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

  /** Resolves with what the reactor says of it. One that dies starts again with the current ones. */
  async #set(id: number, reactor: Reactor): Promise<string | null> {
    const { promise, resolve } = Promise.withResolvers<string | null>();
    this.#answers.set(id, resolve);
    const late = setTimeout(resolve, ANSWER_TIMEOUT, `no answer within ${ANSWER_TIMEOUT} ms`);
    void reactor.exited.then(() => resolve(null));
    reactor.send({ type: "certificate", tls: this.#current as Certificates });
    try {
      return await promise;
    } finally {
      clearTimeout(late);
      this.#answers.delete(id);
    }
  }
}
