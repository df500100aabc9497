/**
 * Processes of one kind in numbered slots: keeps as many as it is told to, replaces what dies, and renews them while they
 * serve. What they are and what they are told is the manager's; here is when.
 */
import { now } from "../clock.ts";
import { MAX_DELAY } from "../option-checks.ts";
import { type Death, RestartPolicy } from "./restart-policy.ts";

/** A process, as far as a pool is concerned. */
export interface PoolChild {
  readonly pid: number;
  readonly alive: boolean;
  /** Resolves when the process has ended. */
  readonly exited: Promise<void>;
  kill(signal: "SIGKILL"): void;
}

/**
 * `starting`: has not said that it is ready · `ready`: waits for others to be, too · `serving` · `retiring`: finishes what
 * it has, and leaves.
 */
export type MemberState = "starting" | "ready" | "serving" | "retiring";

/** One process of a pool. */
export interface Member<C extends PoolChild> {
  readonly slot: Slot<C>;
  readonly child: C;
  readonly state: MemberState;
  /** Milliseconds since the Unix epoch. */
  readonly startedAt: number;
}

/** A place in a pool, and what is the same through all the processes that fill it. */
export interface Slot<C extends PoolChild> {
  /** From 1. */
  readonly id: number;
  /** Processes that were replaced since they had died. */
  readonly restarts: number;
  readonly serving: Member<C> | null;
}

export interface PoolSpec<C extends PoolChild> {
  /** Of one of them, for the log. */
  readonly name: string;
  /** What happens while none is left, for the log. */
  readonly outage: string;
  start(slotId: number, told: ChildTold): C;
  /** What a process has not done that is not ready, for the log: a sentence. */
  awaited(child: C): string;
  /** Asks a process to leave. @param timeout milliseconds that it may still take */
  leave(child: C, timeout: number): void;
  /**
   * Has a process that is ready take what comes, beside those that do; resolves when it does. Absent where `switched` is
   * all that it takes.
   */
  open?(child: C): Promise<unknown>;
  /** Those serve from now on, and these no more: in one go, so that no request finds neither. */
  switched(use: readonly C[], retire: readonly C[]): void;
  /** A process has ended, however it did. */
  ended(child: C, slotId: number): void;
  /** None is left, and a start has failed: nobody serves until one does not. */
  unserved(): void;
  log(line: string): void;
}

/** What a process tells its pool. */
export interface ChildTold {
  ready(): void;
  /** It will end, and this is why. */
  failed(reason: string): void;
  /** @param cause such as "exit code 1" or "signal SIGKILL" */
  exit(cause: string, wasKilled: boolean): void;
}

/** A process that did not become ready: the message says why. */
export class MemberError extends Error {
  override readonly name = "MemberError";
}

/** Milliseconds for a process to leave beyond what it was given; then it is killed. */
const LEAVE_GRACE = 3000;

/** Milliseconds after which the log says what is waited for. */
const TOLD_AWAITED_AFTER = 10_000;

/** Milliseconds until it is tried again to replace a process that has had enough: at first, and at most. */
const FIRST_RETRY = 1000;
const MAX_RETRY = 60_000;

type Purpose = "first" | "again" | "renewal";

interface OwnMember<C extends PoolChild> extends Member<C> {
  slot: OwnSlot<C>;
  child: C;
  state: MemberState;
  /**
   * `first`: whoever starts the pool waits for it · `again`: takes the place of one that died, or is one more: it is
   * started until it succeeds · `renewal`: serves when its renewal says so.
   */
  readonly purpose: Purpose;
  readonly ready: PromiseWithResolvers<void>;
  /** Why it will end, where it said so. */
  failure: string | null;
}

interface OwnSlot<C extends PoolChild> extends Slot<C> {
  readonly policy: RestartPolicy;
  restarts: number;
  serving: OwnMember<C> | null;
  /** Starting, or ready, to take the place of `serving`. */
  next: OwnMember<C> | null;
  restart: NodeJS.Timeout | null;
}

export class Pool<C extends PoolChild> {
  readonly #spec: PoolSpec<C>;
  /** By their ids. */
  #slots: OwnSlot<C>[] = [];
  /** Every process that has not ended. */
  readonly #members = new Set<OwnMember<C>>();
  /** Renewals and recyclings come one after another. */
  #turn: Promise<unknown> = Promise.resolve();
  #isStopping = false;
  /** Why nobody serves, as far as it was told. */
  #outage: string | null = null;

  /** Those that are to be replaced as soon as a new one serves. */
  readonly #recycled = new WeakSet<C>();

  constructor(spec: PoolSpec<C>) {
    this.#spec = spec;
  }

  /** Every process that has not ended. */
  get members(): readonly Member<C>[] {
    return [...this.#members];
  }

  get slots(): readonly Slot<C>[] {
    return this.#slots;
  }

  /** The one in which it serves. */
  slotOf(child: C): OwnSlot<C> | undefined {
    return this.#slots.find(({ serving }) => serving?.child === child);
  }

  /** Those that serve. */
  get serving(): readonly C[] {
    return this.#slots.flatMap(({ serving }) => serving?.child ?? []);
  }

  /** None is left, and a start has failed: see `unserved` of the spec. */
  get isOut(): boolean {
    return this.#outage !== null;
  }

  /**
   * Starts so many, beside those that there are; resolves when all of them serve.
   * @throws MemberError (as a rejection) for the first that does not become ready
   */
  async start(count: number): Promise<void> {
    if (this.#isStopping) throw new MemberError(`${this.#spec.name}s are being stopped`);
    const members = Array.from({ length: count }, () => this.#launch(this.#addSlot(), "first"));
    await Promise.all(members.map(({ ready }) => ready.promise));
  }

  /** Has so many slots from now on. Those that are too many retire. @param timeout as in `renew` */
  resize(count: number, timeout: number): void {
    if (this.#isStopping) return;
    while (this.#slots.length < count) this.#launch(this.#addSlot(), "again");
    const removed = this.#slots.splice(count);
    for (const slot of removed) this.#abandonNext(slot, timeout);
    const serving = removed.flatMap(({ serving }) => serving ?? []);
    if (serving.length > 0) this.#retire(serving, [], timeout);
  }

  /**
   * Puts a new process into every slot. Resolves when the new ones serve; the old ones may still finish what they have.
   * @param together all at once, or one after another
   * @param timeout milliseconds for a new one to become ready, and for an old one to finish
   * @throws MemberError (as a rejection) where a new one does not become ready: with `together` all the old ones are left
   * as they were, else those whose turn had not come
   */
  renew(together: boolean, timeout: number): Promise<void> {
    return this.#inTurn(async () => {
      const slots = [...this.#slots];
      if (together) {
        await this.#replace(slots, timeout);
        return;
      }
      for (const slot of slots) if (this.#slots.includes(slot)) await this.#replace([slot], timeout);
    });
  }

  /**
   * Puts a new process in the place of one that still serves, when its turn comes. Where the new one does not become ready the
   * old one stays, and it is tried again, later and later. Resolves when the old one serves no more, or at once where that is
   * under way.
   * @param reason for the log
   */
  async recycle(child: C, reason: string, timeout: number): Promise<void> {
    if (this.#recycled.has(child)) return;
    this.#recycled.add(child);
    let wait = FIRST_RETRY;
    const isOver = async () => {
      const slot = this.slotOf(child);
      // It was replaced meanwhile.
      if (slot === undefined || this.#isStopping) return true;
      if (wait === FIRST_RETRY) this.#spec.log(`${this.#nameOf(slot)} is replaced: ${reason}`);
      try {
        await this.#replace([slot], timeout);
        return true;
      } catch (error) {
        if (!(error instanceof MemberError)) throw error;
        if (this.#isStopping) return true;
        const next = `the next one starts in ${wait / 1000} s`;
        this.#spec.log(`${this.#nameOf(slot)} stays: ${error.message}; ${next}`);
        return false;
      }
    };
    while (!(await this.#inTurn(isOver))) {
      await unlessEnded(child, wait);
      wait = Math.min(MAX_RETRY, 2 * wait);
    }
  }

  /**
   * Has every process leave, and resolves when none is left.
   * @param timeout milliseconds that each may still take
   */
  async stop(timeout: number): Promise<void> {
    this.#isStopping = true;
    for (const slot of this.#slots) this.#cancelRestart(slot);
    const members = [...this.#members];
    // One that has not begun to serve has nothing to finish, and may not hear of it while it loads.
    const timeoutOf = ({ state }: OwnMember<C>) => (state === "starting" ? 0 : timeout);
    await Promise.all(members.map((member) => this.#leave(member, timeoutOf(member))));
  }

  /** Ends every process at once, for good. */
  kill(): void {
    this.#isStopping = true;
    for (const { child } of this.#members) child.kill("SIGKILL");
  }

  #addSlot(): OwnSlot<C> {
    const id = this.#slots.length + 1;
    const slot = { id, policy: new RestartPolicy(), restarts: 0, serving: null, next: null, restart: null };
    this.#slots.push(slot);
    return slot;
  }

  #launch(slot: OwnSlot<C>, purpose: Purpose): OwnMember<C> {
    this.#cancelRestart(slot);
    const child = this.#spec.start(slot.id, {
      ready: () => this.#ready(member),
      failed: (reason) => {
        member.failure = reason;
      },
      exit: (cause, wasKilled) => this.#exited(member, cause, wasKilled),
    });
    const member: OwnMember<C> = {
      slot,
      child,
      state: "starting",
      startedAt: now(),
      purpose,
      ready: Promise.withResolvers(),
      failure: null,
    };
    const late = setTimeout(() => this.#tellAwaited(member), TOLD_AWAITED_AFTER);
    // Whoever waits for it is told of a failure as well.
    member.ready.promise.catch(() => {}).finally(() => clearTimeout(late));
    slot.next = member;
    this.#members.add(member);
    return member;
  }

  #tellAwaited({ slot, child, state }: OwnMember<C>): void {
    if (state !== "starting") return;
    const awaited = this.#spec.awaited(child);
    this.#spec.log(
      `${this.#nameOf(slot)} (${child.pid}) is not ready after ${TOLD_AWAITED_AFTER / 1000} s: ${awaited}`,
    );
  }

  #ready(member: OwnMember<C>): void {
    if (member.state !== "starting") return;
    member.state = "ready";
    if (member.purpose === "renewal") member.ready.resolve();
    else if (this.#spec.open === undefined) this.#serve(member);
    else void this.#open([member], this.#spec.open).then(() => this.#serve(member));
  }

  #serve(member: OwnMember<C>): void {
    // It has ended, or was given up, while it was opened.
    if (member.slot.next !== member) return;
    this.#promote([member], 0);
    member.ready.resolve();
  }

  /** Resolves when all of them are open, or one has ended. */
  async #open(members: readonly OwnMember<C>[], open: (child: C) => Promise<unknown>): Promise<void> {
    const opened = Promise.all(members.map(({ child }) => open(child)));
    await Promise.race([opened, ...members.map(({ child }) => child.exited)]);
  }

  /** The new ones take the places of the old. @param timeout milliseconds for these to finish */
  #promote(members: readonly OwnMember<C>[], timeout: number): void {
    const old = members.flatMap(({ slot }) => slot.serving ?? []);
    for (const member of members) {
      member.state = "serving";
      member.slot.serving = member;
      member.slot.next = null;
    }
    if (this.#outage !== null)
      this.#spec.log(`${members.map(({ slot }) => this.#nameOf(slot)).join(", ")} serves again`);
    this.#outage = null;
    this.#retire(old, members, timeout);
  }

  #retire(old: readonly OwnMember<C>[], use: readonly OwnMember<C>[], timeout: number): void {
    for (const member of old) member.state = "retiring";
    this.#spec.switched(
      use.map(({ child }) => child),
      old.map(({ child }) => child),
    );
    for (const member of old) this.#giveTime(member, timeout);
  }

  /** One that retires leaves by itself, or is ended. */
  #giveTime(member: OwnMember<C>, timeout: number): void {
    const { slot, child } = member;
    const late = setTimeout(() => {
      this.#spec.log(
        `${this.#nameOf(slot)} (${child.pid}) has not finished within ${timeout} ms: it is ended`,
      );
      void this.#leave(member, 0);
    }, timeout);
    void child.exited.then(() => clearTimeout(late));
  }

  async #replace(slots: readonly OwnSlot<C>[], timeout: number): Promise<void> {
    // What was started now nobody would end.
    if (this.#isStopping) throw new MemberError(`${this.#spec.name}s are being stopped`);
    for (const slot of slots) this.#abandonNext(slot, timeout);
    const members = slots.map((slot) => this.#launch(slot, "renewal"));
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new MemberError(`a new ${this.#spec.name} is not ready within ${timeout} ms`)),
      timeout,
    );
    try {
      await Promise.race([Promise.all(members.map(({ ready }) => ready.promise)), late.promise]);
      this.#checkPresent(members);
      if (this.#spec.open !== undefined) {
        await Promise.race([this.#open(members, this.#spec.open), late.promise]);
        this.#checkPresent(members);
      }
      this.#promote(members, timeout);
    } catch (error) {
      for (const slot of slots) {
        this.#abandonNext(slot, timeout);
        // What had served has died meanwhile.
        if (slot.serving === null && this.#slots.includes(slot) && !this.#isStopping)
          this.#startAgain(slot, "", { lived: 0, wasKilled: false, hadServed: false });
      }
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** @throws MemberError where one has ended */
  #checkPresent(members: readonly OwnMember<C>[]): void {
    const lost = members.find((member) => member.slot.next !== member);
    if (lost === undefined) return;
    throw new MemberError(lost.failure ?? `${this.#nameOf(lost.slot)} ended as soon as it was ready`);
  }

  /** Gives up the process that was to take the slot. @param timeout milliseconds for it to finish, where it was opened */
  #abandonNext(slot: OwnSlot<C>, timeout: number): void {
    this.#cancelRestart(slot);
    const { next } = slot;
    slot.next = null;
    if (next === null) return;
    if (next.state === "ready" && this.#spec.open !== undefined) void this.#leave(next, timeout);
    else next.child.kill("SIGKILL");
  }

  #exited(member: OwnMember<C>, cause: string, wasKilled: boolean): void {
    const { slot, child, state, startedAt } = member;
    this.#members.delete(member);
    this.#spec.ended(child, slot.id);
    const end = { lived: now() - startedAt, wasKilled };
    if (state === "starting" || state === "ready") {
      const reason = member.failure ?? `${this.#nameOf(slot)} ended (${cause}) before it was ready`;
      member.ready.reject(new MemberError(reason));
      if (slot.next !== member) return;
      slot.next = null;
      if (member.purpose !== "again" || this.#isStopping) return;
      this.#startAgain(slot, reason, { ...end, hadServed: false });
      return;
    }
    if (slot.serving !== member) return;
    slot.serving = null;
    if (this.#isStopping || !this.#slots.includes(slot)) return;
    slot.restarts++;
    if (slot.next === null)
      this.#startAgain(slot, `${this.#nameOf(slot)} ended (${cause})`, { ...end, hadServed: true });
    else this.#spec.log(`${this.#nameOf(slot)} ended (${cause}) while it was being replaced`);
  }

  #startAgain(slot: OwnSlot<C>, reason: string, end: Death): void {
    const delay = slot.policy.delayAfter(end);
    // One that was killed says nothing of the next.
    const noneLeft = !end.hadServed && !end.wasKilled && this.serving.length === 0;
    // What is told once of an outage is not told at each attempt.
    if (reason !== "" && (!noneLeft || this.#outage !== reason)) {
      this.#spec.log(`${reason}; a new one starts ${delay === 0 ? "at once" : `in ${delay} ms`}`);
    }
    if (noneLeft) {
      if (this.#outage === null) {
        this.#spec.log(`no ${this.#spec.name} is left: ${this.#spec.outage} until one has started`);
        this.#spec.unserved();
      }
      this.#outage = reason;
    }
    slot.restart = setTimeout(() => {
      slot.restart = null;
      this.#launch(slot, "again");
    }, delay);
  }

  #cancelRestart(slot: OwnSlot<C>): void {
    if (slot.restart !== null) clearTimeout(slot.restart);
    slot.restart = null;
  }

  async #leave({ slot, child }: OwnMember<C>, timeout: number): Promise<void> {
    this.#spec.leave(child, timeout);
    const late = Math.min(MAX_DELAY, timeout + LEAVE_GRACE);
    const timer = setTimeout(() => {
      this.#spec.log(`${this.#nameOf(slot)} (${child.pid}) has not left in time: it is killed`);
      child.kill("SIGKILL");
    }, late);
    await child.exited;
    clearTimeout(timer);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    // The next one's turn comes whatever became of this.
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #nameOf(slot: Slot<C>): string {
    return `${this.#spec.name} ${slot.id}`;
  }
}

/** Resolves after so many milliseconds, or when the process has ended. */
async function unlessEnded({ exited }: PoolChild, wait: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, wait);
  await Promise.race([promise, exited]);
  clearTimeout(timer);
}
