/** A client's way to a server, of which a test can change what clients' networks change: the address, and whether there is one. */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";

async function bound(address = "127.0.0.1"): Promise<Socket> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, address, resolve));
  return socket;
}

export class UdpRelay implements Disposable {
  /** Where the client connects to. */
  readonly port: number;
  readonly #front: Socket;
  readonly #server: number;
  #back: Socket;
  #client: RemoteInfo | null = null;
  #isGone = false;
  /** Datagrams of the client that got through. */
  passed = 0;
  /** Datagrams of the client that get through. */
  mayPass = Number.POSITIVE_INFINITY;
  /** Those of the server that wait; null where none has to. */
  #held: Uint8Array[] | null = null;

  private constructor(front: Socket, back: Socket, server: number) {
    this.#front = front;
    this.#back = back;
    this.#server = server;
    this.port = front.address().port;
    this.#listen(back);
    front.on("message", (datagram, from) => {
      this.#client = from;
      if (!this.#isGone && this.passed++ < this.mayPass) this.#back.send(datagram, this.#server, "127.0.0.1");
    });
    // The client closes its socket while the server still has something to say to it.
    front.on("error", () => {});
  }

  static async to(server: number): Promise<UdpRelay> {
    return new UdpRelay(await bound(), await bound(), server);
  }

  /** The port that the server sees. */
  get address(): number {
    return this.#back.address().port;
  }

  /** The client goes on from another port, and from another address of this machine where one is given. */
  async move(address?: string): Promise<void> {
    const before = this.#back;
    this.#back = await bound(address);
    this.#listen(this.#back);
    before.close();
  }

  /** From now on nothing of the server's comes to the client, until `release`. */
  hold(): void {
    this.#held ??= [];
  }

  /** Datagrams that wait. */
  get waiting(): number {
    return this.#held?.length ?? 0;
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = null;
    for (const datagram of held) this.#toClient(datagram);
  }

  /** The client vanishes: nothing listens any more where it was, and it sends no goodbye. */
  vanish(): void {
    this.#isGone = true;
    this.#back.close();
  }

  [Symbol.dispose](): void {
    if (!this.#isGone) this.vanish();
    this.#front.close();
  }

  #listen(back: Socket): void {
    back.on("message", (datagram) => {
      if (this.#held === null) this.#toClient(datagram);
      else this.#held.push(datagram);
    });
    // What comes back of a server that has gone is its client's to notice.
    back.on("error", () => {});
  }

  #toClient(datagram: Uint8Array): void {
    if (this.#client !== null && !this.#isGone)
      this.#front.send(datagram, this.#client.port, this.#client.address);
  }
}
