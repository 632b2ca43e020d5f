import { EventEmitter } from 'node:events';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import type pg from 'pg';
import type { Slot } from '../src/budget-slot.ts';
import { BudgetedPool } from '../src/budgeted-pool.ts';
import { CircuitBreaker } from '../src/circuit-breaker.ts';
import { ConnectionBudget } from '../src/connection-budget.ts';

const TENANTS = 4;
const POOL_MAX = 3;
/** No request of a run that ends gets near it. */
const LONG_MS = 60_000;

type Step =
  | { do: 'take'; tenant: number }
  | { do: 'abort' | 'giveBack' | 'giveBackBroken' | 'lose'; which: number }
  | { do: 'opened' | 'refused' | 'unreachable' | 'closed'; which: number }
  | { do: 'end'; tenant: number }
  | { do: 'limit'; limit: number }
  | { do: 'closeIdle' | 'probe' };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.record({ do: fc.constant('take' as const), tenant: fc.nat(TENANTS - 1) }) },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constantFrom('abort' as const, 'giveBack' as const, 'giveBackBroken' as const, 'lose' as const),
        which: fc.nat(20),
      }),
    },
    {
      weight: 8,
      arbitrary: fc.record({
        do: fc.constantFrom('opened' as const, 'refused' as const, 'unreachable' as const, 'unreachable' as const),
        which: fc.nat(20),
      }),
    },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('closed' as const), which: fc.nat(20) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('end' as const), tenant: fc.nat(TENANTS - 1) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('limit' as const), limit: fc.integer({ min: 1, max: 6 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('closeIdle' as const, 'probe' as const) }) },
  ),
  { minLength: 5, maxLength: 80 },
);

/** A connection that says when it is closed, and closes when the run says so. */
class FakeClient extends EventEmitter {
  readonly ending = Promise.withResolvers<void>();
  readonly connection = { stream: { destroy: () => undefined } };
  readonly world: World;
  closing = false;

  constructor(world: World) {
    super();
    this.world = world;
    world.open += 1;
  }

  async end(): Promise<void> {
    if (!this.closing) this.world.toClose.push(this);
    this.closing = true;
    await this.ending.promise;
    this.world.open -= 1;
  }
}

interface Asked {
  tenant: number;
  state: 'waiting' | 'granted' | 'rejected';
  slot?: Slot;
  given: AbortController;
  /** When it was granted, by the count of grants. */
  at?: number;
}

/** A budget over an opener and a closer that do only what the run tells them to. */
class World {
  open = 0;
  grants = 0;
  readonly toOpen: PromiseWithResolvers<pg.PoolClient>[] = [];
  readonly toClose: FakeClient[] = [];
  readonly asked: Asked[] = [];
  /** By tenant, in the order of arrival. */
  readonly served: Asked[][] = Array.from({ length: TENANTS }, () => []);
  readonly budget: ConnectionBudget;
  readonly pools: BudgetedPool[];
  highest: number;

  constructor(limit: number, threshold: number, openMs: number) {
    this.highest = limit;
    const breaker = new CircuitBreaker({ threshold, baseMs: openMs, maxMs: openMs });
    this.budget = new ConnectionBudget({ limit, patienceMs: 0, maxChanging: 3, breaker });
    const connect = (): Promise<pg.PoolClient> => {
      const opening = Promise.withResolvers<pg.PoolClient>();
      this.toOpen.push(opening);
      return opening.promise;
    };
    this.pools = Array.from({ length: TENANTS }, () => {
      const options = { budget: this.budget, connect, max: POOL_MAX, waitMs: LONG_MS, checkAfterMs: LONG_MS };
      return new BudgetedPool(options).on('error', () => undefined);
    });
  }

  take(tenant: number): void {
    const asked: Asked = { tenant, state: 'waiting', given: new AbortController() };
    this.asked.push(asked);
    this.pools[tenant]!.take({ timeoutMs: LONG_MS, signal: asked.given.signal }).then(
      (slot) => {
        Object.assign(asked, { state: 'granted', slot, at: (this.grants += 1) });
        this.served[tenant]!.push(asked);
      },
      () => (asked.state = 'rejected'),
    );
  }

  giveBack(asked: Asked, broken: boolean): void {
    const { slot } = asked;
    delete asked.slot;
    this.pools[asked.tenant]!.giveBack(slot!, broken);
  }

  async run(step: Step): Promise<void> {
    const pick = <T>(list: T[], which: number): T | undefined => list[which % list.length];
    const held = this.asked.filter(({ slot }) => slot !== undefined);
    const waiting = this.asked.filter(({ state }) => state === 'waiting');
    switch (step.do) {
      case 'take':
        this.take(step.tenant);
        break;
      case 'abort':
        pick(waiting, step.which)?.given.abort(new Error('gone'));
        break;
      case 'giveBack':
      case 'giveBackBroken': {
        const asked = pick(held, step.which);
        if (asked !== undefined) this.giveBack(asked, step.do === 'giveBackBroken');
        break;
      }
      case 'lose':
        (pick(held, step.which)?.slot?.client as unknown as FakeClient | undefined)?.emit('end');
        break;
      case 'opened':
      case 'refused':
      case 'unreachable': {
        const [opening] = this.toOpen.splice(step.which % Math.max(1, this.toOpen.length), 1);
        if (step.do === 'opened') opening?.resolve(new FakeClient(this) as unknown as pg.PoolClient);
        else opening?.reject(Object.assign(new Error(), { code: step.do === 'refused' ? '28P01' : 'ECONNREFUSED' }));
        break;
      }
      case 'closed':
        this.toClose.splice(step.which % Math.max(1, this.toClose.length), 1)[0]?.ending.resolve();
        break;
      case 'end':
        void this.pools[step.tenant]!.end();
        break;
      case 'limit':
        this.budget.limit = step.limit;
        this.highest = Math.max(this.highest, step.limit);
        break;
      case 'closeIdle':
        this.budget.closeIdle(-1);
        break;
      case 'probe': {
        const slot = this.budget.borrowIdle();
        if (slot !== undefined) this.budget.returnBorrowed(slot, false);
      }
    }
    await settle();
  }

  /** Everything that is under way happens, everything held is given back, until nothing moves. */
  async quiesce(): Promise<void> {
    for (let round = 0; round < 1_000; round += 1) {
      const held = this.asked.filter(({ slot }) => slot !== undefined);
      if (this.toOpen.length + this.toClose.length + held.length === 0) return;
      for (const opening of this.toOpen.splice(0)) opening.resolve(new FakeClient(this) as unknown as pg.PoolClient);
      for (const client of this.toClose.splice(0)) client.ending.resolve();
      for (const asked of held) this.giveBack(asked, false);
      await settle();
    }
    throw new Error('it does not come to rest');
  }
}

/** Until all that follows from a step has happened; the fakes wait for nobody. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

const worlds = fc.record({
  limit: fc.integer({ min: 1, max: 5 }),
  threshold: fc.constantFrom(2, 1_000),
  // Once open, the breaker lets the next one try, or nobody until the end.
  openMs: fc.constantFrom(0.01, LONG_MS),
  plan: steps,
});

test('whatever happens: never over the limit, nobody forgotten, no place lost, first come first served', async () => {
  await fc.assert(
    fc.asyncProperty(worlds, async ({ limit, threshold, openMs, plan }) => {
      const world = new World(limit, threshold, openMs);
      for (const step of plan) {
        await world.run(step);
        const { open, idle, waiting } = world.budget.status();
        expect(open).toBeLessThanOrEqual(world.highest);
        expect(world.open).toBeLessThanOrEqual(open);
        expect(idle).toBeLessThanOrEqual(open);
        expect(waiting).toBe(world.asked.filter(({ state }) => state === 'waiting').length);
        for (const pool of world.pools) expect(pool.totalCount).toBeLessThanOrEqual(POOL_MAX);
      }
      await world.quiesce();
      expect(world.asked.filter(({ state }) => state === 'waiting')).toEqual([]);
      // Everything open is idle, and closing it leaves nothing: no place was lost on the way.
      expect(world.budget.status().open).toBe(world.budget.status().idle);
      const ended = world.pools.map((pool) => pool.end());
      await world.quiesce();
      await Promise.all(ended);
      expect(world.budget.status()).toMatchObject({ open: 0, idle: 0, waiting: 0 });
      expect(world.open).toBe(0);
      for (const served of world.served) {
        const arrival = served.map((asked) => world.asked.indexOf(asked));
        expect(arrival).toEqual(arrival.toSorted((a, b) => a - b));
      }
    }),
    { numRuns: 300 },
  );
}, 120_000);

test('with everybody in the line, no tenant is served twice more often than another', async () => {
  const loads = fc.record({
    limit: fc.integer({ min: 1, max: 5 }),
    // The first is the noisy one.
    counts: fc.tuple(fc.integer({ min: 20, max: 60 }), ...[0, 0, 0].map(() => fc.integer({ min: 1, max: 8 }))),
  });
  await fc.assert(
    fc.asyncProperty(loads, async ({ limit, counts }) => {
      const world = new World(limit, 1_000, LONG_MS);
      counts.forEach((count, tenant) => {
        for (let n = 0; n < count; n += 1) world.take(tenant);
      });
      await settle();
      await world.quiesce();
      // While a quiet one waits, the noisy one gets at most a turn for each of its turns, and what it held before.
      for (const [tenant, served] of world.served.entries()) {
        expect(served).toHaveLength(counts[tenant]!);
        if (tenant === 0) continue;
        const last = served.at(-1)!.at!;
        const noisy = world.served[0]!.filter(({ at }) => at! < last).length;
        expect(noisy).toBeLessThanOrEqual(2 * served.length + 2 * limit);
      }
    }),
    { numRuns: 60 },
  );
}, 60_000);

test('once the breaker is open, who has nothing of its own to wait for is turned away at once', async () => {
  const world = new World(5, 3, LONG_MS);
  // One of the second tenant works; its next request may wait for it.
  world.take(1);
  await world.run({ do: 'opened', which: 0 });
  for (const tenant of [0, 0, 0, 0, 0, 2, 2, 1]) world.take(tenant);
  for (let n = 0; n < 3; n += 1) await world.run({ do: 'unreachable', which: 0 });
  const states = (tenant: number): string[] =>
    world.asked.filter((one) => one.tenant === tenant).map((one) => one.state);
  expect(states(0)).toEqual(Array(5).fill('rejected'));
  expect(states(2)).toEqual(Array(2).fill('rejected'));
  const underWay = world.toOpen.length;
  await world.run({ do: 'giveBack', which: 0 });
  expect(states(1)).toEqual(['granted', 'granted']);
  expect(world.toOpen).toHaveLength(underWay);
});
