import { setTimeout as delay } from 'node:timers/promises';
import { Code, createClient } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions, defineMigration } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import {
  DriftService,
  OperationService,
  OperationState,
  TenantIndexService,
  TenantService,
  TenantState,
  type Operation,
} from '@mad/proto/provisioner';
import { violationsOf } from '@mad/rpc';
import { platformToken, served, ServiceProcess, serviceToken, testCluster } from '@mad/testing';
import pg from 'pg';
import { databaseName } from '../src/domain/names.ts';
import { noteMigrations } from './neighbours.ts';
import { inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'ownidx';
const events = defineMigration('2026_01_07_1000_events.ts', {
  up: `CREATE TABLE ${SCHEMA}.events (event_id uuid NOT NULL, at integer NOT NULL, what text,
      CONSTRAINT events_pkey PRIMARY KEY (event_id, at)) PARTITION BY RANGE (at);
    CREATE TABLE ${SCHEMA}.events_other PARTITION OF ${SCHEMA}.events DEFAULT;`,
  down: `DROP TABLE ${SCHEMA}.events`,
});

let mad: RunningProvisioner;

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, migrations: [...noteMigrations(SCHEMA), events] });
});

afterAll(() => mad?.close());

async function tenant(): Promise<string> {
  const orgId = uuidv7();
  await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  return orgId;
}

async function rowsIn<R extends pg.QueryResultRow>(orgId: string, sql: string): Promise<R[]> {
  return inside(databaseName(SCHEMA, orgId), async (client) => (await client.query<R>(sql)).rows);
}

const add = async (orgId: string, name: string, table: string, columns: string[], method = ''): Promise<Operation> => {
  const request = { orgId, schema: SCHEMA, name, table, columns, method };
  return mad.ended((await mad.indexes().createTenantIndex(request)).operation);
};

const driftOf = async (orgId: string): Promise<string[]> =>
  (await mad.drift().listDrift({ orgId })).tenants.flatMap(({ differences }) => differences.map(({ name }) => name));

describe("an organization's own index", () => {
  test('is built, listed, no drift of its database, and drift of it once somebody drops it by hand', async () => {
    const orgId = await tenant();
    expect(await add(orgId, 'own_by_stars', 'notes', ['stars desc', 'body'])).toMatchObject({
      state: OperationState.SUCCEEDED,
      kind: 'build_index',
    });
    const { indexes } = await mad.indexes().listTenantIndexes({ orgId });
    expect(indexes).toMatchObject([
      {
        name: 'own_by_stars',
        columns: ['stars desc', 'body'],
        definition: `CREATE INDEX own_by_stars ON ${SCHEMA}.notes USING btree (stars DESC, body)`,
      },
    ]);
    expect(await driftOf(orgId)).toEqual([]);
    // Others have it not, and need not.
    expect(await driftOf(await tenant())).toEqual([]);

    await rowsIn(orgId, `DROP INDEX ${SCHEMA}.own_by_stars`);
    expect(await driftOf(orgId)).toEqual(['own_by_stars']);
    const { planDigest } = await mad.drift().planRepair({ orgId, schema: SCHEMA });
    const { operation } = await mad.drift().repairTenant({ orgId, schema: SCHEMA, planDigest });
    expect((await mad.ended(operation)).state).toBe(OperationState.SUCCEEDED);
    expect(await driftOf(orgId)).toEqual([]);
  });

  test('on a partitioned table is built on each partition, those that come later included', async () => {
    const orgId = await tenant();
    await rowsIn(
      orgId,
      `CREATE TABLE ${SCHEMA}.events_1 PARTITION OF ${SCHEMA}.events FOR VALUES FROM (1) TO (2);
       ALTER TABLE ${SCHEMA}.events_1 OWNER TO mad_${SCHEMA}_owner`,
    );
    expect((await add(orgId, 'own_what', 'events', ['what'])).error).toBe('');
    await rowsIn(orgId, `CREATE TABLE ${SCHEMA}.events_2 PARTITION OF ${SCHEMA}.events FOR VALUES FROM (2) TO (3)`);
    const found = await rowsIn<{ table: string; valid: boolean }>(
      orgId,
      `SELECT x.indrelid::regclass::text AS table, x.indisvalid AS valid FROM pg_index x
       WHERE pg_get_indexdef(x.indexrelid) LIKE '%(what)' ORDER BY 1`,
    );
    expect(found).toEqual(
      ['events', 'events_1', 'events_2', 'events_other'].map((table) => ({ table: `${SCHEMA}.${table}`, valid: true })),
    );
    await rowsIn(orgId, `ALTER TABLE ${SCHEMA}.events_2 OWNER TO mad_${SCHEMA}_owner`);
    expect(await driftOf(orgId)).toEqual([]);
    const { operation } = await mad.indexes().deleteTenantIndex({ orgId, schema: SCHEMA, name: 'own_what' });
    expect((await mad.ended(operation)).state).toBe(OperationState.SUCCEEDED);
    expect(await driftOf(orgId)).toEqual([]);
    expect((await mad.indexes().listTenantIndexes({ orgId })).indexes).toEqual([]);
  });

  test('is there again in a restored database', async () => {
    const orgId = await tenant();
    await rowsIn(orgId, `INSERT INTO ${SCHEMA}.notes (body, stars) SELECT 'n' || i, i FROM generate_series(1, 100) i`);
    const { backup, operation: made } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
    expect((await mad.ended(made)).state).toBe(OperationState.SUCCEEDED);
    expect((await add(orgId, 'own_body', 'notes', ['body'])).error).toBe('');
    const { operation } = await mad.backups().restoreBackup({ backupId: backup!.backupId });
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED, error: '' });
    expect(await rowsIn(orgId, `SELECT count(*)::int AS n FROM ${SCHEMA}.notes`)).toEqual([{ n: 100 }]);
    expect(await driftOf(orgId)).toEqual([]);
    expect(await rowsIn(orgId, `SELECT 1 FROM pg_class WHERE relname = 'own_body'`)).toHaveLength(1);
  });

  test('that cannot be: the field is named, the operation says why, and nothing is left of it', async () => {
    const orgId = await tenant();
    const request = { orgId, schema: SCHEMA, name: 'own_x', table: 'notes', columns: ['body'] };
    const refusal = async (more: object): Promise<string[]> =>
      mad
        .indexes()
        .createTenantIndex({ ...request, ...more })
        .then(
          () => [],
          (error: unknown) => violationsOf(error).map(({ field }) => field),
        );
    expect(await refusal({ name: 'notes_pkey' })).toEqual(['name']);
    expect(await refusal({ columns: ['body); DROP TABLE notes'] })).toEqual(['columns[0]']);
    expect(await refusal({ columns: [] })).toEqual(['columns']);
    expect(await refusal({ method: 'guess' })).toEqual(['method']);
    await expect(mad.indexes().createTenantIndex({ ...request, orgId: uuidv7() })).rejects.toMatchObject({
      code: Code.NotFound,
    });
    expect(await add(orgId, 'own_x', 'nothing', ['body'])).toMatchObject({
      state: OperationState.FAILED,
      error: expect.stringContaining('no table nothing'),
    });
    expect((await add(orgId, 'own_x', 'notes', ['no_such'])).error).toContain('no_such');
    expect(await driftOf(orgId)).toEqual([]);
    // The name is free for a better one, and then it is taken.
    expect((await add(orgId, 'own_x', 'notes', ['body'])).state).toBe(OperationState.SUCCEEDED);
    await expect(mad.indexes().createTenantIndex(request)).rejects.toMatchObject({ code: Code.AlreadyExists });
    await expect(mad.indexes().deleteTenantIndex({ orgId, schema: SCHEMA, name: 'own_never' })).rejects.toMatchObject({
      code: Code.NotFound,
    });
  });
});

describe('a build that is given up', () => {
  /** Keeps a transaction open that a build on the table has to wait for, and whoever drops what is left of it as well. */
  async function writerOn(orgId: string, sql: string): Promise<() => Promise<void>> {
    const writer = new pg.Client(clientOptions(testCluster().adminUrlTo(databaseName(SCHEMA, orgId))));
    await writer.connect();
    await writer.query(`BEGIN; ${sql}`);
    return async () => {
      await writer.query('COMMIT');
      await writer.end();
    };
  }

  /** What the tables have beside what the version makes; of an index that is not valid nobody else would hear. */
  const indexesIn = (orgId: string): Promise<{ name: string; valid: boolean }[]> =>
    rowsIn(
      orgId,
      `SELECT indexrelid::regclass::text AS name, indisvalid AS valid FROM pg_index
       WHERE pg_get_indexdef(indexrelid) ~ ' ON (ONLY )?${SCHEMA}' AND NOT indisunique ORDER BY 1`,
    );

  async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
    for (let wait = 0; wait < 2_000; wait += 1) {
      if (await condition()) return;
      await delay(20);
    }
    throw new Error(`waited in vain until ${what}`);
  }

  const begin = async (orgId: string, table: string, columns: string[]): Promise<Operation> => {
    const request = { orgId, schema: SCHEMA, name: 'own_given_up', table, columns };
    const { operation } = await mad.indexes().createTenantIndex(request);
    await until(async () => (await indexesIn(orgId)).some(({ valid }) => !valid), 'it was being built');
    return operation!;
  };

  const building = async (orgId: string): Promise<boolean> => {
    const { rowCount } = await mad.admin.query(
      `SELECT FROM pg_stat_activity WHERE datname = $1 AND state = 'active' AND query LIKE 'CREATE INDEX CONCURRENTLY%'`,
      [databaseName(SCHEMA, orgId)],
    );
    return rowCount! > 0;
  };

  const listed = async (orgId: string): Promise<string[]> =>
    (await mad.indexes().listTenantIndexes({ orgId })).indexes.map(({ name }) => name);

  // On a partitioned table one partition has its own already, the next one waits.
  test.each([
    ['a table', 'notes', ['body'], `INSERT INTO ${SCHEMA}.notes (body) VALUES ('open')`],
    ['a partitioned table', 'events', ['what'], `INSERT INTO ${SCHEMA}.events_1 VALUES (gen_random_uuid(), 1, 'open')`],
  ])(
    'on %s leaves nothing behind, and its name is free',
    async (_what, table, columns, write) => {
      const orgId = await tenant();
      await rowsIn(
        orgId,
        `CREATE TABLE ${SCHEMA}.events_1 PARTITION OF ${SCHEMA}.events FOR VALUES FROM (1) TO (2);
       ALTER TABLE ${SCHEMA}.events_1 OWNER TO mad_${SCHEMA}_owner`,
      );
      const commit = await writerOn(orgId, write);
      const operation = await begin(orgId, table, columns);
      await mad.operations().cancelOperation({ operationId: operation.operationId });
      await until(async () => !(await building(orgId)), 'the build was given up');
      await commit();
      expect((await mad.ended(operation)).state).toBe(OperationState.CANCELLED);
      expect(await indexesIn(orgId)).toEqual([]);
      expect(await listed(orgId)).toEqual([]);
      expect(await driftOf(orgId)).toEqual([]);
      expect(await add(orgId, 'own_given_up', table, columns)).toMatchObject({ state: OperationState.SUCCEEDED });
      expect((await indexesIn(orgId)).filter(({ valid }) => !valid)).toEqual([]);
    },
    60_000,
  );

  test('for a suspension does not make it wait for a transaction of others: it is dropped as soon as that is over', async () => {
    const orgId = await tenant();
    const commit = await writerOn(orgId, `INSERT INTO ${SCHEMA}.notes (body) VALUES ('open')`);
    const operation = await begin(orgId, 'notes', ['body']);
    const { tenants } = await mad.tenants().suspendTenants({ orgId });
    expect(tenants).toMatchObject([{ state: TenantState.SUSPENDED }]);
    expect((await mad.ended(operation)).state).toBe(OperationState.CANCELLED);
    // Still there, and still known to be.
    expect(await indexesIn(orgId)).toEqual([{ name: `${SCHEMA}.own_given_up`, valid: false }]);
    expect(await listed(orgId)).toEqual(['own_given_up']);
    // Half a minute later.
    await mad.rows.query(
      `UPDATE provisioner.operations SET ended_at = ended_at - interval '1 minute' WHERE operation_id = $1`,
      [operation.operationId],
    );
    await until(async () => {
      const { operations } = await mad.operations().listOperations({ orgId, kind: 'drop_index' });
      return operations.length > 0;
    }, 'somebody began to drop it');
    // That gives way as well.
    await mad.tenants().resumeTenants({ orgId });
    await commit();
    await mad.rows.query(
      `UPDATE provisioner.operations SET ended_at = ended_at - interval '1 minute' WHERE org_id = $1 AND state = 'cancelled'`,
      [orgId],
    );
    await until(async () => (await listed(orgId)).length === 0, 'it was dropped');
    expect(await indexesIn(orgId)).toEqual([]);
    expect(await driftOf(orgId)).toEqual([]);
  }, 60_000);
});

test('kill -9 while an index is built: what it left invalid is made again', async () => {
  const provisioner = await ServiceProcess.of('provisioner', mad.environment);
  await mad.stop();
  try {
    provisioner.start();
    const orgId = uuidv7();
    const tenants = createClient(
      TenantService,
      provisioner.as(() => serviceToken('identity')),
    );
    const permissions = ['indexes.create', 'operations.read', 'drift.read'].map((one) => `platform.${one}`);
    const platform = provisioner.as(() => platformToken({ permissions }));
    await served(() => tenants.ensureTenant({ orgId, schema: SCHEMA }));
    // Building waits for every transaction that began before: so it can be killed in the middle, and leaves an invalid one.
    const reader = new pg.Client(clientOptions(testCluster().adminUrlTo(databaseName(SCHEMA, orgId))));
    await reader.connect();
    await reader.query(`BEGIN; INSERT INTO ${SCHEMA}.notes (body) VALUES ('open')`);
    const request = { orgId, schema: SCHEMA, name: 'own_body', table: 'notes', columns: ['body'] };
    const { operation } = await served(() => createClient(TenantIndexService, platform).createTenantIndex(request));
    const invalid = (): Promise<pg.QueryResultRow[]> =>
      rowsIn(orgId, `SELECT FROM pg_index WHERE indexrelid = to_regclass('${SCHEMA}.own_body') AND NOT indisvalid`);
    while ((await invalid()).length === 0) await delay(20);
    await provisioner.kill();
    // The server may still be at it: it sees that nobody waits.
    await mad.admin.query(
      `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY own_body%'`,
    );
    expect(await invalid()).toHaveLength(1);
    await reader.query('COMMIT');
    await reader.end();
    provisioner.start();
    const operations = createClient(OperationService, platform);
    for (;;) {
      const { operation: now } = await served(() => operations.getOperation({ operationId: operation!.operationId }));
      if (now!.state === OperationState.SUCCEEDED) break;
      expect(now!.state).toBe(OperationState.RUNNING);
      await delay(50);
    }
    expect(await invalid()).toEqual([]);
    const { tenants: swept } = await createClient(DriftService, platform).listDrift({ orgId });
    expect(swept).toMatchObject([{ differences: [], error: '' }]);
  } finally {
    await provisioner.close();
    await mad.start();
  }
}, 120_000);
