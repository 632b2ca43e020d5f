import { setTimeout as delay } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions, defineDataChange, defineMigration } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { OperationState, RolloutRulesSchema, RolloutRunState, RolloutState, TenantState } from '@mad/proto/provisioner';
import { retryAfterMsOf, type RpcServer } from '@mad/rpc';
import { platformToken } from '@mad/testing';
import pg from 'pg';
import { databaseName } from '../src/domain/names.ts';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SLOW = 120_000;
const SCHEMA = 'yielding';
/** As many at once as a rollout takes, and one more than that. */
const AT_ONCE = 4;
const ROWS = 1_000;
const OLD = noteMigrations(SCHEMA);
const expand = defineMigration('2026_01_07_1000_add_shout.ts', {
  up: `ALTER TABLE ${SCHEMA}.notes ADD COLUMN shout text NOT NULL DEFAULT '', ADD COLUMN touched integer NOT NULL DEFAULT 0`,
  down: `ALTER TABLE ${SCHEMA}.notes DROP COLUMN shout, DROP COLUMN touched`,
});
/** For minutes, unless somebody changes the rest by hand. */
const fill = defineDataChange('2026_01_08_1000_fill_shout.ts', {
  schema: SCHEMA,
  table: 'notes',
  key: 'note_id',
  pending: `t.shout = ''`,
  change: `UPDATE ${SCHEMA}.notes SET shout = upper(body), touched = touched + 1 WHERE note_id = ANY ($1)`,
  batch: 1,
  restMs: 200,
});

let mad: RunningProvisioner;
let owner: RpcServer;
let orgs: string[];

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, migrations: OLD });
  owner = mad.owner;
  orgs = Array.from({ length: AT_ONCE + 1 }, () => uuidv7()).toSorted();
  for (const orgId of orgs) {
    await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    await rowsIn(orgId, `INSERT INTO ${SCHEMA}.notes (body) SELECT 'note ' || n FROM generate_series(1, ${ROWS}) n`);
  }
  const { port } = owner;
  await owner.close();
  owner = await serveSchemaOwner(SCHEMA, [...OLD, expand, fill], port);
  // Longer than provisioner remembers the list of migrations.
  await delay(1_100);
}, SLOW);

afterAll(async () => {
  await owner?.close();
  await mad?.close();
});

function rowsIn<R extends pg.QueryResultRow>(orgId: string, sql: string): Promise<R[]> {
  return inside(databaseName(SCHEMA, orgId), async (client) => (await client.query<R>(sql)).rows);
}

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (const over = performance.now() + SLOW / 2; !(await condition()); await delay(50)) {
    if (performance.now() > over) throw new Error(`waited in vain until ${what}`);
  }
}

/** A session of the organization's own login. */
async function session(orgId: string): Promise<pg.Client> {
  const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
  const { host, port, user, password, database, sslmode } = route!;
  const url = new URL(`postgres://${host}:${port}/${database}`);
  if (sslmode !== '') url.searchParams.set('sslmode', sslmode);
  const client = new pg.Client({ ...clientOptions(url.href), user, password });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** Rows that the change of data has reached. */
async function changed(orgId: string): Promise<number> {
  const rows = await rowsIn<{ n: number }>(orgId, `SELECT count(*)::int AS n FROM ${SCHEMA}.notes WHERE touched > 0`);
  return rows[0]!.n;
}

const changes = (orgId: string): Promise<boolean> =>
  changed(orgId).then(
    (n) => n > 0,
    () => false,
  );

test(
  'a migration that somebody waits for says that it gave way, and may be asked for again',
  async () => {
    const orgId = orgs.at(-1)!;
    const token = await platformToken({ permissions: ['platform.tenants.migrate'] });
    const migration = mad
      .tenantsAs(token)
      .migrateTenant({ orgId, schema: SCHEMA })
      .catch((error: unknown) => error);
    await until(() => changes(orgId), 'rows are being changed');
    await mad.tenants().suspendTenants({ orgId });
    const failure = await migration;
    expect(failure).toMatchObject({ code: Code.Unavailable, rawMessage: expect.stringContaining('gave way') });
    expect(retryAfterMsOf(failure)).toBeGreaterThan(0);
    await mad.tenants().resumeTenants({ orgId });
  },
  SLOW,
);

describe('while a rollout changes rows in as many databases as it may', () => {
  test(
    'who is being migrated and who is not are suspended, made read-only and resumed, and others are served; then everybody is migrated',
    async () => {
      const rules = create(RolloutRulesSchema, { canaries: AT_ONCE, concurrency: AT_ONCE });
      const { rollout } = await mad.rollouts().startRollout({ schema: SCHEMA, requestId: uuidv7(), rules });
      const { rolloutId } = rollout!;
      const running = async (): Promise<string[]> => {
        const { runs } = await mad.rollouts().listRolloutRuns({ rolloutId, state: RolloutRunState.RUNNING });
        return runs.map(({ orgId }) => orgId);
      };
      const migrated = orgs.slice(0, AT_ONCE);
      await until(async () => (await running()).length === AT_ONCE, 'all of the wave are being migrated');
      for (const orgId of migrated) await until(() => changes(orgId), 'rows are being changed');
      const [suspended, frozen, ...others] = migrated as [string, string, ...string[]];
      const idle = orgs.at(-1)!;

      const open = [await session(suspended), await session(idle)];
      for (const client of open) expect((await client.query('SELECT 1')).rowCount).toBe(1);
      const before = await changed(suspended);
      await Promise.all([suspended, idle].map((orgId) => mad.tenants().suspendTenants({ orgId })));
      // Before anything else can have ended.
      expect(await running()).toEqual(expect.arrayContaining([frozen, ...others]));
      for (const client of open) await expect(client.query('SELECT 1')).rejects.toThrow();
      for (const orgId of [suspended, idle]) {
        const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
        expect(route).toMatchObject({ state: TenantState.SUSPENDED, password: '' });
      }
      // What was changed stays, and so does the version that came before the change.
      expect(await changed(suspended)).toBeGreaterThanOrEqual(before);

      const writer = await session(frozen);
      await mad.tenants().freezeTenants({ orgId: frozen });
      await expect(writer.query(`INSERT INTO ${SCHEMA}.notes (body) VALUES ('late')`)).rejects.toThrow();
      const reader = await session(frozen);
      expect((await reader.query(`SELECT FROM ${SCHEMA}.notes LIMIT 1`)).rowCount).toBe(1);
      await expect(reader.query(`INSERT INTO ${SCHEMA}.notes (body) VALUES ('late')`)).rejects.toThrow();
      await Promise.all([reader.end(), writer.end().catch(() => undefined)]);

      // A new organization waits for none of them.
      const { tenant } = await mad.tenants().ensureTenant({ orgId: uuidv7(), schema: SCHEMA });
      expect(tenant).toMatchObject({ state: TenantState.READY, schemaVersion: fill.migrationName });
      expect(await running()).toEqual(expect.arrayContaining(others));

      // The suspended are migrated like the others, and give way again.
      await until(async () => (await running()).includes(suspended), 'the suspended one is migrated again');
      await mad.tenants().resumeTenants({ orgId: suspended });
      const again = await session(suspended);
      expect((await again.query('SELECT 1')).rowCount).toBe(1);
      await again.end();

      const halfDone = await Promise.all(migrated.map(changed));
      for (const orgId of orgs) {
        await until(
          () =>
            rowsIn(orgId, `UPDATE ${SCHEMA}.notes SET shout = upper(body) WHERE shout = ''`).then(
              () => true,
              () => false,
            ),
          'the rest is changed by hand',
        );
      }
      let last;
      for await (const { rollout: now } of mad.rollouts().watchRollout({ rolloutId })) last = now;
      expect(last).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { failed: 0, queued: 0 } });
      for (const [index, orgId] of orgs.entries()) {
        const rows = await rowsIn<{ name: string }>(
          orgId,
          `SELECT name FROM ${SCHEMA}.migrations ORDER BY "timestamp" DESC LIMIT 1`,
        );
        expect(rows).toEqual([{ name: fill.migrationName }]);
        // None was taken back and begun anew.
        if (index < AT_ONCE) expect(await changed(orgId)).toBeGreaterThanOrEqual(halfDone[index]!);
        expect(await rowsIn(orgId, `SELECT FROM ${SCHEMA}.notes WHERE touched > 1`)).toEqual([]);
      }
      const states = await Promise.all(
        [suspended, frozen, idle].map(async (orgId) => (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!),
      );
      expect(states.map(({ state }) => state)).toEqual([
        TenantState.READY,
        TenantState.READ_ONLY,
        TenantState.SUSPENDED,
      ]);
      for (const { schemaVersion } of states) expect(schemaVersion).toBe(fill.migrationName);
    },
    SLOW,
  );
});

test(
  'dropping an index that waits for a transaction gives way to a suspension, and is gone on with by itself',
  async () => {
    const orgId = uuidv7();
    await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    const request = { orgId, schema: SCHEMA, name: 'own_stars' };
    const { operation: built } = await mad
      .indexes()
      .createTenantIndex({ ...request, table: 'notes', columns: ['stars'] });
    expect((await mad.ended(built)).state).toBe(OperationState.SUCCEEDED);
    await inside(databaseName(SCHEMA, orgId), async (holder) => {
      await holder.query(`BEGIN; SELECT FROM ${SCHEMA}.notes`);
      const { operation } = await mad.indexes().deleteTenantIndex(request);
      const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'DROP INDEX%'
        AND wait_event_type = 'Lock'`;
      await until(async () => (await rowsIn(orgId, waiting)).length === 1, 'it waits for the transaction');
      const { tenants } = await mad.tenants().suspendTenants({ orgId });
      expect(tenants).toMatchObject([{ state: TenantState.SUSPENDED }]);
      expect((await mad.ended(operation)).state).toBe(OperationState.CANCELLED);
      await holder.query('COMMIT');
    });
    const left = async () => (await mad.indexes().listTenantIndexes({ orgId })).indexes.length;
    await until(async () => (await left()) === 0, 'it is dropped');
    expect(await rowsIn(orgId, `SELECT FROM pg_class WHERE relname = 'own_stars'`)).toEqual([]);
  },
  SLOW,
);
