import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { EntitySchema } from '@mad/postgres';
import { beginSpan, inSpan, uuidv7 } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import { retryAfterMsOf } from '@mad/rpc';
import { failure, openFleet, SCHEMA, until, type Fleet } from './fleet.ts';

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

beforeAll(async () => {
  fleet = await openFleet(SIZE);
}, 60_000);

afterAll(async () => {
  await fleet?.close();
}, 60_000);

afterEach(() => fleet.heal());

const org = (): string => fleet.untouched();

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
      // Eight digits of its own: two processes of one program never call themselves alike.
      const pattern = new RegExp(`^notes-[0-9a-f]{8}/${orgId.replaceAll('-', '')}/${trace}$`);
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

  test('a call that is given up on its way to the database does nothing there', async () => {
    const tenants = await fleet.open();
    const orgId = org();
    // Once while the route is asked for, then with everything at hand.
    for (const intent of ['read', 'read', 'transact'] as const) {
      const gaveUp = new AbortController();
      let ran = false;
      const call = tenants[intent](orgId, () => Promise.resolve((ran = true)), { signal: gaveUp.signal });
      gaveUp.abort(new Error('gone'));
      await expect(call).rejects.toThrow('gone');
      expect(ran).toBe(false);
      expect(await tenants.read(orgId, (tx) => tx.query('SELECT 1 AS one'))).toEqual([{ one: 1 }]);
    }
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
