import { setTimeout as delay } from 'node:timers/promises';
import { durationMs } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createLogger, uuidv7 } from '@mad/process';
import { violationsOf } from '@mad/rpc';
import { openTenants, type Tenants } from '@mad/tenancy';
import fc from 'fast-check';
import { divideConnections, renewLease, type Lease } from '../src/domain/connection-shares.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'shares';
const BUDGET = 12;
const NODES = 3;
const silent = createLogger('test', { level: 'silent' });

describe('dividing connections', () => {
  test.each([
    { budget: 80, wanted: [], shares: [] },
    { budget: 80, wanted: [0], shares: [80] },
    { budget: 80, wanted: [500, 500, 500], shares: [26, 27, 27] },
    { budget: 80, wanted: [10, 500, 500], shares: [10, 35, 35] },
    { budget: 80, wanted: [10, 20, 0], shares: [27, 37, 16] },
    { budget: 2, wanted: [5, 5, 5], shares: [0, 1, 1] },
  ])('$budget among $wanted', ({ budget, wanted, shares }) => {
    expect(divideConnections(budget, wanted)).toEqual(shares);
  });

  test('all of it, to the last one, and nobody wants what a richer one has', () => {
    fc.assert(
      fc.property(fc.nat(500), fc.array(fc.nat(500), { minLength: 1, maxLength: 20 }), (budget, wanted) => {
        const shares = divideConnections(budget, wanted);
        expect(shares.reduce((sum, share) => sum + share)).toBe(budget);
        shares.forEach((share, index) => {
          expect(share).toBeGreaterThanOrEqual(Math.min(wanted[index]!, Math.floor(budget / wanted.length)));
        });
      }),
    );
  });

  test('whoever asks when, and however long answers take: together never more than the budget', () => {
    const step = fc.record({
      node: fc.constantFrom('a', 'b', 'c', 'd'),
      wanted: fc.nat(40),
      /** How much of what it may it opens before it asks again, and whether it keeps what is beyond its share. */
      opens: fc.double({ min: 0, max: 1, noNaN: true }),
      lets: fc.double({ min: 0, max: 1, noNaN: true }),
      leaves: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.array(step, { maxLength: 80 }), (budget, steps) => {
        const leases = new Map<string, Lease>();
        const open = new Map<string, number>();
        for (const { node, wanted, opens, lets, leaves } of steps) {
          const last = leases.get(node);
          const now = open.get(node) ?? 0;
          if (leaves) {
            leases.delete(node);
            open.delete(node);
          } else {
            const held = Math.max(last?.share ?? 0, now);
            const others = [...leases.values()].filter((one) => one.node !== node);
            leases.set(
              node,
              renewLease(budget, others, { node, held: Math.min(held, last?.granted ?? 0), wanted }).lease,
            );
            // While the answer was on its way it opened up to its old share; afterwards it closes some.
            const before = Math.max(now, Math.round((last?.share ?? 0) * opens));
            const { share } = leases.get(node)!;
            open.set(
              node,
              before > share ? share + Math.round((before - share) * (1 - lets)) : Math.round(share * opens),
            );
          }
          expect([...open.values()].reduce((sum, one) => sum + one, 0)).toBeLessThanOrEqual(budget);
          expect([...leases.values()].reduce((sum, { granted }) => sum + granted, 0)).toBeLessThanOrEqual(budget);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('processes of results', () => {
  let mad: RunningProvisioner;
  const orgs = Array.from({ length: 30 }, () => uuidv7());
  const opened: Tenants[] = [];

  beforeAll(async () => {
    mad = await runProvisioner({ schema: SCHEMA, environment: { PROVISIONER_SHARE_MS: '6000' } });
    await mad.rows.query('UPDATE provisioner.database_servers SET connection_budget = $1', [BUDGET]);
    for (const orgId of orgs) await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  }, 120_000);

  afterAll(async () => {
    await Promise.all(opened.map((tenants) => tenants.close()));
    await mad?.close();
  }, 60_000);

  async function open(): Promise<Tenants> {
    const routes = mad.transport('results');
    const tenants = await openTenants({ schema: SCHEMA, entities: [], routes, node: 'shares', logger: silent });
    opened.push(tenants);
    return tenants;
  }

  const read = (tenants: Tenants, orgId: string): Promise<unknown> =>
    tenants.read(orgId, (tx) => tx.query('SELECT 1', []), { deadlineMs: 30_000 });

  async function backends(): Promise<number> {
    const { rows } = await mad.admin.query<{ n: number }>(
      `SELECT count(*)::int AS n FROM pg_stat_activity WHERE starts_with(application_name, 'shares-')`,
    );
    return rows[0]!.n;
  }

  const shares = async (): Promise<{ node: string; share: number; granted: number }[]> =>
    (await mad.rows.query('SELECT node, share, granted FROM provisioner.connection_shares ORDER BY node')).rows;

  async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
    for (const end = performance.now() + 20_000; performance.now() < end; await delay(50))
      if (await condition()) return;
    throw new Error(`waited in vain until ${what}`);
  }

  test('never have more than the budget together, whoever comes and goes, and nobody is turned away', async () => {
    let most = 0;
    let stop = false;
    const nodes = [await open()];
    const running: Promise<void>[] = [];
    const watch = (async () => {
      while (!stop) most = Math.max(most, await backends());
    })();
    const work = async (tenants: Tenants, seed: number): Promise<void> => {
      for (let n = seed; !stop; n += 7) await read(tenants, orgs[n % orgs.length]!);
    };
    const busy = (tenants: Tenants): void => {
      for (let client = 0; client < 8; client += 1) running.push(work(tenants, running.length * 11));
    };
    try {
      // The first takes all of it; the others come while it is at work.
      busy(nodes[0]!);
      await until(async () => (await backends()) > BUDGET / 2, 'the first has most of it');
      for (let node = 1; node < NODES; node += 1) {
        nodes.push(await open());
        busy(nodes[node]!);
      }
      const part = BUDGET / NODES;
      await until(async () => {
        const all = await shares();
        return all.length === NODES && all.every(({ share, granted }) => share === part && granted === part);
      }, 'each has its part');
    } finally {
      stop = true;
      await watch;
    }
    await Promise.all(running);
    expect(most).toBeLessThanOrEqual(BUDGET);
    expect(most).toBeGreaterThan(BUDGET / 2);
    await opened.pop()!.close();
    expect((await shares()).length).toBe(NODES - 1);
  }, 90_000);

  test('whose lease is over is cut off before others have its room, and comes back with what is left', async () => {
    const [first] = opened as [Tenants];
    await read(first, orgs[0]!);
    expect(await backends()).toBeGreaterThan(0);
    const other = 'gone-1';
    // A process that died with all of the room; its connections are still there.
    await mad.rows.query('DELETE FROM provisioner.connection_shares');
    await mad.rows.query(
      `INSERT INTO provisioner.connection_shares (server_id, node, share, granted, wanted, expires_at)
       SELECT server_id, $1, $2, $2, $2, now() + interval '1 hour' FROM provisioner.database_servers`,
      [other, BUDGET],
    );
    const lease = { node: 'newcomer', holdings: [] };
    const { shares: none } = await mad.routes().leaseConnections(lease);
    expect(none).toMatchObject([{ connections: 0, generation: 1n }]);
    await mad.rows.query(`UPDATE provisioner.connection_shares SET expires_at = now() WHERE node = $1`, [other]);
    await until(async () => (await shares()).every(({ node }) => node !== other), 'its share was taken back');
    await until(async () => (await mad.routes().leaseConnections(lease)).shares[0]!.connections > 0, 'there is room');
    const { validFor, renewIn } = await mad.routes().leaseConnections(lease);
    expect([durationMs(validFor!), durationMs(renewIn!) <= 1_000]).toEqual([6_000, true]);
    await mad.routes().leaseConnections({ node: 'newcomer', leaving: true });
    expect((await shares()).map(({ node }) => node)).not.toContain('newcomer');
  }, 60_000);

  test('one that is started again where another was has its room at once, also when the other did not give it back', async () => {
    await Promise.all(opened.splice(0).map((tenants) => tenants.close()));
    const before = { node: 'before', place: 'here:7003' };
    await mad.routes().leaseConnections(before);
    expect((await mad.routes().leaseConnections(before)).shares[0]!.connections).toBe(BUDGET);
    const after = { node: 'after', place: 'here:7003' };
    expect((await mad.routes().leaseConnections(after)).shares[0]!.connections).toBe(0);
    await until(
      async () => (await mad.routes().leaseConnections(after)).shares[0]!.connections === BUDGET,
      'it has all',
    );
    expect((await shares()).map(({ node }) => node)).toEqual(['after']);
    // Somewhere else: each has its part.
    const other = { node: 'other', place: 'there:7003' };
    await until(async () => {
      await mad.routes().leaseConnections({ ...after, holdings: [] });
      return (await mad.routes().leaseConnections(other)).shares[0]!.connections === BUDGET / 2;
    }, 'they share');
  }, 60_000);

  test('refuses a name that cannot begin the name of a session, and anybody but results', async () => {
    const wrong = mad.routes().leaseConnections({ node: "x'; DROP", holdings: [{ serverId: 'x', held: -1 }] });
    await expect(wrong).rejects.toMatchObject({ code: Code.InvalidArgument });
    const error: unknown = await wrong.catch((one: unknown) => one);
    expect(violationsOf(error).map(({ field }) => field)).toEqual([
      'node',
      'holdings[0].server_id',
      'holdings[0].held',
    ]);
    await expect(mad.routes('catalog').leaseConnections({ node: 'x' })).rejects.toMatchObject({
      code: Code.PermissionDenied,
    });
  });
});
