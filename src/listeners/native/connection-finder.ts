/**
 * Finds which of the engines on one UDP port has a connection, by asking them (connection-ids.ts). Owns the socket that
 * it asks from.
 *
 * Bun's engine takes whoever asks in the middle of a handshake for the client. So the newest engine is not asked, for
 * most connections in question are just beginning there: theirs it is that the others deny. And the others are asked when
 * they have seen to all that came before the question.
 */
import { randomBytes } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import type { SocketAddress } from "../udp-socket.ts";
import { type AskKind, askPacket, ID_BYTES, idStart, readAnswer, SECRET_BYTES } from "./connection-ids.ts";
import type { Place } from "./reuseport-program.ts";

export interface Connection {
  readonly id: Buffer;
  /** The client's. */
  readonly port: number;
}

export interface FinderEvents {
  /** What `find` has found. */
  found(connection: Connection, place: Place): void;
  /** What `check` has found: the engine in the place no longer has the connection. */
  gone(start: number, place: Place): void;
}

interface Question {
  readonly connection: Connection;
  readonly places: readonly Place[];
  readonly newest: Place;
  readonly at: number;
  /** Those that have not yet seen to what came before; then those that have not yet denied. */
  left: Set<Place>;
  isAsked: boolean;
  /** By place: how often its engine has heard, and not denied. */
  readonly heard: Map<Place, number>;
}

interface Ask {
  readonly kind: AskKind;
  readonly place: Place;
  readonly id: Buffer;
}

/** Milliseconds after which a question may be put again: asks are lost where an engine's socket is full. */
const ASK_AGAIN = 1000;
/** So often an engine must hear and not deny: it may have heard the control alone. */
const ROUNDS = 2;
/** Milliseconds after which no answer is expected. */
const ANSWER_TIMEOUT = 2000;
const ANSWER_INTERVAL = 20;
/** Asks that are sent at once, and in a millisecond: an engine's socket has room for a hundred packets. */
const ASKS_AT_ONCE = 30;
/** Ids are random: who makes up more of them than this is no client. */
const MAX_QUESTIONS = 20_000;
const NO_ANSWER =
  "the engine does not answer packets of an unknown QUIC version, so its connections cannot be found";

export class ConnectionFinder {
  readonly #events: FinderEvents;
  readonly #address: SocketAddress;
  readonly #secret = randomBytes(SECRET_BYTES);
  readonly #socket: Socket;
  /** By the start of the id. */
  readonly #questions = new Map<number, Question>();
  /** Not yet sent. */
  readonly #asks: Ask[] = [];
  /** Not yet sent, and less urgent. */
  #checks: Ask[] = [];
  #timer: NodeJS.Timeout | null = null;
  /** By place: told that the engine there has answered. */
  readonly #answered = new Map<Place, () => void>();

  private constructor(socket: Socket, address: SocketAddress, events: FinderEvents) {
    this.#events = events;
    this.#address = address;
    this.#socket = socket;
    socket.on("message", (packet) => this.#heard(packet));
  }

  /** @param address of the engines' sockets */
  static async open(address: SocketAddress, events: FinderEvents): Promise<ConnectionFinder> {
    const reachable = { ...address, address: reachableAddress(address.address) };
    const socket = await bindSocket({ ...reachable, port: 0 }, false);
    return new ConnectionFinder(socket, reachable, events);
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#socket.close();
  }

  /**
   * @param places of engines that may have the connection
   * @param newest of the engine that has it where none of these does
   */
  find(connection: Connection, places: readonly Place[], newest: Place): void {
    const start = idStart(connection.id);
    const now = performance.now();
    const before = this.#questions.get(start);
    if (before !== undefined && now - before.at < ASK_AGAIN) return;
    if (this.#questions.size >= MAX_QUESTIONS) this.#forget(now);
    if (this.#questions.size >= MAX_QUESTIONS) return;
    const left = new Set(places);
    const heard = new Map<Place, number>();
    this.#questions.set(start, { connection, places, newest, at: now, left, isAsked: false, heard });
    for (const place of places) this.#ask("before", place, connection.id);
  }

  /** Asks engines for connections that they had; in place of what was to be asked by the call before. */
  check(connections: readonly { readonly id: Buffer; readonly place: Place }[]): void {
    this.#forget(performance.now());
    this.#checks = connections.map(({ id, place }) => ({ kind: "ask", place, id }));
    if (this.#checks.length > 0) this.#sendSoon(0);
  }

  /** Resolves when the engine in the place has answered, and rejects where it does not. */
  async answers(place: Place): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#answered.set(place, resolve);
    const ask = () => this.#ask("ask", place, randomBytes(ID_BYTES));
    ask();
    const again = setInterval(ask, ANSWER_INTERVAL);
    const late = setTimeout(() => reject(new Error(NO_ANSWER)), ANSWER_TIMEOUT);
    try {
      await promise;
    } finally {
      clearInterval(again);
      clearTimeout(late);
      this.#answered.delete(place);
    }
  }

  #forget(now: number): void {
    for (const [start, { at }] of this.#questions) {
      if (now - at > ANSWER_TIMEOUT) this.#questions.delete(start);
    }
  }

  #ask(kind: AskKind, place: Place, id: Buffer): void {
    this.#asks.push({ kind, place, id });
    this.#sendSoon(0);
  }

  #sendSoon(delay: number): void {
    this.#timer ??= setTimeout(() => this.#send(), delay);
  }

  #send(): void {
    this.#timer = null;
    const asks = this.#asks.splice(0, ASKS_AT_ONCE);
    asks.push(...this.#checks.splice(0, ASKS_AT_ONCE - asks.length));
    for (const { kind, place, id } of asks) {
      this.#socket.send(askPacket(kind, place, id, this.#secret), this.#address.port, this.#address.address);
    }
    if (this.#asks.length + this.#checks.length > 0) this.#sendSoon(1);
  }

  #heard(packet: Buffer): void {
    const answer = readAnswer(packet, this.#secret);
    if (answer === null) return;
    const { kind, place, idStart: start } = answer;
    if (kind === "ask") {
      this.#answered.get(place)?.();
      this.#events.gone(start, place);
    }
    const question = this.#questions.get(start);
    if (question === undefined || !question.left.has(place) || question.isAsked === (kind === "before"))
      return;
    if (kind === "control") {
      const rounds = (question.heard.get(place) ?? 0) + 1;
      question.heard.set(place, rounds);
      if (rounds === ROUNDS) this.#events.found(question.connection, place);
      else this.#askWithControl(question, place);
      return;
    }
    question.left.delete(place);
    if (question.left.size > 0) return;
    if (kind === "ask") this.#events.found(question.connection, question.newest);
    else this.#askAll(question);
  }

  #askAll(question: Question): void {
    question.isAsked = true;
    question.left = new Set(question.places);
    for (const place of question.places) this.#askWithControl(question, place);
  }

  #askWithControl({ connection }: Question, place: Place): void {
    this.#ask("ask", place, connection.id);
    this.#ask("control", place, connection.id);
  }
}

/** A socket of `node:dgram` that is bound there. */
export function bindSocket({ family, address, port }: SocketAddress, reusePort: boolean): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: family, reusePort });
    socket.once("error", reject);
    socket.bind({ address, port }, () => {
      socket.off("error", reject);
      // The kernel tells any socket of a port of clients that have gone, whichever has sent to them.
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}

/** The address to send to what listens on all addresses. */
function reachableAddress(address: string): string {
  if (address === "0.0.0.0") return "127.0.0.1";
  return address === "0:0:0:0:0:0:0:0" ? "::1" : address;
}
