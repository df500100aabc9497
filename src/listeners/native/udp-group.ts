/**
 * The sockets that share one UDP port, and who gets what is sent to it: one engine after another takes the new connections,
 * and each connection stays with the engine that has it. Owns no engine.
 *
 * The kernel chooses the socket by a program (reuseport-program.ts), which knows connections by their ids. Which engine has
 * a connection no engine tells, but that can be found (connection-finder.ts). So when an engine takes over, all connections
 * are unknown for a while. A packet that begins one is for the new engine; any other of an unknown connection is caught,
 * by a socket of the group's own, and then it is found whose it is. What was caught is lost, as packets are, and QUIC
 * sends it again.
 *
 * A place is an index in the kernel's array of the sockets: the last takes the place of one that closes. So sockets of
 * the group's own, placeholders, go behind an engine that is to close, and give their places up to one that has come.
 */
import { type RemoteInfo, Socket } from "node:dgram";
import {
  attachReuseportProgram,
  isUdpSocketOf,
  type SocketAddress,
  type SystemCallError,
  udpSocketsOf,
} from "../udp-socket.ts";
import { bindSocket, type Connection, ConnectionFinder } from "./connection-finder.ts";
import { connectionId, idStart, isAsk } from "./connection-ids.ts";
import { CAUGHT, type Place, reuseportProgram, type Steering, UNKNOWN } from "./reuseport-program.ts";

/** It has bound a socket to the port, with SO_REUSEPORT. */
export interface Engine {
  /** Closes the socket, and what connections there may be. */
  close(): Promise<void>;
}

/** Milliseconds. */
export interface GroupTimes {
  /** Connections stay unknown for so long. No engine may keep one for longer on which nothing moves. */
  readonly catching: number;
  /** No handshake goes on for longer. */
  readonly handshake: number;
  /** From one look to the next whether connections are still there. */
  readonly check: number;
}

/** Where the packets of a connection go. */
interface Route extends Connection {
  readonly place: Place;
  /** Milliseconds. */
  readonly since: number;
}

const PORTS = 65_536;
const MAX_ROUTES = 65_536;
/** Milliseconds from one program to the next: it takes a millisecond or two to make one, and to compile it. */
const PROGRAM_INTERVAL = 20;
/** How many neighbouring ports are taken for one, where the program would be too long else. */
const PORTS_TOGETHER = [1, 2, 4, 8, 16, 32, 64, 128];

export class UdpGroup {
  readonly #address: SocketAddress;
  readonly #times: GroupTimes;
  readonly #log: (line: string) => void;
  /** By place. */
  readonly #members: (Engine | Socket)[];
  /** The oldest first. */
  #engines: Engine[];
  /** By the start of the id. */
  readonly #routes = new Map<number, Route>();
  /** Until when ports are caught that had a route: the connection may have another id now. */
  readonly #released = new Map<number, number>();
  #finder: ConnectionFinder | null = null;
  /** Any socket of the group; its engine may have closed it meanwhile. */
  #descriptor = -1;
  #catchingUntil = 0;
  #checkTimer: NodeJS.Timeout | null = null;
  #programTimer: NodeJS.Timeout | null = null;
  /** Of the last program; 0 where it knows connections by their ids. */
  #portsTogether = 0;
  /** When the last program was attached. */
  #attachedAt = 0;
  /** One change of the members after another. */
  #changes: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** @param first has the port already, with SO_REUSEPORT */
  constructor(address: SocketAddress, first: Engine, times: GroupTimes, log: (line: string) => void) {
    this.#address = address;
    this.#times = times;
    this.#log = log;
    this.#engines = [first];
    this.#members = [first];
  }

  /** Opens an engine; new connections then go there. Where that fails it rejects, and all is as before. */
  advance(open: () => Engine): Promise<void> {
    const advanced = this.#changes.then(() => this.#advance(open));
    this.#changes = advanced.catch(() => {
      // Whoever asked for it is told.
    });
    return advanced;
  }

  /** From now on engines may close by themselves, and none comes: each keeps its place until it does. */
  hold(): Promise<void> {
    this.#changes = this.#changes
      .then(async () => {
        // Nobody has joined the first engine: the kernel has no choice, and no sockets could be added then.
        if (this.#finder === null) return;
        if (this.#checkTimer !== null) clearInterval(this.#checkTimer);
        for (const _ of this.#engines) this.#members.push(await this.#openPlaceholder());
      })
      .catch((error: Error) => this.#log(`connections of HTTP/3 may be lost: ${error.message}`));
    return this.#changes;
  }

  /** Closes the group's own sockets, after the engines'. */
  close(): void {
    this.#isClosed = true;
    if (this.#checkTimer !== null) clearInterval(this.#checkTimer);
    if (this.#programTimer !== null) clearTimeout(this.#programTimer);
    for (const member of this.#members) if (isPlaceholder(member)) member.close();
    this.#finder?.close();
  }

  async #advance(open: () => Engine): Promise<void> {
    const finder = this.#finder ?? (await this.#form());
    const next = open();
    this.#members.push(next);
    this.#fillPlace();
    try {
      await finder.answers(this.#placeOf(next));
    } catch (error) {
      await this.#remove(next);
      throw error;
    }
    this.#engines.push(next);
    this.#catchingUntil = performance.now() + this.#times.catching;
    this.#checkTimer ??= setInterval(() => this.#check(), this.#times.check);
    this.#attach();
  }

  /** With a socket beside the engine's the kernel has to choose. */
  async #form(): Promise<ConnectionFinder> {
    const placeholder = await this.#openPlaceholder();
    this.#members.push(placeholder);
    try {
      this.#attach();
      this.#finder = await ConnectionFinder.open(this.#address, {
        found: (connection, place) => this.#route(connection, place),
        gone: (start, place) => this.#release(start, place),
      });
      return this.#finder;
    } catch (error) {
      placeholder.close();
      this.#members.pop();
      throw error;
    }
  }

  /** The last member takes the place of a placeholder, where there is one to spare. */
  #fillPlace(): void {
    const [, spare] = this.#members.filter(isPlaceholder);
    if (spare === undefined) return;
    const place = this.#members.indexOf(spare);
    spare.close();
    this.#members[place] = this.#members.pop() as Engine;
  }

  async #remove(engine: Engine): Promise<void> {
    const placeholder = await this.#openPlaceholder();
    await engine.close();
    this.#members[this.#placeOf(engine)] = placeholder;
    // At the end there is no place to be kept.
    while (isPlaceholder(this.#members.at(-1)) && this.#members.filter(isPlaceholder).length > 1) {
      (this.#members.pop() as Socket).close();
    }
  }

  async #openPlaceholder(): Promise<Socket> {
    const socket = await bindSocket(this.#address, true);
    socket.on("message", (packet, from) => this.#caught(packet, from));
    return socket;
  }

  #placeOf(engine: Engine): Place {
    return this.#members.indexOf(engine);
  }

  get #newest(): Place {
    return this.#placeOf(this.#engines.at(-1) as Engine);
  }

  /** A packet of a connection that was not known. */
  #caught(packet: Buffer, { port }: RemoteInfo): void {
    const id = connectionId(packet);
    if (id === null || isAsk(packet) || this.#routes.has(idStart(id))) return;
    const newest = this.#newest;
    const others = [...this.#members.keys()].filter(
      (place) => place !== newest && !isPlaceholder(this.#members[place]),
    );
    this.#finder?.find({ id: Buffer.from(id), port }, others, newest);
  }

  #route(connection: Connection, place: Place): void {
    if (this.#routes.size >= MAX_ROUTES) return;
    this.#routes.set(idStart(connection.id), { ...connection, place, since: performance.now() });
    this.#attachSoon();
  }

  /** The connection has gone, or has another id now. */
  #release(start: number, place: Place): void {
    const route = this.#routes.get(start);
    if (route?.place !== place) return;
    this.#routes.delete(start);
    this.#released.set(route.port, performance.now() + this.#times.catching);
    this.#attachSoon();
  }

  #check(): void {
    const now = performance.now();
    for (const [port, until] of this.#released) if (now >= until) this.#released.delete(port);
    const isCatching = now < this.#catchingUntil;
    if (!isCatching) this.#endCatching();
    const newest = this.#newest;
    // Not in the middle of a handshake: see connection-finder.ts.
    const settled = now - this.#times.handshake;
    const routes = [...this.#routes.values()];
    this.#finder?.check(routes.filter(({ place, since }) => place !== newest && since < settled));
    if (!isCatching && this.#released.size === 0) this.#retire();
    this.#attachSoon();
  }

  /** From now on what is unknown is the newest engine's. */
  #endCatching(): void {
    this.#catchingUntil = 0;
    const newest = this.#newest;
    for (const [start, { place }] of this.#routes) if (place === newest) this.#routes.delete(start);
  }

  /** Engines that have no connection close. */
  #retire(): void {
    const needed = new Set([...this.#routes.values()].map(({ place }) => this.#members[place]));
    needed.add(this.#engines.at(-1));
    for (const engine of this.#engines.filter((each) => !needed.has(each))) {
      this.#changes = this.#changes
        .then(() => this.#remove(engine))
        .then(() => this.#log("HTTP/3: the last connection with an earlier certificate has ended"))
        .catch((error: Error) => this.#log(`a socket of HTTP/3 stays open: ${error.message}`));
    }
    this.#engines = this.#engines.filter((each) => needed.has(each));
    if (this.#engines.length > 1 || this.#checkTimer === null) return;
    clearInterval(this.#checkTimer);
    this.#checkTimer = null;
  }

  #attachSoon(): void {
    if (this.#isClosed) return;
    const delay = Math.max(0, this.#attachedAt + PROGRAM_INTERVAL - performance.now());
    this.#programTimer ??= setTimeout(() => {
      try {
        this.#attach();
      } catch (error) {
        this.#log(`connections of HTTP/3 may be lost: ${(error as Error).message}`);
      }
    }, delay);
  }

  /** Has the kernel choose by what is known now. */
  #attach(): void {
    if (this.#programTimer !== null) clearTimeout(this.#programTimer);
    this.#programTimer = null;
    const { port } = this.#address;
    if (!isUdpSocketOf(port, this.#descriptor)) this.#descriptor = udpSocketsOf(port)[0] ?? -1;
    const isExact = this.#attachProgram(this.#byId());
    const ports = isExact ? null : this.#byPort();
    const together = ports === null ? 0 : PORTS_TOGETHER.find((count) => this.#attachProgram(ports, count));
    if (together === undefined) throw new Error("the kernel takes no program that is long enough");
    if (together > 1 && this.#portsTogether <= 1) {
      this.#log(
        "HTTP/3: so many clients are connected that some new ones get an earlier certificate, and some may be lost",
      );
    }
    this.#portsTogether = together;
    this.#attachedAt = performance.now();
  }

  /** Exact, for about a thousand connections. */
  #byId(): Steering {
    const ports = this.#releasedPorts();
    const ids = new Map<number, Place>();
    const fresh = this.#newest;
    for (const [start, { place, port }] of this.#routes) {
      ids.set(start, place);
      if (place !== fresh) ports[port] = CAUGHT;
    }
    return { ...this.#unknown(fresh), ids, ports };
  }

  /** For any number: who has a connection with an older engine gets another there, too, and so do some of the others. */
  #byPort(): Steering {
    const ports = this.#releasedPorts();
    const fresh = this.#newest;
    for (const { place, port } of this.#routes.values()) {
      if (place !== fresh || ports[port] === UNKNOWN) ports[port] = place;
    }
    return { ...this.#unknown(fresh), ids: null, ports };
  }

  #releasedPorts(): Uint8Array {
    const ports = new Uint8Array(PORTS).fill(UNKNOWN);
    for (const port of this.#released.keys()) ports[port] = CAUGHT;
    return ports;
  }

  #unknown(fresh: Place) {
    const catcher = this.#members.findIndex(isPlaceholder);
    return { fresh, catcher, catching: performance.now() < this.#catchingUntil };
  }

  /** False where the program would be too long. */
  #attachProgram(steering: Steering, portsTogether?: number): boolean {
    const program = reuseportProgram(steering, portsTogether);
    if (program === null) return false;
    try {
      attachReuseportProgram(this.#descriptor, program);
      return true;
    } catch (error) {
      if ((error as SystemCallError).code === "ENOMEM") return false;
      throw error;
    }
  }
}

function isPlaceholder(member: Engine | Socket | undefined): member is Socket {
  return member instanceof Socket;
}
