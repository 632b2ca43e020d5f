import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { OperationState, TenantState, type Operation } from '@mad/proto/provisioner';
import { reasonOf } from '@mad/rpc';
import { testCluster } from '@mad/testing';
import pg from 'pg';
import { KEYS_LOCK } from '../src/backups/metadata.ts';
import { archivedMigrations, fill } from './archived-schema.ts';
import { failure, inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'forgotten';
const ADMIN = uuidv7();

let mad: RunningProvisioner;

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: archivedMigrations(SCHEMA),
    environment: {
      PROVISIONER_CLEANUP_GRACE_MS: '0',
      PROVISIONER_BACKUP_EVERY_HOURS: '0',
      PROVISIONER_SERVER_SAMPLE_MS: '3600000',
    },
  });
});

afterAll(() => mad?.close());

const nameOf = (orgId: string): string => `mad_${SCHEMA}_${orgId.replaceAll('-', '')}`;

async function tenant(): Promise<string> {
  const orgId = uuidv7();
  const made = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(made.tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  return orgId;
}

async function backUp(orgId: string): Promise<string> {
  const { backup, operation } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
  expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED });
  return backup!.backupId;
}

const request = (orgId: string, erasureId = uuidv7()) => ({ orgId, erasureId, slug: 'acme', requestedBy: ADMIN });

async function erase(orgId: string, erasureId?: string): Promise<Operation> {
  const { operation } = await mad.tenants().eraseTenants(request(orgId, erasureId), { timeoutMs: 60_000 });
  return operation!;
}

async function object(orgId: string, path: string): Promise<void> {
  const file = join(mad.objectsFolder, 'orgs', orgId, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, randomBytes(100));
}

async function filesOf(orgId: string): Promise<string[]> {
  const all = await readdir(mad.objectsFolder, { recursive: true, withFileTypes: true });
  return all
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(mad.objectsFolder.length + 1))
    .filter((file) => file.includes(orgId));
}

/** Everything of an organization in provisioner's tables but tombstones and records. */
async function rowsOf(orgId: string): Promise<number> {
  let rows = 0;
  const keys = ['data_keys', 'tenant_credentials'];
  const work = ['cleanup_records', 'backups', 'backup_policies', 'placements', 'tenant_indexes', 'migration_runs'];
  for (const table of [...keys, ...work]) {
    rows += (await mad.rows.query(`SELECT FROM provisioner.${table} WHERE org_id = $1`, [orgId])).rowCount!;
  }
  return rows;
}

/** Keeps every run of the tenant waiting before its first step. */
async function holdTenant(orgId: string): Promise<() => Promise<unknown>> {
  const name = [`mad.tenant.${SCHEMA}.${orgId}`];
  await mad.admin.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', name);
  return () => mad.admin.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', name);
}

async function begun(orgId: string): Promise<Operation> {
  for (let wait = 0; wait < 500; wait += 1) {
    const { operations } = await mad.operations().listOperations({ orgId, kind: 'erase', pageSize: 1 });
    if (operations[0] !== undefined) return operations[0];
    await delay(20);
  }
  throw new Error('no erasure began');
}

describe('an erasure', () => {
  test('removes databases, logins, objects, backups, rows and keys, and says so in a signed record', async () => {
    const [orgId, neighbour] = [await tenant(), await tenant()];
    await inside(nameOf(orgId), (client) => fill(client, SCHEMA, 500));
    await backUp(orgId);
    const kept = await backUp(neighbour);
    for (const name of ['a', 'b', 'deep/c']) await object(orgId, `artifacts/${name}`);
    await object(neighbour, 'artifacts/theirs');
    mad.ownedRows.left.set(orgId, 5);
    // It has an index of its own, and waits in a rollout.
    await mad.rows.query(
      `INSERT INTO provisioner.tenant_indexes (org_id, schema, name, table_name, columns, method)
       VALUES ($1, $2, 'own_one', 'notes', '{body}', 'btree')`,
      [orgId, SCHEMA],
    );
    await mad.rows.query(
      `WITH rollout AS (INSERT INTO provisioner.migration_rollouts (rollout_id, schema, version, rules, actor_kind, state, ended_at)
         VALUES (gen_random_uuid(), $2, 'Notes1', '{}', 'platform', 'aborted', now()) RETURNING rollout_id)
       INSERT INTO provisioner.migration_runs (rollout_id, org_id, schema, wave) SELECT rollout_id, $1, $2, 0 FROM rollout`,
      [orgId, SCHEMA],
    );
    const before = await mad.objects();
    expect(before.databases).toContain(nameOf(orgId));

    const erasureId = uuidv7();
    const operation = await erase(orgId, erasureId);
    expect(operation).toMatchObject({
      kind: 'erase',
      state: OperationState.SUCCEEDED,
      error: '',
      actorKind: 'platform',
      userId: ADMIN,
      progress: { done: 7n, total: 7n },
    });

    const after = await mad.objects();
    expect(after.databases).toEqual(before.databases.filter((name) => name !== nameOf(orgId)));
    expect(after.roles).toEqual(before.roles.filter((name) => !name.startsWith(nameOf(orgId))));
    expect(await filesOf(orgId)).toEqual([]);
    expect(await rowsOf(orgId)).toBe(0);
    expect(mad.ownedRows.left.get(orgId)).toBe(0);
    // Of its neighbour nothing is missing.
    expect(await filesOf(neighbour)).toHaveLength(2);
    const tried = await mad.backups().verifyBackup({ backupId: kept });
    expect(await mad.ended(tried.operation)).toMatchObject({ state: OperationState.SUCCEEDED });

    const { valid, problems, erasure } = await mad.erasures().verifyErasure({ erasureId });
    expect({ valid, problems }).toEqual({ valid: true, problems: [] });
    expect(erasure!.record).toEqual({
      erasure_id: erasureId,
      org_id: orgId,
      slug: 'acme',
      operation_id: operation.operationId,
      requested_by: ADMIN,
      requested_at: expect.any(String),
      erased_at: expect.any(String),
      databases: [`local/${nameOf(orgId)}`],
      roles: [`local/${nameOf(orgId)}_a`, `local/${nameOf(orgId)}_b`],
      objects: 4,
      backups: 1,
      keys: 1,
      rows: { catalog: { things: 5 }, identity: { things: 5 } },
    });
    // Found by the organization as well, in the list and beside the database.
    expect((await mad.erasures().getErasure({ erasureId: orgId })).erasure).toEqual(erasure);
    const { erasures } = await mad.erasures().listErasures({});
    expect(erasures.map(({ orgId: one }) => one)).toContain(orgId);
    const object_ = JSON.parse(await readFile(join(mad.objectsFolder, 'erasures', erasureId), 'utf8')) as object;
    expect(object_).toMatchObject({ hash: erasure!.hash, signature: erasure!.signature });
  }, 120_000);

  test('is done once: whoever asks again, under whatever name, is told of the one', async () => {
    const orgId = await tenant();
    const all = await Promise.all(Array.from({ length: 6 }, () => erase(orgId)));
    expect(new Set(all.map(({ operationId }) => operationId)).size).toBe(1);
    expect((await erase(orgId)).operationId).toBe(all[0]!.operationId);
  }, 120_000);

  test('leaves a tombstone: nothing makes the organization a database again, and routers hear of it', async () => {
    const orgId = await tenant();
    await erase(orgId);
    const made = await failure(mad.tenants().ensureTenant({ orgId, schema: SCHEMA }));
    expect([made.code, reasonOf(made)]).toEqual([Code.FailedPrecondition, 'STATE_CONFLICT']);
    expect(made.rawMessage).toBe('the organization was erased: it is not made again');
    const { rows } = await mad.rows.query(
      'SELECT state FROM provisioner.tenant_changes WHERE org_id = $1 ORDER BY seq',
      [orgId],
    );
    expect(rows.map(({ state }) => state)).toEqual(['ready', 'erasing', 'erased']);
    const { route } = await mad
      .routes()
      .getRoute({ orgId, schema: SCHEMA })
      .catch(() => ({ route: undefined }));
    expect(route).toBeUndefined();
  }, 120_000);

  test('of an organization that never had a database leaves a tombstone and a record as well', async () => {
    const orgId = uuidv7();
    mad.ownedRows.left.set(orgId, 1);
    expect(await erase(orgId)).toMatchObject({ state: OperationState.SUCCEEDED });
    expect((await mad.erasures().verifyErasure({ erasureId: orgId })).problems).toEqual([]);
    const made = await failure(mad.tenants().ensureTenant({ orgId, schema: SCHEMA }));
    expect(reasonOf(made)).toBe('STATE_CONFLICT');
    // As little for a tenant schema that comes later, which has no tombstone of its own.
    await mad.rows.query('DELETE FROM provisioner.tenant_changes WHERE org_id = $1', [orgId]);
    await mad.rows.query('DELETE FROM provisioner.tenants WHERE org_id = $1', [orgId]);
    const later = await failure(mad.tenants().ensureTenant({ orgId, schema: SCHEMA }));
    expect(later.rawMessage).toBe('the organization was erased: it is not made again');
  }, 120_000);

  test('ends the sessions of the organization before anything is dropped', async () => {
    const orgId = await tenant();
    const route = (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!;
    const url = new URL(testCluster().adminUrlTo(route.database));
    const session = new pg.Client({ ...clientOptions(url.href), user: route.user, password: route.password });
    const lost = new Promise((resolve) => session.on('error', resolve));
    await session.connect();
    await session.query('BEGIN');
    await session.query(`SELECT FROM ${SCHEMA}.migrations LIMIT 1`).catch(() => undefined);
    expect(await erase(orgId)).toMatchObject({ state: OperationState.SUCCEEDED });
    await lost;
    await session.end().catch(() => undefined);
  }, 120_000);

  test('asks a backup to give way, and leaves nothing of what it had begun', async () => {
    const orgId = await tenant();
    const release = await holdTenant(orgId);
    const { operation: backup } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
    const asked = mad.tenants().eraseTenants(request(orgId), { timeoutMs: 60_000 });
    for (let wait = 0; wait < 500; wait += 1) {
      const { operation } = await mad.operations().getOperation({ operationId: backup!.operationId });
      if (operation!.cancelRequested) break;
      await delay(20);
    }
    await release();
    expect(await mad.ended(backup)).toMatchObject({ state: OperationState.CANCELLED });
    expect((await asked).operation).toMatchObject({ state: OperationState.SUCCEEDED, error: '' });
    expect(await filesOf(orgId)).toEqual([]);
    expect(await rowsOf(orgId)).toBe(0);
  }, 120_000);

  test('waits for an owner that is away, and goes on when it is back', async () => {
    const orgId = await tenant();
    mad.ownedRows.left.set(orgId, 3);
    mad.ownedRows.away = true;
    try {
      const { operation } = await mad.tenants().eraseTenants(request(orgId), { timeoutMs: 6_000 });
      expect(operation).toMatchObject({ state: OperationState.RUNNING, step: 'erase_rows' });
      const refused = await failure(mad.operations().cancelOperation({ operationId: operation!.operationId }));
      expect(refused.rawMessage).toBe('operation_id: erase must be carried through');
      mad.ownedRows.away = false;
      expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED });
    } finally {
      mad.ownedRows.away = false;
    }
    expect(mad.ownedRows.left.get(orgId)).toBe(0);
  }, 120_000);

  test('waits for a backup of the metadata without keeping others waiting, and goes on when it has ended', async () => {
    const [orgId, neighbour] = [await tenant(), await tenant()];
    const lease = async () => {
      const { rows } = await mad.rows.query<{ step: string; owner: string | null; alive: boolean }>(
        'SELECT step, step_owner AS owner, step_lease_until > now() AS alive FROM provisioner.tenants WHERE org_id = $1',
        [orgId],
      );
      return rows[0]!;
    };
    await mad.rows.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', [KEYS_LOCK]);
    try {
      const asked = erase(orgId);
      const operation = await begun(orgId);
      while ((await lease()).step !== 'destroy_keys') await delay(20);
      const { owner } = await lease();
      // Its lease is renewed three times a second, and could be taken over by now.
      await delay(2_500);
      const { route } = await mad.routes().getRoute({ orgId: neighbour, schema: SCHEMA }, { timeoutMs: 10_000 });
      expect(route).toMatchObject({ state: TenantState.READY });
      expect(await lease()).toEqual({ step: 'destroy_keys', owner, alive: true });
      await mad.rows.query('SELECT pg_advisory_unlock_all()');
      expect(await asked).toMatchObject({ operationId: operation.operationId, state: OperationState.SUCCEEDED });
    } finally {
      await mad.rows.query('SELECT pg_advisory_unlock_all()');
    }
    expect(await rowsOf(orgId)).toBe(0);
  }, 120_000);
});

describe('giving an erasure up', () => {
  test('before the first drop leaves the organization suspended with all it had; it can be resumed, and erased', async () => {
    const orgId = await tenant();
    const release = await holdTenant(orgId);
    const erasureId = uuidv7();
    const asked = mad.tenants().eraseTenants(request(orgId, erasureId), { timeoutMs: 60_000 });
    const { operationId } = await begun(orgId);
    await mad.operations().cancelOperation({ operationId });
    await release();
    expect((await asked).operation).toMatchObject({ operationId, state: OperationState.CANCELLED });
    // The same request is the same answer, not another erasure.
    expect((await erase(orgId, erasureId)).operationId).toBe(operationId);
    expect((await mad.tenants().resumeTenants({ orgId })).tenants).toMatchObject([{ state: TenantState.READY }]);
    const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
    const url = testCluster().adminUrlTo(route!.database);
    const login = new pg.Client({ ...clientOptions(url), user: route!.user, password: route!.password });
    await login.connect();
    await login.end();
    expect(await erase(orgId)).toMatchObject({ state: OperationState.SUCCEEDED });
  }, 120_000);

  test('while its server is away works too; the read-only organization is shut, and can be erased later', async () => {
    const orgId = await tenant();
    await mad.tenants().freezeTenants({ orgId });
    const { rows } = await mad.rows.query<{ port: number }>('SELECT port FROM provisioner.database_servers');
    await mad.rows.query('UPDATE provisioner.database_servers SET port = 1');
    try {
      const { operation } = await mad.tenants().eraseTenants(request(orgId), { timeoutMs: 6_000 });
      expect(operation).toMatchObject({ state: OperationState.RUNNING, step: 'shut_out' });
      await mad.operations().cancelOperation({ operationId: operation!.operationId });
      expect(await mad.ended(operation)).toMatchObject({ state: OperationState.CANCELLED });
    } finally {
      await mad.rows.query('UPDATE provisioner.database_servers SET port = $1', [rows[0]!.port]);
    }
    // Nobody gets in, whatever they know: the database is shut, too.
    for (let wait = 0; wait < 1_000; wait += 1) {
      const { rows: may } = await mad.admin.query<{ connect: boolean }>(
        `SELECT has_database_privilege($1, $2, 'CONNECT') AS connect`,
        [`${nameOf(orgId)}_a`, nameOf(orgId)],
      );
      if (!may[0]!.connect) break;
      await delay(20);
      expect(wait).toBeLessThan(999);
    }
    expect(await erase(orgId)).toMatchObject({ state: OperationState.SUCCEEDED });
    expect((await mad.objects()).roles.filter((name) => name.startsWith(nameOf(orgId)))).toEqual([]);
  }, 120_000);

  test('of one that never had a database leaves it as it was', async () => {
    const orgId = uuidv7();
    const release = await holdTenant(orgId);
    const asked = mad.tenants().eraseTenants(request(orgId), { timeoutMs: 60_000 });
    const { operationId } = await begun(orgId);
    await mad.operations().cancelOperation({ operationId });
    await release();
    expect((await asked).operation!.state).toBe(OperationState.CANCELLED);
    const { tenant: made } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    expect(made!.state).toBe(TenantState.READY);
  }, 120_000);
});

describe('a backup of an erased organization', () => {
  test('cannot be read, even where somebody kept a copy of it: neither through the tenant nor by its bytes', async () => {
    const orgId = await tenant();
    await inside(nameOf(orgId), (client) => fill(client, SCHEMA, 200));
    const backupId = await backUp(orgId);
    const { rows } = await mad.rows.query('SELECT * FROM provisioner.backups WHERE backup_id = $1', [backupId]);
    const copy = rows[0] as Record<string, unknown> & { object_key: string };
    const archive = await readFile(join(mad.objectsFolder, copy.object_key));
    await erase(orgId);
    expect((await failure(mad.backups().verifyBackup({ backupId }))).code).toBe(Code.NotFound);

    // Its row and its archive come back from somewhere.
    const file = join(mad.objectsFolder, copy.object_key);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, archive);
    await mad.rows.query(
      'INSERT INTO provisioner.backups SELECT * FROM jsonb_populate_record(NULL::provisioner.backups, $1)',
      [JSON.stringify(copy)],
    );
    for (const ask of [mad.backups().verifyBackup, mad.backups().restoreBackup]) {
      const refused = await failure(ask({ backupId }));
      expect([refused.code, reasonOf(refused)]).toEqual([Code.FailedPrecondition, 'ORGANIZATION_ERASED']);
    }
    const verified = await mad.erasures().verifyErasure({ erasureId: orgId });
    expect(verified.problems).toEqual(['it has 1 backups again', `there are objects of it, e.g. ${copy.object_key}`]);

    // Even the tenant's row: the key is what is missing.
    await mad.rows.query(`UPDATE provisioner.tenants SET state = 'suspended', ready_at = now() WHERE org_id = $1`, [
      orgId,
    ]);
    const { operation } = await mad.backups().verifyBackup({ backupId });
    const last = await mad.ended(operation);
    expect(last.state).toBe(OperationState.FAILED);
    expect(last.error).toMatch(/^ARCHIVE_KEY_UNAVAILABLE: the data key 1 of .* was destroyed/);
  }, 120_000);
});

describe('a record', () => {
  test('that nobody knows is NOT_FOUND; a forged page token is refused', async () => {
    for (const ask of [mad.erasures().getErasure, mad.erasures().verifyErasure]) {
      expect((await failure(ask({ erasureId: uuidv7() }))).code).toBe(Code.NotFound);
    }
    const forged = await failure(mad.erasures().listErasures({ pageToken: 'x' }));
    expect(forged.code).toBe(Code.InvalidArgument);
  });
});
