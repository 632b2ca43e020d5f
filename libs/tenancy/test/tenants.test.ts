import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { EntitySchema } from '@mad/postgres';
import { beginSpan, inSpan, uuidv7 } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import { reasonOf, retryAfterMsOf } from '@mad/rpc';
import { openFleet, SCHEMA, type Fleet } from './fleet.ts';

const SIZE = 60;

const NoteEntity = new EntitySchema<{ note_id: string; body: string }>({
  name: 'notes',
  schema: SCHEMA,
  columns: {
    note_id: { type: 'uuid', primary: true, default: () => 'gen_random_uuid()' },
    body: { type: 'text' },
  },
});

let fleet: Fleet;
let next = 0;

beforeAll(async () => {
  fleet = await openFleet(SIZE);
}, 60_000);

afterAll(async () => {
  await fleet?.close();
}, 60_000);

afterEach(() => {
  Object.assign(fleet, { away: false, mute: false, shareMs: 60_000 });
});

/** A tenant no other test has touched. */
function org(): string {
  const orgId = fleet.orgs[next];
  next += 1;
  if (orgId === undefined) throw new Error('the fleet is too small');
  return orgId;
}

async function failure(promise: Promise<unknown>): Promise<{ code: Code; reason: string | undefined; error: unknown }> {
  try {
    await promise;
  } catch (error) {
    return { code: (error as { code: Code }).code, reason: reasonOf(error), error };
  }
  throw new Error('it was expected to fail');
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let wait = 0; wait < 400; wait += 1) {
    if (await condition()) return;
    await delay(10);
  }
  throw new Error(`waited in vain until ${what}`);
}

describe('read and transact', () => {
  test('reach the organization’s own database, by SQL and by repository', async () => {
    const tenants = await fleet.open({ entities: [NoteEntity] });
    const [a, b] = [org(), org()];
    const noteId = await tenants.transact(a, async (tx) => {
      expect(tx).toMatchObject({ orgId: a, generation: 1n });
      const saved = await tx.repository(NoteEntity).save({ body: 'by repository' });
      expect(await tx.execute('INSERT INTO notes (body) VALUES ($1)', ['by SQL'])).toBe(1);
      return saved.note_id;
    });
    const bodies = (orgId: string): Promise<{ body: string }[]> =>
      tenants.read(orgId, (tx) => tx.query<{ body: string }>('SELECT body FROM notes ORDER BY body', []));
    expect(await bodies(a)).toEqual([{ body: 'by SQL' }, { body: 'by repository' }]);
    expect(await bodies(b)).toEqual([]);
    const found = await tenants.read(a, (tx) => tx.repository(NoteEntity).findOneBy({ note_id: noteId }));
    expect(found).toMatchObject({ body: 'by repository' });
    await tenants.close();
  });

  test('a read cannot write, a transaction that throws leaves nothing', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    const insert = `INSERT INTO notes (body) VALUES ('x')`;
    await expect(tenants.read(orgId, (tx) => tx.execute(insert))).rejects.toMatchObject({ code: '25006' });
    const thrown = tenants.transact(orgId, async (tx) => {
      await tx.execute(insert);
      throw new RangeError('no');
    });
    await expect(thrown).rejects.toThrow(RangeError);
    const ignored = tenants.transact(orgId, async (tx) => {
      await tx.execute(insert);
      await tx.query('SELECT 1/0').catch(() => undefined);
    });
    await expect(ignored).rejects.toThrow('was rolled back');
    expect(await tenants.read(orgId, (tx) => tx.query('SELECT FROM notes'))).toEqual([]);
    await tenants.close();
  });

  test('are named in pg_stat_activity: service and organization, and in a transaction the trace', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const span = beginSpan(undefined, traceparent, 'test', 'internal');
    const name = async (tx: { query: (sql: string, params: unknown[]) => Promise<unknown[]> }): Promise<unknown> =>
      (await tx.query(`SELECT current_setting('application_name') AS name`, []))[0];
    const named = (trace: string): unknown => {
      // Four digits of its own: two processes of one program never call themselves alike.
      const pattern = new RegExp(`^notes-[0-9a-f]{4}/${orgId.replaceAll('-', '')}/${trace}$`);
      return { name: expect.stringMatching(pattern) as unknown };
    };
    expect(await tenants.read(orgId, name)).toEqual(named(''));
    expect(await inSpan(span, () => tenants.transact(orgId, name))).toEqual(named('4bf92f3577b3'));
    // It ends with the transaction.
    expect(await tenants.transact(orgId, name)).toEqual(named(''));
    await tenants.close();
  });

  test('do not nest', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    const nested = tenants.read(orgId, () => tenants.transact(orgId, () => Promise.resolve(1)));
    await expect(nested).rejects.toThrow('inside a callback');
    expect(await tenants.read(orgId, () => Promise.resolve(2))).toBe(2);
    await tenants.close();
  });

  test('an aborted call stops on the server and gives its place back', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    const gaveUp = new AbortController();
    const began = performance.now();
    const sleeping = tenants.read(orgId, (tx) => tx.query('SELECT pg_sleep(20)'), { signal: gaveUp.signal });
    setTimeout(() => gaveUp.abort(new Error('gone')), 100);
    await expect(sleeping).rejects.toThrow('gone');
    expect(performance.now() - began).toBeLessThan(3_000);
    await until(async () => {
      const { rows } = await fleet.admin.query(`SELECT FROM pg_stat_activity WHERE datname = $1 AND state = 'active'`, [
        fleet.route(orgId).database,
      ]);
      return rows.length === 0;
    }, 'the statement stops');
    await tenants.close();
  });
});

describe('the budget', () => {
  test('is a leased share: when its time is over, what is open may be used and nothing is opened', async () => {
    fleet.shareMs = 500;
    const tenants = await fleet.open();
    const [open, other] = [org(), org()];
    const ask = (orgId: string): Promise<unknown> =>
      tenants.read(orgId, (tx) => tx.query('SELECT 1 AS one', []), { deadlineMs: 500 });
    const limit = (): number | undefined => tenants.status().servers[0]?.limit;
    await ask(open);
    expect(limit()).toBe(20);
    fleet.away = true;
    await until(() => limit() === 1, 'the lease is over');
    expect(await ask(open)).toEqual([{ one: 1 }]);
    // The way to the other is not known either, with the provisioner away.
    await expect(ask(other)).rejects.toThrow();
    Object.assign(fleet, { away: false, shareMs: 60_000 });
    await until(() => limit() === 20, 'it is leased again');
    expect(await ask(other)).toEqual([{ one: 1 }]);
    await tenants.close();
  });

  test('holds for 50 tenants under load, and serves all of them', async () => {
    const limit = 15;
    await until(async () => (await fleet.backends()) === 0, 'the connections of earlier tests are gone');
    const tenants = await fleet.open({ budget: limit, poolMax: 4, patienceMs: 5 });
    let most = 0;
    let done = false;
    const watch = (async () => {
      while (!done) most = Math.max(most, await fleet.backends());
    })();
    const asks = fleet.orgs.flatMap((orgId, n) =>
      Array.from({ length: n % 7 === 0 ? 30 : 5 }, () =>
        tenants.read(orgId, (tx) => tx.query<{ name: string }>('SELECT current_database() AS name', []), {
          deadlineMs: 20_000,
        }),
      ).map(async (asked) => expect(await asked).toEqual([{ name: fleet.route(orgId).database }])),
    );
    await Promise.all(asks);
    done = true;
    await watch;
    expect(most).toBeGreaterThan(limit / 2);
    expect(most).toBeLessThanOrEqual(limit);
    await tenants.close();
    expect(await fleet.backends()).toBe(0);
  }, 60_000);

  test('tells who waited in vain when to come again', async () => {
    const tenants = await fleet.open({ budget: 1 });
    const [a, b] = [org(), org()];
    const release = Promise.withResolvers<void>();
    const entered = Promise.withResolvers<void>();
    const holding = tenants.read(a, async () => {
      entered.resolve();
      await release.promise;
    });
    await entered.promise;
    for (const orgId of [a, b]) {
      const refused = await failure(tenants.read(orgId, () => Promise.resolve(), { deadlineMs: 80 }));
      expect(refused).toMatchObject({ code: Code.ResourceExhausted, reason: 'CONNECTION_BUDGET_EXHAUSTED' });
      expect(retryAfterMsOf(refused.error)).toBeGreaterThan(0);
    }
    release.resolve();
    await holding;
    expect(await tenants.read(b, () => Promise.resolve('served'))).toBe('served');
    await tenants.close();
  });

  test('refuses more calls of one tenant than it may have at once, and only that tenant’s', async () => {
    const tenants = await fleet.open({ maxInFlight: 3, poolMax: 1 });
    const [a, b] = [org(), org()];
    const release = Promise.withResolvers<void>();
    const calls = Array.from({ length: 3 }, () => tenants.read(a, () => release.promise));
    expect(tenants.status().inFlight).toBe(3);
    const refused = await failure(tenants.read(a, () => Promise.resolve()));
    expect(refused).toMatchObject({ code: Code.ResourceExhausted, reason: 'CONNECTION_BUDGET_EXHAUSTED' });
    expect(retryAfterMsOf(refused.error)).toBeGreaterThan(0);
    expect(await tenants.read(b, () => Promise.resolve('served'))).toBe('served');
    release.resolve();
    await Promise.all(calls);
    expect(tenants.status().inFlight).toBe(0);
    expect(await tenants.read(a, () => Promise.resolve('served'))).toBe('served');
    await tenants.close();
  });

  test('asks a server for a sign of life without waking a tenant or keeping one awake', async () => {
    const tenants = await fleet.open({ probeMs: 20, idleMs: 400 });
    const orgId = org();
    const { database } = fleet.route(orgId);
    const lastQuery = async (): Promise<string | undefined> => {
      const { rows } = await fleet.admin.query<{ query: string }>(
        'SELECT query FROM pg_stat_activity WHERE datname = $1',
        [database],
      );
      return rows[0]?.query;
    };
    await tenants.read(orgId, (tx) => tx.query('SELECT 42', []));
    await until(async () => (await lastQuery()) === 'SELECT 1', 'the probe comes by');
    expect(tenants.status().servers).toMatchObject([{ answers: true, breaker: 'closed', open: 1 }]);
    await until(() => tenants.status().servers[0]?.open === 0, 'it is closed in spite of the probes');
    await delay(100);
    expect(await lastQuery()).toBeUndefined();
    await tenants.close();
  });

  test('keeps only so many tenants open, and never cuts a callback off', async () => {
    const tenants = await fleet.open({ maxOpen: 2 });
    const orgs = [org(), org(), org(), org()] as const;
    const release = Promise.withResolvers<void>();
    const slow = tenants.read(orgs[0], async (tx) => {
      await release.promise;
      return tx.query('SELECT 1 AS one');
    });
    for (const orgId of orgs.slice(1)) await tenants.read(orgId, (tx) => tx.query('SELECT 1'));
    expect(tenants.status().tenants).toBeLessThanOrEqual(2);
    release.resolve();
    expect(await slow).toEqual([{ one: 1 }]);
    await tenants.close();
  });
});

describe('a tenant’s state', () => {
  test('names why there is no database', async () => {
    const tenants = await fleet.open();
    const nobody = await failure(tenants.read(uuidv7(), () => Promise.resolve()));
    expect(nobody).toMatchObject({ code: Code.FailedPrecondition, reason: 'TENANT_NOT_PROVISIONED' });
    const orgId = org();
    const reasons: [TenantState, Code, string][] = [
      [TenantState.CREATING, Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED'],
      [TenantState.FAILED, Code.FailedPrecondition, 'PROVISIONING_FAILED'],
      [TenantState.SUSPENDED, Code.FailedPrecondition, 'TENANT_SUSPENDED'],
      [TenantState.RESTORING, Code.Unavailable, 'DATABASE_UNAVAILABLE'],
      [TenantState.ERASED, Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED'],
    ];
    for (const [state, code, reason] of reasons) {
      fleet.change(orgId, { state });
      await until(async () => (await failure(tenants.read(orgId, () => Promise.resolve()))).reason === reason, reason);
      expect(await failure(tenants.transact(orgId, () => Promise.resolve()))).toMatchObject({ code, reason });
    }
    fleet.change(orgId, { state: TenantState.READ_ONLY });
    await until(() => tenants.read(orgId, () => Promise.resolve(true)).catch(() => false), 'reading is allowed');
    const write = await failure(tenants.transact(orgId, () => Promise.resolve()));
    expect(write).toMatchObject({ code: Code.FailedPrecondition, reason: 'TENANT_SUSPENDED' });
    fleet.change(orgId, { state: TenantState.MOVING });
    await until(
      async () => (await failure(tenants.transact(orgId, () => Promise.resolve()))).reason === 'DATABASE_UNAVAILABLE',
      'a tenant that is being moved is not written',
    );
    expect(await tenants.read(orgId, () => Promise.resolve(true))).toBe(true);
    await tenants.close();
  });

  test('that changes meanwhile undoes the transaction: moved, or suspended', async () => {
    const tenants = await fleet.open();
    for (const [state, code, reason] of [
      [TenantState.READY, Code.Aborted, 'TENANT_MOVED'],
      [TenantState.SUSPENDED, Code.FailedPrecondition, 'TENANT_SUSPENDED'],
    ] as const) {
      const orgId = org();
      await tenants.read(orgId, () => Promise.resolve());
      const refused = await failure(
        tenants.transact(orgId, async (tx) => {
          await tx.execute(`INSERT INTO notes (body) VALUES ('late')`);
          fleet.change(orgId, { state });
          // The news is on its way while the callback goes on.
          await delay(100);
        }),
      );
      expect(refused).toMatchObject({ code, reason });
      fleet.change(orgId, { state: TenantState.READY });
      await until(
        () => tenants.read(orgId, async (tx) => (await tx.query('SELECT FROM notes')).length === 0).catch(() => false),
        'the tenant is open again, and empty',
      );
    }
    await tenants.close();
  });

  test('fenced on the server is told by what it is, although the news comes later', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    fleet.mute = true;
    const refused = await failure(
      tenants.transact(orgId, async (tx) => {
        await tx.query('SELECT 1');
        fleet.change(orgId, { state: TenantState.SUSPENDED });
        await fleet.fence(orgId);
        await tx.query('SELECT 1');
      }),
    );
    expect(refused).toMatchObject({ code: Code.FailedPrecondition, reason: 'TENANT_SUSPENDED' });
    await tenants.close();
  });

  test('a database that is gone is unavailable, with a time to come again', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    await tenants.read(orgId, () => Promise.resolve());
    const refused = await failure(
      tenants.read(orgId, async (tx) => {
        await fleet.admin.query('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1', [
          fleet.route(orgId).database,
        ]);
        await tx.query('SELECT 1');
      }),
    );
    expect(refused).toMatchObject({ code: Code.Unavailable, reason: 'DATABASE_UNAVAILABLE' });
    expect(retryAfterMsOf(refused.error)).toBeGreaterThan(0);
    expect(await tenants.read(orgId, () => Promise.resolve('again'))).toBe('again');
    await tenants.close();
  });
});

describe('routes', () => {
  test('are asked for once while the change log is heard', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    await until(() => tenants.status().live, 'the log is heard');
    const before = fleet.asked;
    await Promise.all(Array.from({ length: 20 }, () => tenants.read(orgId, () => Promise.resolve())));
    await delay(1_100);
    await tenants.read(orgId, () => Promise.resolve());
    expect(fleet.asked - before).toBe(1);
    await tenants.close();
  });

  test('a log that was cut off is caught up with: no change is lost', async () => {
    const tenants = await fleet.open();
    const [a, b] = [org(), org()];
    for (const orgId of [a, b]) await tenants.read(orgId, () => Promise.resolve());
    await until(() => tenants.status().live, 'the log is heard');
    fleet.cut();
    fleet.change(a, { state: TenantState.SUSPENDED });
    fleet.change(b, { database: fleet.route(b).database });
    await until(
      async () =>
        (await failure(tenants.read(a, () => Promise.resolve())).catch(() => undefined))?.reason === 'TENANT_SUSPENDED',
      'the suspension arrives',
    );
    await until(() => tenants.read(b, (tx) => Promise.resolve(tx.generation === 2n)), 'the move arrives');
    await tenants.close();
  });

  test('are asked for again after a second of silence, and still used when nobody answers', async () => {
    const tenants = await fleet.open({ silenceMs: 200 });
    const orgId = org();
    await tenants.read(orgId, () => Promise.resolve());
    fleet.mute = true;
    await until(() => !tenants.status().live, 'the log falls silent');
    const before = fleet.asked;
    await delay(1_100);
    await tenants.read(orgId, () => Promise.resolve());
    expect(fleet.asked).toBeGreaterThan(before);
    fleet.away = true;
    await delay(1_100);
    expect(await tenants.read(orgId, () => Promise.resolve('served'))).toBe('served');
    const stranger = await failure(tenants.read(uuidv7(), () => Promise.resolve()));
    expect(stranger).toMatchObject({ code: Code.Unavailable, reason: 'DATABASE_UNAVAILABLE' });
    await tenants.close();
  });
});

describe('prewarm', () => {
  test('opens one connection, of which the first read makes use', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    expect(await tenants.prewarm(orgId)).toBe(true);
    expect(tenants.status()).toMatchObject({ tenants: 1, servers: [{ open: 1, idle: 1 }] });
    const asked = fleet.asked;
    expect(await tenants.prewarm(orgId)).toBe(true);
    await tenants.read(orgId, (tx) => tx.query('SELECT 1'));
    expect(tenants.status()).toMatchObject({ tenants: 1, servers: [{ open: 1, idle: 1 }] });
    expect(fleet.asked).toBe(asked);
    await tenants.close();
  });

  test('leaves a quarter of the budget free, and takes nothing from anybody', async () => {
    const tenants = await fleet.open({ budget: 4 });
    const orgs = [org(), org(), org(), org()];
    const opened: boolean[] = [];
    for (const orgId of orgs) opened.push(await tenants.prewarm(orgId));
    expect(opened).toEqual([true, true, true, false]);
    expect(tenants.status()).toMatchObject({ tenants: 3, servers: [{ open: 3, idle: 3 }] });
    // Whoever really reads gets the last one.
    await tenants.read(orgs[3]!, (tx) => tx.query('SELECT 1'));
    expect(tenants.status()).toMatchObject({ tenants: 4, servers: [{ open: 4 }] });
    await tenants.close();
  });

  test('opens nothing without a database, and nothing of a suspended organization', async () => {
    const tenants = await fleet.open();
    expect(reasonOf(await tenants.prewarm(uuidv7()).catch((error: unknown) => error))).toBe('TENANT_NOT_PROVISIONED');
    const suspended = org();
    fleet.change(suspended, { state: TenantState.SUSPENDED });
    expect(await tenants.prewarm(suspended)).toBe(false);
    expect(tenants.status()).toMatchObject({ tenants: 0 });
    await tenants.close();
  });
});
