import { describe, expect, test } from '@jest/globals';
import { best, weigh, type Candidate } from '../src/domain/placement.ts';
import { planRebalance, type Holder } from '../src/domain/rebalance.ts';
import fc from 'fast-check';

const server = (name: string, more: Partial<Candidate> = {}): Candidate => ({
  serverId: name,
  name,
  region: 'eu',
  draining: false,
  maxTenants: 10,
  tenants: 0,
  budget: 80,
  ...more,
});
const sample = (sizeBytes: number, sessions: number, active: number, error = '') => {
  return { sample: { error, sizeBytes, sessions, active } };
};

describe('placement', () => {
  test('keeps data in its region, and says of every other server why it was passed by', () => {
    const verdicts = weigh(
      [
        server('away', sample(0, 0, 0, 'the server does not answer')),
        server('drained', { draining: true }),
        server('full', { tenants: 10 }),
        server('overseas', { region: 'us' }),
        server('roomy', { tenants: 3, maxTenants: 100 }),
        server('tight', { tenants: 1 }),
      ],
      'eu',
    );
    expect(verdicts.map(({ server: name, refused }) => [name, refused])).toEqual([
      ['away', 'unreachable'],
      ['drained', 'draining'],
      ['full', 'full'],
      ['overseas', 'other_region'],
      ['roomy', undefined],
      ['tight', undefined],
    ]);
    expect(best(verdicts)!.server).toBe('roomy');
    expect(best(weigh([server('overseas', { region: 'us' })], 'eu'))).toBeUndefined();
  });

  test('weighs bytes, connections and load beside the number of tenants', () => {
    const equal = { tenants: 2 };
    const by = (one: Partial<Candidate>, other: Partial<Candidate>): string =>
      best(weigh([server('one', { ...equal, ...one }), server('other', { ...equal, ...other })], 'eu'))!.server;
    expect(by(sample(9e9, 1, 1), sample(1e9, 1, 1))).toBe('other');
    expect(by(sample(1e9, 70, 1), sample(1e9, 10, 1))).toBe('other');
    expect(by(sample(1e9, 10, 10), sample(1e9, 10, 1))).toBe('other');
    // The number counts most, and what is unknown of one is weighed of none.
    expect(by({ tenants: 9, ...sample(1e9, 0, 0) }, sample(1e9, 20, 2))).toBe('other');
    const [known, unknown] = weigh([server('known', sample(9e9, 70, 9)), server('unknown')], 'eu');
    expect([known!.parts, unknown!.parts]).toEqual([{ tenants: 0 }, { tenants: 0 }]);
  });

  test('never leaves the region, never takes a server that refuses, and takes the least score (any servers)', () => {
    const servers = fc.array(
      fc.record({
        region: fc.constantFrom('eu', 'us'),
        draining: fc.boolean(),
        maxTenants: fc.integer({ min: 1, max: 50 }),
        tenants: fc.nat(60),
        budget: fc.integer({ min: 1, max: 100 }),
        sample: fc.option(
          fc.record({
            error: fc.constantFrom('', 'the server does not answer'),
            sizeBytes: fc.nat(),
            sessions: fc.nat(300),
            active: fc.nat(300),
          }),
          { nil: undefined },
        ),
      }),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(servers, (many) => {
        const all = many.map((one, index) => server(`s${index}`, one));
        const verdicts = weigh(all, 'eu');
        const taken = best(verdicts);
        for (const { score, parts } of verdicts) {
          for (const part of [score, ...Object.values(parts)]) expect(part).toBeGreaterThanOrEqual(0);
          for (const part of [score, ...Object.values(parts)]) expect(part).toBeLessThanOrEqual(1 + 1e-9);
        }
        const fit = verdicts.filter(({ refused }) => refused === undefined);
        expect(taken === undefined).toBe(fit.length === 0);
        if (taken === undefined) return;
        const where = all.find(({ name }) => name === taken.server)!;
        expect(where).toMatchObject({ region: 'eu', draining: false });
        expect(where.tenants).toBeLessThan(where.maxTenants);
        expect(taken.score).toBe(Math.min(...fit.map(({ score }) => score)));
      }),
    );
  });
});

describe('rebalancing', () => {
  const tenants = (prefix: string, count: number) =>
    Array.from({ length: count }, (_, n) => ({
      orgId: `${prefix}${n}`,
      schema: 'results',
      database: `${prefix}${n}`,
      sizeBytes: n,
    }));
  const holder = (name: string, count: number, more: Partial<Holder> = {}): Holder => ({
    name,
    region: 'eu',
    draining: false,
    maxTenants: 100,
    tenants: tenants(name, count),
    ...more,
  });

  test('empties drained servers first, then evens out with the smallest databases, within each region', () => {
    const { moves, stuck } = planRebalance(
      [holder('a', 60), holder('b', 0), holder('c', 3, { draining: true }), holder('d', 0, { region: 'us' })],
      1_000,
    );
    expect(stuck).toEqual([]);
    expect(moves.slice(0, 3)).toMatchObject([
      { from: 'c', to: 'b', reason: 'draining' },
      { from: 'c', to: 'b', reason: 'draining' },
      { from: 'c', to: 'b', reason: 'draining' },
    ]);
    const evening = moves.slice(3);
    expect(new Set(evening.map(({ from, to, reason }) => `${from} ${to} ${reason}`))).toEqual(
      new Set(['a b even_out']),
    );
    expect(evening.map(({ tenant }) => tenant.sizeBytes)).toEqual(evening.map((_, n) => n));
    expect(60 - evening.length - (3 + evening.length)).toBeLessThanOrEqual(5);
  });

  test('names what has nowhere to go, and plans nothing where all is even or only one server stands', () => {
    expect(planRebalance([holder('a', 2, { draining: true }), holder('b', 1, { maxTenants: 1 })], 10)).toMatchObject({
      moves: [],
      stuck: [{ database: 'a0' }, { database: 'a1' }],
    });
    expect(planRebalance([holder('a', 50), holder('b', 48)], 10)).toEqual({ moves: [], stuck: [] });
    expect(planRebalance([holder('a', 90)], 10)).toEqual({ moves: [], stuck: [] });
  });

  test('never overfills, never leaves a region, moves no tenant twice and never makes it worse (any fleet)', () => {
    const fleet = fc.array(
      fc.record({
        region: fc.constantFrom('eu', 'us'),
        draining: fc.boolean(),
        maxTenants: fc.integer({ min: 1, max: 30 }),
        count: fc.nat(30),
      }),
      { maxLength: 6 },
    );
    fc.assert(
      fc.property(fleet, fc.nat(40), (many, limit) => {
        const holders = many.map(({ count, ...more }, index) => holder(`s${index}`, count, more));
        const { moves } = planRebalance(holders, limit);
        expect(moves.length).toBeLessThanOrEqual(limit);
        expect(new Set(moves.map(({ tenant }) => tenant.database)).size).toBe(moves.length);
        const counts = new Map(holders.map(({ name, tenants: held }) => [name, held.length]));
        for (const { from, to } of moves) {
          const [source, target] = [from, to].map((name) => holders.find((one) => one.name === name)!);
          expect(target!.region).toBe(source!.region);
          expect(target!.draining).toBe(false);
          counts.set(from, counts.get(from)! - 1);
          counts.set(to, counts.get(to)! + 1);
          expect(counts.get(to)!).toBeLessThanOrEqual(target!.maxTenants);
        }
      }),
    );
  });
});
