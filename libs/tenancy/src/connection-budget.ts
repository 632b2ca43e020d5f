import type pg from 'pg';
import { BudgetExhausted, PoolEnded, ServerUnavailable } from './budget-errors.ts';
import { endClient, isHopeless, type Member, type Slot, type Waiter } from './budget-slot.ts';
import { CircuitBreaker, type Attempt } from './circuit-breaker.ts';
import { Demand } from './demand.ts';
import { ConnectTimedOut, failureOf } from './failure.ts';

export interface BudgetOptions {
  /** Connections at most, over all tenants of the server. */
  limit: number;
  /** Connections that may be under way (closing or opening) at once: the rest of the server's time is for queries. */
  maxChanging?: number;
  /**
   * How long a request waits before a connection in use elsewhere is taken from its tenant when it comes back. Changing
   * hands costs an open of some milliseconds; without patience a full house would do nothing else.
   */
  patienceMs?: number;
  /** Of the server. */
  breaker?: CircuitBreaker;
}

/** How long and for whom to wait. */
export interface WaitOptions {
  /** At most this many milliseconds. */
  timeoutMs: number;
  signal?: AbortSignal;
}

/**
 * A hard cap on the connections of one Postgres server over all its tenants' pools. Free room is used first, then the
 * least valuable idle connection of another tenant is closed and its place taken; then requests wait, tenants in
 * turn and each tenant's in order of arrival, until their deadline. While the server's breaker is open nothing is
 * opened, and who has no connection to wait for is told so at once.
 */
export class ConnectionBudget {
  #limit: number;
  readonly #maxChanging: number;
  readonly #patienceMs: number;
  readonly #breaker: CircuitBreaker;
  /** All idle connections, least recently used first. */
  readonly #idle = new Set<Slot>();
  /** The members with waiters, whose turn is next first. */
  readonly #waiting = new Set<Member>();
  #total = 0;
  /** Of those, the ones being closed to make none in their place. */
  #leaving = 0;
  #changing = 0;

  constructor(options: BudgetOptions) {
    this.#limit = options.limit;
    this.#maxChanging = options.maxChanging ?? 8;
    this.#patienceMs = options.patienceMs ?? 20;
    this.#breaker = options.breaker ?? new CircuitBreaker();
  }

  get limit(): number {
    return this.#limit;
  }

  /** More serves who waits; fewer closes idle connections at once, those in use when they come back. */
  set limit(limit: number) {
    this.#limit = limit;
    while (this.#total - this.#leaving > limit) {
      const victim = this.#leastValuable();
      if (victim === undefined) break;
      void this.#discard(victim);
    }
    this.#pump();
  }

  /** Connections now: `open` counts those being opened or closed too and never exceeds the limit. */
  status(): { limit: number; open: number; idle: number; waiting: number } {
    let waiting = 0;
    for (const member of this.#waiting) waiting += member.waiters.length;
    return { limit: this.#limit, open: this.#total, idle: this.#idle.size, waiting };
  }

  /** Idle connections that nobody used for this many milliseconds. */
  idleFor(ms: number): number {
    const since = performance.now() - ms;
    let count = 0;
    for (const slot of this.#idle) {
      if (slot.idleSince > since) break;
      count += 1;
    }
    return count;
  }

  /** An idle connection of this member at once, if there is one. */
  takeIdle(member: Member): Slot | undefined {
    const slot = member.idle.pop();
    if (slot === undefined) return undefined;
    this.#idle.delete(slot);
    const now = performance.now();
    member.demand.note(now);
    slot.demand.note(now);
    slot.inUse = true;
    return slot;
  }

  /**
   * The connection that was idle longest, whoever's, for a sign of life of the server; goes back by `returnBorrowed`. No
   * connection is opened for it and none kept open by it.
   */
  borrowIdle(): Slot | undefined {
    const [slot] = this.#idle;
    if (slot === undefined) return undefined;
    this.#takeAside(slot);
    slot.inUse = true;
    return slot;
  }

  returnBorrowed(slot: Slot, broken: boolean): void {
    const { idleSince } = slot;
    this.giveBack(slot, broken);
    if (!slot.inUse) slot.idleSince = idleSince;
  }

  /**
   * A connection of this member. Rejects with BudgetExhausted at the deadline, with ServerUnavailable while the breaker is
   * open, or with the reason it cannot be opened.
   */
  take(member: Member, { timeoutMs, signal }: WaitOptions): Promise<Slot> {
    if (member.ended) return Promise.reject(new PoolEnded());
    if (signal?.aborted) return Promise.reject(signal.reason as Error);
    const idle = this.takeIdle(member);
    if (idle !== undefined) return Promise.resolve(idle);
    if (!this.#breaker.allows() && isHopeless(member)) return Promise.reject(this.#unavailable());
    member.demand.note(performance.now());
    return new Promise((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
      };
      const leave = (error: Error): void => {
        this.#leave(member, waiter);
        waiter.reject(error);
      };
      const onAbort = (): void => leave(signal!.reason as Error);
      const waiter: Waiter = {
        since: performance.now(),
        resolve: (slot) => {
          done();
          slot.inUse = true;
          slot.demand.note(performance.now());
          resolve(slot);
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
      const onDeadline = (): void => {
        const opening = member.waiters.indexOf(waiter) < member.opening;
        leave(opening ? new ConnectTimedOut(timeoutMs) : new BudgetExhausted(timeoutMs));
      };
      const timer = setTimeout(onDeadline, timeoutMs);
      signal?.addEventListener('abort', onAbort, { once: true });
      member.waiters.push(waiter);
      this.#waiting.add(member);
      this.#pump();
    });
  }

  /** Gives a connection back; `broken` says it must not be used again. */
  giveBack(slot: Slot, broken: boolean): void {
    if (broken || this.#mustGo(slot)) {
      void this.#discard(slot);
      return;
    }
    const rival = this.#rivalOf(slot.member);
    if (rival !== undefined) {
      this.#change(rival, slot);
      return;
    }
    this.#offer(slot);
  }

  /** Closes connections that nobody used for this many milliseconds. */
  closeIdle(olderThanMs: number): void {
    const limit = performance.now() - olderThanMs;
    for (const slot of this.#idle) {
      if (slot.idleSince <= limit) void this.#discard(slot);
    }
  }

  /** Closes this member's idle connections. */
  closeIdleOf(member: Member): void {
    while (member.idle.length > 0) void this.#discard(member.idle.at(-1)!);
  }

  /** Refuses further use of a member; resolves when its last connection is gone. Those in use may finish. */
  end(member: Member): Promise<void> {
    member.ended = true;
    this.#waiting.delete(member);
    for (const waiter of member.waiters.splice(0)) waiter.reject(new PoolEnded());
    const drained = new Promise<void>((resolve) => {
      member.drained = resolve;
    });
    this.closeIdleOf(member);
    if (member.size === 0) member.drained?.();
    return drained;
  }

  /** To the first waiter of its own tenant, or aside. */
  #offer(slot: Slot): void {
    const { member } = slot;
    slot.idleSince = performance.now();
    const waiter = member.waiters.shift();
    if (waiter !== undefined) {
      if (member.waiters.length === 0) this.#waiting.delete(member);
      waiter.resolve(slot);
      return;
    }
    slot.inUse = false;
    member.idle.push(slot);
    this.#idle.add(slot);
    this.#pump();
  }

  /** Starts whatever opening and stealing the waiting requests call for. */
  #pump(): void {
    while (this.#waiting.size > 0 && this.#changing < this.#maxChanging && this.#breaker.allows()) {
      const member = this.#next();
      if (member === undefined) return;
      if (this.#total < this.#limit) {
        this.#change(member, undefined);
      } else {
        // A member that waits has nothing idle, so it is another's.
        const victim = this.#leastValuable();
        if (victim === undefined) return;
        this.#change(member, victim);
      }
    }
  }

  /**
   * The idle connection that will be missed least. A tenant's only connection is worth as much as the tenant asks; a further
   * one as much as that very connection was needed. Of equals the one idle longest.
   */
  #leastValuable(): Slot | undefined {
    const now = performance.now();
    let least: Slot | undefined;
    let leastValue = Number.POSITIVE_INFINITY;
    for (const slot of this.#idle) {
      const value = (slot.member.size === 1 ? slot.member.demand : slot.demand).at(now);
      if (value < leastValue) [least, leastValue] = [slot, value];
    }
    return least;
  }

  /** Whose turn it is: wants a connection that is not on its way yet, and may have one more. */
  #next(except?: Member): Member | undefined {
    for (const member of this.#waiting) {
      if (member !== except && member.waiters.length > member.opening && member.size < member.max) return member;
    }
    return undefined;
  }

  /** A member that has waited long enough to get a connection another tenant still has work for. */
  #rivalOf(member: Member): Member | undefined {
    if (this.#waiting.size === 0 || this.#total < this.#limit || this.#changing >= this.#maxChanging) return undefined;
    if (!this.#breaker.allows()) return undefined;
    const rival = this.#next(member);
    const first = rival?.waiters[0];
    return first !== undefined && performance.now() - first.since >= this.#patienceMs ? rival : undefined;
  }

  /** Opens a connection for `member`, in free room or in the place of `victim`, which is closed first. */
  #change(member: Member, victim: Slot | undefined): void {
    this.#changing += 1;
    member.size += 1;
    member.opening += 1;
    // To the end of the line: the next turn is another tenant's.
    this.#waiting.delete(member);
    this.#waiting.add(member);
    if (victim === undefined) this.#total += 1;
    else this.#retire(victim);
    void this.#carryOut(member, victim, this.#breaker.begin()).finally(() => this.#pump());
  }

  async #carryOut(member: Member, victim: Slot | undefined, attempt: Attempt): Promise<void> {
    let slot: Slot | undefined;
    const began = performance.now();
    if (victim !== undefined) {
      await endClient(victim.client);
      this.#gone(victim.member);
    }
    // Whoever asked may have been served or have given up while the place was being cleared.
    if (member.waiters.length > 0 && this.#total <= this.#limit) {
      try {
        slot = this.#adopt(await member.connect(), member);
        attempt.succeeded();
      } catch (error) {
        this.#tell(member, began, error as Error, attempt);
      }
    } else {
      attempt.dropped();
    }
    this.#changing -= 1;
    member.opening -= 1;
    if (member.waiters.length === 0) this.#waiting.delete(member);
    if (slot === undefined) {
      this.#total -= 1;
      this.#shrink(member);
    } else {
      // Not by way of `giveBack`: a connection just opened for someone is not taken away unused.
      if (this.#mustGo(slot)) void this.#discard(slot);
      else this.#offer(slot);
    }
  }

  /** An open failed: those who waited for it are told. */
  #tell(member: Member, began: number, error: Error, attempt: Attempt): void {
    const failure = failureOf(error, 'connect');
    if (failure?.breaker) attempt.failed();
    // Refused by a server that is there and well.
    else if (failure !== undefined) attempt.succeeded();
    else attempt.dropped();
    const told = member.waiters.filter(({ since }) => since <= began);
    // What is the server's fault may pass: the others' own tries tell. What is the tenant's fault is everybody's answer.
    for (const waiter of failure?.breaker ? told.slice(0, 1) : told) {
      this.#leave(member, waiter);
      waiter.reject(error);
    }
    this.#turnAway();
  }

  /** Once the breaker is open: all who could get nothing but a new connection. */
  #turnAway(): void {
    if (this.#breaker.state !== 'open') return;
    for (const other of [...this.#waiting].filter(isHopeless)) {
      this.#waiting.delete(other);
      for (const waiter of other.waiters.splice(0)) waiter.reject(this.#unavailable());
    }
  }

  #unavailable(): ServerUnavailable {
    return new ServerUnavailable(this.#breaker.retryAfterMs());
  }

  #leave(member: Member, waiter: Waiter): void {
    member.waiters.splice(member.waiters.indexOf(waiter), 1);
    if (member.waiters.length === 0) this.#waiting.delete(member);
  }

  #mustGo(slot: Slot): boolean {
    return slot.dead || slot.member.ended || this.#total - this.#leaving > this.#limit;
  }

  #adopt(client: pg.PoolClient, member: Member): Slot {
    const slot: Slot = { client, member, demand: new Demand(), idleSince: 0, dead: false, inUse: true };
    const onLost = (error: Error): void => {
      if (slot.dead) return;
      slot.dead = true;
      if (slot.inUse) return;
      member.lost(error);
      void this.#discard(slot);
    };
    client.on('error', onLost);
    client.on('end', () => onLost(new Error('the connection ended')));
    return slot;
  }

  async #discard(slot: Slot): Promise<void> {
    this.#retire(slot);
    this.#changing += 1;
    this.#leaving += 1;
    await endClient(slot.client);
    this.#changing -= 1;
    this.#leaving -= 1;
    this.#total -= 1;
    this.#gone(slot.member);
    this.#turnAway();
    this.#pump();
  }

  /** It will be closed. */
  #retire(slot: Slot): void {
    slot.dead = true;
    slot.member.closing += 1;
    this.#takeAside(slot);
  }

  #gone(member: Member): void {
    member.closing -= 1;
    this.#shrink(member);
  }

  #takeAside(slot: Slot): void {
    if (!this.#idle.delete(slot)) return;
    const { idle } = slot.member;
    idle.splice(idle.indexOf(slot), 1);
  }

  #shrink(member: Member): void {
    member.size -= 1;
    if (member.ended && member.size === 0) member.drained?.();
  }
}
