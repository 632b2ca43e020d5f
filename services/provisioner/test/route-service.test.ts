import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { TenantState, type WatchTenantChangesResponse } from '@mad/proto/provisioner';
import { reasonOf, violationsOf } from '@mad/rpc';
import { openTenants, type Tenants } from '@mad/tenancy';
import { silent } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'rts';
let mad: RunningProvisioner;

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA });
});

afterAll(async () => {
  await mad?.close();
});

async function ensure(orgId = uuidv7()): Promise<string> {
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(tenant!.state).toBe(TenantState.READY);
  return orgId;
}

/** Collects a stream until it is told to stop. */
function watch(afterSeq: bigint): {
  heard: (WatchTenantChangesResponse & { at: number })[];
  until(count: number): Promise<void>;
  stop(): Promise<void>;
} {
  const gone = new AbortController();
  const heard: (WatchTenantChangesResponse & { at: number })[] = [];
  const reading = (async () => {
    try {
      const stream = mad.routes().watchTenantChanges({ schema: SCHEMA, afterSeq }, { signal: gone.signal });
      for await (const message of stream) heard.push(Object.assign(message, { at: performance.now() }));
    } catch (error) {
      if (!gone.signal.aborted) throw error;
    }
  })();
  return {
    heard,
    async until(count) {
      for (let wait = 0; wait < 500 && heard.filter(({ orgId }) => orgId !== '').length < count; wait += 1)
        await delay(10);
      expect(heard.filter(({ orgId }) => orgId !== '').length).toBeGreaterThanOrEqual(count);
    },
    async stop() {
      gone.abort();
      await reading;
    },
  };
}

describe('GetRoute', () => {
  test('says so when there is no tenant, and which schema it does not know', async () => {
    const orgId = uuidv7();
    const none = await mad
      .routes()
      .getRoute({ orgId, schema: SCHEMA })
      .catch((error: unknown) => error);
    expect(none).toMatchObject({ code: Code.FailedPrecondition });
    expect(reasonOf(none)).toBe('TENANT_NOT_PROVISIONED');
    const unknown = await mad
      .routes()
      .getRoute({ orgId, schema: 'unheard_of' })
      .catch((error: unknown) => error);
    expect(violationsOf(unknown).map(({ field }) => field)).toEqual(['schema']);
  });

  test('carries the budget of the server and the number of the last change', async () => {
    const orgId = await ensure();
    const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
    expect(route).toMatchObject({ state: TenantState.READY, connectionBudget: 20, generation: 2n });
    const { rows } = await mad.rows.query<{ seq: number }>(
      'SELECT max(seq)::int AS seq FROM provisioner.tenant_changes WHERE schema = $1',
      [SCHEMA],
    );
    expect(route!.changeSeq).toBe(BigInt(rows[0]!.seq));
  });
});

describe('WatchTenantChanges', () => {
  test('streams every change without a gap while many happen at once, and anew from any number', async () => {
    const begun = watch(-1n);
    for (let wait = 0; wait < 200 && begun.heard.length === 0; wait += 1) await delay(10);
    const standing = begun.heard[0]!;
    expect(standing.orgId).toBe('');
    await Promise.all(Array.from({ length: 8 }, () => ensure()));
    await begun.until(8);
    const changes = begun.heard.filter(({ orgId }) => orgId !== '');
    expect(changes.map(({ seq }) => seq)).toEqual(changes.map((_, n) => standing.seq + 1n + BigInt(n)));
    await begun.stop();

    const all = watch(0n);
    await all.until(Number(changes.at(-1)!.seq));
    const numbers = all.heard.filter(({ orgId }) => orgId !== '').map(({ seq }) => seq);
    expect(numbers).toEqual(numbers.map((_, n) => BigInt(n + 1)));
    await all.stop();
    const rest = watch(changes[5]!.seq);
    await rest.until(2);
    expect(rest.heard.filter(({ orgId }) => orgId !== '').map(({ seq }) => seq)).toEqual(
      changes.slice(6).map(({ seq }) => seq),
    );
    await rest.stop();
  });

  test('tells of a change without waiting for its beat, and beats at least every 2 s', async () => {
    const orgId = await ensure();
    const watching = watch(-1n);
    for (let wait = 0; wait < 200 && watching.heard.length === 0; wait += 1) await delay(10);
    const began = performance.now();
    await mad.tenants().suspendTenants({ orgId });
    await watching.until(1);
    const change = watching.heard.find(({ orgId: id }) => id === orgId)!;
    expect(change).toMatchObject({ state: TenantState.SUSPENDED });
    expect(change.at - began).toBeLessThan(1_500);
    await delay(2_300);
    expect(watching.heard.filter(({ orgId: id }) => id === '').length).toBeGreaterThanOrEqual(2);
    await watching.stop();
  });

  test('sets a reader back that is ahead of the log', async () => {
    const ahead = watch(1_000_000n);
    for (let wait = 0; wait < 200 && ahead.heard.length === 0; wait += 1) await delay(10);
    expect(ahead.heard[0]!.orgId).toBe('');
    expect(ahead.heard[0]!.seq).toBeLessThan(1_000_000n);
    await ahead.stop();
  });
});

describe('tenants over it', () => {
  let tenants: Tenants;

  beforeAll(async () => {
    const routes = mad.transport('results');
    tenants = await openTenants({ schema: SCHEMA, entities: [], routes, node: 'test-node', logger: silent });
  });

  afterAll(async () => {
    await tenants?.close();
  });

  test('work in the database, stop within a second when suspended, and go on when resumed', async () => {
    const orgId = await ensure();
    await tenants.transact(orgId, (tx) => tx.execute(`INSERT INTO notes (body) VALUES ('one')`));
    const working = tenants.transact(orgId, async (tx) => {
      await tx.execute(`INSERT INTO notes (body) VALUES ('two')`);
      await tx.query('SELECT pg_sleep(5)');
    });
    const outcome = working.catch((error: unknown) => error);
    await delay(100);
    const began = performance.now();
    await mad.tenants().suspendTenants({ orgId });
    expect(reasonOf(await outcome)).toBe('TENANT_SUSPENDED');
    expect(performance.now() - began).toBeLessThan(1_000);
    const refused = await tenants.read(orgId, (tx) => tx.query('SELECT 1')).catch((error: unknown) => error);
    expect(reasonOf(refused)).toBe('TENANT_SUSPENDED');

    await mad.tenants().resumeTenants({ orgId });
    for (let wait = 0; wait < 50; wait += 1) {
      const bodies = await tenants.read(orgId, (tx) => tx.query('SELECT body FROM notes')).catch(() => undefined);
      if (bodies !== undefined) return expect(bodies).toEqual([{ body: 'one' }]);
      await delay(20);
    }
    throw new Error('the tenant did not come back');
  });

  test('follow a provisioner that is restarted', async () => {
    const orgId = await ensure();
    await tenants.read(orgId, (tx) => tx.query('SELECT 1'));
    await mad.stop();
    expect(await tenants.read(orgId, (tx) => tx.query('SELECT 1 AS one'))).toEqual([{ one: 1 }]);
  });
});
