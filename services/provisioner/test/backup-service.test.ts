import { randomBytes } from 'node:crypto';
import { readdir, readFile, writeFile, copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { BackupState, OperationState, TenantState, type Backup, type Operation } from '@mad/proto/provisioner';
import { reasonOf } from '@mad/rpc';
import pg from 'pg';
import { archivedMigrations, contentOf, fill } from './archived-schema.ts';
import { serveSchemaOwner } from './neighbours.ts';
import { failure, inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'zoo';
const [CREATE, STARS] = archivedMigrations(SCHEMA);
const ANIMALS = 3_000;

let mad: RunningProvisioner;
let owner: RunningProvisioner['owner'];

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: [CREATE!],
    environment: { PROVISIONER_CLEANUP_GRACE_MS: '0', PROVISIONER_BACKUP_EVERY_HOURS: '0' },
  });
  owner = mad.owner;
});

afterAll(async () => {
  await owner?.close();
  await mad?.close();
});

const nameOf = (orgId: string): string => `mad_${SCHEMA}_${orgId.replaceAll('-', '')}`;

async function tenant({ animals = ANIMALS } = {}): Promise<string> {
  const orgId = uuidv7();
  const made = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(made.tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  await inside(nameOf(orgId), (client) => fill(client, SCHEMA, animals));
  return orgId;
}

async function backUp(orgId: string): Promise<Backup> {
  const begun = await mad.backups().createBackup({ orgId, schema: SCHEMA });
  expect(begun.backup!.state).toBe(BackupState.CREATING);
  expect(await mad.ended(begun.operation)).toMatchObject({
    state: OperationState.SUCCEEDED,
    error: '',
    kind: 'backup',
  });
  return (await mad.backups().getBackup({ backupId: begun.backup!.backupId })).backup!;
}

const verify = async (backupId: string): Promise<Operation> =>
  mad.ended((await mad.backups().verifyBackup({ backupId })).operation);

const restore = async (backupId: string, keepHours?: number): Promise<Operation> =>
  mad.ended((await mad.backups().restoreBackup({ backupId, keepHours })).operation);

async function archiveOf({ orgId, backupId }: Backup): Promise<string> {
  const folder = join(mad.objectsFolder, 'orgs', orgId, 'backups', backupId);
  const [file, ...others] = await readdir(folder);
  expect(others).toEqual([]);
  return join(folder, file!);
}

/** The databases of the schema beside those of tenants and templates, when the sweeper has been there. */
async function leftovers(expected: number): Promise<string[]> {
  for (let wait = 0; ; wait += 1) {
    const { databases } = await mad.objects();
    const others = databases.filter((name) => /_(copy|old)_/.test(name));
    if (others.length === expected || wait > 500) return others;
    await delay(20);
  }
}

describe('a backup', () => {
  test('says what it holds, table by table, in the order they depend on each other', async () => {
    const orgId = await tenant();
    const backup = await backUp(orgId);
    expect(backup).toMatchObject({
      orgId,
      schema: SCHEMA,
      state: BackupState.READY,
      verifyError: '',
      scheduled: false,
    });
    expect(backup.schemaVersion).toBe(CREATE!.migrationName);
    const rows = Object.fromEntries(backup.tables.map((table) => [table.name, Number(table.rows)]));
    expect(rows).toEqual({
      zoos: 9,
      animals: ANIMALS,
      counters: 1,
      nothing: 0,
      visits_2026_01: expect.any(Number),
      visits_2026_02: expect.any(Number),
    });
    const order = backup.tables.map(({ name }) => name);
    expect(order.indexOf('zoos')).toBeLessThan(order.indexOf('animals'));
    expect(backup.sizeBytes).toBe(BigInt((await readFile(await archiveOf(backup))).length));
    expect(Number(backup.sizeBytes)).toBeLessThan(Number(backup.rawBytes));
    // Nothing of it can be read without the key.
    expect((await readFile(await archiveOf(backup))).includes('visit 1')).toBe(false);
    expect((await verify(backup.backupId)).state).toBe(OperationState.SUCCEEDED);
    const after = (await mad.backups().getBackup({ backupId: backup.backupId })).backup!;
    expect(after.verifyTime).toBeDefined();
    expect(await leftovers(0)).toEqual([]);
  });

  test('is of one moment, whoever writes meanwhile', async () => {
    const orgId = await tenant({ animals: 200 });
    const database = nameOf(orgId);
    let writing = true;
    // Each transaction writes to the first and to the last table read: a mixture of two moments would show.
    const writer = inside(database, async (client) => {
      for (let n = 0; writing; n += 1) {
        await client.query(`BEGIN; UPDATE ${SCHEMA}.counters SET value = value + 1;
          INSERT INTO ${SCHEMA}.zoos (name) VALUES ('new ${n}'); COMMIT`);
      }
    });
    const before = await inside(
      database,
      async (client) => (await client.query(`SELECT value FROM ${SCHEMA}.counters`)).rows[0].value,
    );
    const backup = await backUp(orgId);
    writing = false;
    await writer;
    expect((await restore(backup.backupId, 0)).state).toBe(OperationState.SUCCEEDED);
    const { rows } = await inside(database, (client) =>
      client.query(`SELECT (SELECT value FROM ${SCHEMA}.counters) - ${before} AS counted,
        (SELECT count(*) FROM ${SCHEMA}.zoos WHERE name LIKE 'new%') AS made`),
    );
    // Those written before the count was read are in the difference too.
    const [{ counted, made }] = rows as [{ counted: number; made: number }];
    expect(made).toBeGreaterThanOrEqual(counted);
    const value = await inside(database, (client) => client.query(`SELECT value FROM ${SCHEMA}.counters`));
    expect(Number(value.rows[0].value) - 200).toBe(made);
  });

  test('of a tenant nobody has, or with a schema nobody owns, is refused', async () => {
    const none = await failure(mad.backups().createBackup({ orgId: uuidv7(), schema: SCHEMA }));
    expect(none.code).toBe(Code.NotFound);
    const odd = await failure(mad.backups().createBackup({ orgId: uuidv7(), schema: 'odd' }));
    expect(odd.code).toBe(Code.InvalidArgument);
  });
});

describe('a restore', () => {
  test('puts everything back, under a new generation, and keeps what it replaced until told to drop it', async () => {
    const orgId = await tenant();
    const database = nameOf(orgId);
    const before = await inside(database, (client) => contentOf(client, SCHEMA));
    const backup = await backUp(orgId);
    const route = (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!;
    await inside(database, (client) =>
      client.query(`TRUNCATE ${SCHEMA}.animals; INSERT INTO ${SCHEMA}.zoos (name) VALUES ('late')`),
    );

    const operation = await restore(backup.backupId);
    expect(operation).toMatchObject({ state: OperationState.SUCCEEDED, error: '', kind: 'restore' });
    expect(await inside(database, (client) => contentOf(client, SCHEMA))).toEqual(before);
    const after = (await mad.routes().getRoute({ orgId, schema: SCHEMA })).route!;
    expect(after).toMatchObject({ state: TenantState.READY, database });
    expect(Number(after.generation)).toBeGreaterThan(Number(route.generation));

    // The tenant's login is in, with its rights; sequences and triggers go on.
    const { host, port, user, password } = after;
    const login = new pg.Client({ host, port, user, password, database });
    await login.connect();
    await login.query(`INSERT INTO ${SCHEMA}.zoos (name) VALUES ('next') RETURNING zoo_id`);
    await login.query(`INSERT INTO ${SCHEMA}.animals (animal_id, zoo_id) VALUES (gen_random_uuid(), 1)`);
    const { rows } = await login.query(`SELECT nextval('${SCHEMA}.tickets')::int AS ticket, value::int AS animals,
      (SELECT max(zoo_id) FROM ${SCHEMA}.zoos) AS zoo FROM ${SCHEMA}.counters`);
    expect(rows).toEqual([{ ticket: 501, animals: ANIMALS + 1, zoo: 11 }]);
    await login.end();

    const [old] = await leftovers(1);
    expect(operation.result).toMatchObject({ replaced_database: old });
    const { rows: strangers } = await mad.admin.query(
      `SELECT has_database_privilege($2, $1, 'CONNECT') AS login, datallowconn AS open FROM pg_database WHERE datname = $1`,
      [old, user],
    );
    expect(strangers).toEqual([{ login: false, open: false }]);
    expect((await mad.backups().dropReplacedDatabase({ operationId: operation.operationId })).databaseName).toBe(old);
    expect(await leftovers(0)).toEqual([]);
    expect((await mad.backups().dropReplacedDatabase({ operationId: operation.operationId })).databaseName).toBe('');
  });

  test('tells the routers, and those inside find themselves outside', async () => {
    const orgId = await tenant({ animals: 10 });
    const backup = await backUp(orgId);
    const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
    const session = new pg.Client({
      host: route!.host,
      port: route!.port,
      user: route!.user,
      password: route!.password,
      database: route!.database,
    });
    const lost = new Promise((resolve) => session.on('error', resolve));
    await session.connect();
    const changes = await mad.rows.query(
      'SELECT count(*)::int AS n FROM provisioner.tenant_changes WHERE org_id = $1',
      [orgId],
    );
    await restore(backup.backupId, 0);
    await lost;
    const { rows } = await mad.rows.query(
      'SELECT state FROM provisioner.tenant_changes WHERE org_id = $1 ORDER BY seq OFFSET $2',
      [orgId, changes.rows[0].n],
    );
    expect(rows).toEqual([{ state: 'restoring' }, { state: 'ready' }]);
    expect(await leftovers(0)).toEqual([]);
  });

  test('of an older version is brought to the newest', async () => {
    const orgId = await tenant({ animals: 10 });
    const backup = await backUp(orgId);
    const { port } = owner;
    await owner.close();
    owner = await serveSchemaOwner(SCHEMA, [CREATE!, STARS!], port);
    await delay(1_100);
    try {
      expect(await restore(backup.backupId, 0)).toMatchObject({ state: OperationState.SUCCEEDED, error: '' });
      const { rows } = await inside(nameOf(orgId), (client) =>
        client.query(`SELECT DISTINCT stars FROM ${SCHEMA}.zoos`),
      );
      expect(rows).toEqual([{ stars: 3 }]);
      const newer = await backUp(orgId);
      expect(newer.schemaVersion).toBe(STARS!.migrationName);
      await owner.close();
      owner = await serveSchemaOwner(SCHEMA, [CREATE!], port);
      await delay(1_100);
      // The release before does not know it, and says so before it makes anything.
      expect((await restore(newer.backupId)).error).toMatch(/^ARCHIVE_SCHEMA_UNKNOWN: .*Stars/);
    } finally {
      await owner.close();
      owner = await serveSchemaOwner(SCHEMA, [CREATE!], port);
      await delay(1_100);
    }
  });
});

describe('an archive that is not what it was', () => {
  async function refused(backup: Backup, fault: RegExp): Promise<void> {
    const before = await inside(nameOf(backup.orgId), (client) => contentOf(client, SCHEMA));
    for (const tried of [verify, restore]) {
      const operation = await tried(backup.backupId);
      expect(operation.state).toBe(OperationState.FAILED);
      expect(operation.error).toMatch(fault);
    }
    expect(await inside(nameOf(backup.orgId), (client) => contentOf(client, SCHEMA))).toEqual(before);
    const { tenant: after } = await mad.tenants().ensureTenant({ orgId: backup.orgId, schema: SCHEMA });
    expect(after).toMatchObject({ state: TenantState.READY, step: '' });
    expect(await leftovers(0)).toEqual([]);
  }

  test('is refused by name, and nothing of it is restored', async () => {
    const orgId = await tenant();
    const backup = await backUp(orgId);
    const path = await archiveOf(backup);
    const whole = await readFile(path);
    await writeFile(path, whole.subarray(0, whole.length - 100));
    await refused(backup, /^ARCHIVE_TRUNCATED/);
    const noted = (await mad.backups().getBackup({ backupId: backup.backupId })).backup!;
    expect(noted.verifyError).toMatch(/^ARCHIVE_TRUNCATED/);
    const flipped = Buffer.from(whole);
    flipped[Math.floor(whole.length / 2)]! ^= 4;
    await writeFile(path, flipped);
    await refused(backup, /^ARCHIVE_ALTERED/);
    // Another backup of the same organization in its place.
    await copyFile(await archiveOf(await backUp(orgId)), path);
    await refused(backup, /^ARCHIVE_SWAPPED/);
    const swapped = (await mad.backups().getBackup({ backupId: backup.backupId })).backup!;
    expect(swapped.verifyError).toMatch(/^ARCHIVE_SWAPPED/);
    await writeFile(path, whole);
    expect((await verify(backup.backupId)).error).toBe('');
    expect((await mad.backups().getBackup({ backupId: backup.backupId })).backup!.verifyError).toBe('');
  });

  test('is refused when its key was destroyed', async () => {
    const orgId = await tenant({ animals: 10 });
    const backup = await backUp(orgId);
    // A key of a newer version took over the tenant's passwords; the one of the archive is gone.
    await mad.rows.query(
      `INSERT INTO provisioner.data_keys (org_id, version, wrapped_key, master_key_version)
       SELECT org_id, 2, wrapped_key, master_key_version FROM provisioner.data_keys WHERE org_id = $1`,
      [orgId],
    );
    const path = await archiveOf(backup);
    const text = (await readFile(path)).toString('latin1').replace('"key_version":1', '"key_version":9');
    await writeFile(path, Buffer.from(text, 'latin1'));
    await mad.rows.query('DELETE FROM provisioner.data_keys WHERE org_id = $1 AND version = 2', [orgId]);
    await refused(backup, /^ARCHIVE_KEY_UNAVAILABLE/);
  });
});

describe('under another master key', () => {
  test('nothing is made, tried or restored, and the error says why; with the right one everything is as it was', async () => {
    const orgId = await tenant({ animals: 10 });
    const backup = await backUp(orgId);
    const before = await inside(nameOf(orgId), (client) => contentOf(client, SCHEMA));
    const right = mad.environment.PROVISIONER_MASTER_KEY!;
    await mad.stop();
    mad.environment.PROVISIONER_MASTER_KEY = randomBytes(32).toString('base64');
    await mad.start();
    try {
      const { operation } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
      for (const end of [await mad.ended(operation), await verify(backup.backupId), await restore(backup.backupId)]) {
        expect(end.state).toBe(OperationState.FAILED);
        expect(end.error).toMatch(/does not open: the master key is another one/);
      }
    } finally {
      await mad.stop();
      mad.environment.PROVISIONER_MASTER_KEY = right;
      await mad.start();
    }
    expect((await verify(backup.backupId)).error).toBe('');
    expect(await inside(nameOf(orgId), (client) => contentOf(client, SCHEMA))).toEqual(before);
  });
});

describe('beside other operations', () => {
  test('a suspension does not wait for a backup: it is given up', async () => {
    const orgId = await tenant({ animals: 10 });
    await inside(nameOf(orgId), async (client) => {
      await client.query(`BEGIN; LOCK TABLE ${SCHEMA}.zoos`);
      const { operation } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
      const busy = await failure(mad.backups().createBackup({ orgId, schema: SCHEMA }));
      expect([busy.code, reasonOf(busy)]).toEqual([Code.Unavailable, 'TENANT_PROVISIONING']);
      const { tenants } = await mad.tenants().suspendTenants({ orgId });
      expect(tenants).toMatchObject([{ state: TenantState.SUSPENDED }]);
      const after = (await mad.operations().getOperation({ operationId: operation!.operationId })).operation!;
      expect(after.state).toBe(OperationState.CANCELLED);
      await client.query('ROLLBACK');
    });
    const { backups } = await mad.backups().listBackups({ orgId });
    expect(backups.map(({ state }) => state)).toEqual([BackupState.FAILED]);
    // One of a suspended tenant is made all the same.
    await backUp(orgId);
  });
});

describe('listing and removing', () => {
  test('goes page by page, newest first; what is removed is gone from the store', async () => {
    const orgId = await tenant({ animals: 5 });
    const made: Backup[] = [];
    for (let n = 0; n < 3; n += 1) made.push(await backUp(orgId));
    const first = await mad.backups().listBackups({ orgId, pageSize: 2 });
    const second = await mad.backups().listBackups({ orgId, pageSize: 2, pageToken: first.nextPageToken });
    expect([...first.backups, ...second.backups].map(({ backupId }) => backupId)).toEqual(
      made.map(({ backupId }) => backupId).toReversed(),
    );
    expect(second.nextPageToken).toBe('');
    const path = await archiveOf(made[0]!);
    await mad.backups().deleteBackup({ backupId: made[0]!.backupId });
    await expect(readFile(path)).rejects.toThrow('ENOENT');
    expect((await failure(mad.backups().getBackup({ backupId: made[0]!.backupId }))).code).toBe(Code.NotFound);
    for (let wait = 0; wait < 300 && !mad.events.some(({ action }) => action === 'backups.delete'); wait += 1)
      await delay(50);
    expect(mad.events.find(({ action }) => action === 'backups.delete')).toMatchObject({
      orgId,
      actorKind: 'platform',
      metadata: { backup_id: made[0]!.backupId },
    });
    const forged = Buffer.from(JSON.stringify(['x', ['yesterday', "' OR 1=1"]])).toString('base64url');
    expect((await failure(mad.backups().listBackups({ orgId, pageToken: forged }))).code).toBe(Code.InvalidArgument);
  });
});

describe('a policy', () => {
  test("is everybody's until the organization gets its own", async () => {
    const orgId = uuidv7();
    expect(await mad.backups().getBackupPolicy({ orgId })).toMatchObject({
      isDefault: true,
      policy: { everyHours: 0, keep: 7 },
    });
    await mad.backups().setBackupPolicy({ orgId, everyHours: 6, keep: 28 });
    expect(await mad.backups().getBackupPolicy({ orgId })).toMatchObject({
      isDefault: false,
      policy: { everyHours: 6, keep: 28 },
    });
    expect((await failure(mad.backups().setBackupPolicy({ orgId, everyHours: 1, keep: 0 }))).code).toBe(
      Code.InvalidArgument,
    );
  });
});
