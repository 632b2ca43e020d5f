import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Code, createClient, type Client } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { createMetrics, uuidv7 } from '@mad/process';
import { OperationState, ReconcileService, TenantState, type Difference } from '@mad/proto/provisioner';
import { platformToken, testCluster } from '@mad/testing';
import pg from 'pg';
import { readProvisionerConfig, startProvisioner } from '../src/index.ts';
import { archivedMigrations, contentOf, fill } from './archived-schema.ts';
import { silent } from './neighbours.ts';
import { failure, inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'agreed';
const bare = (id: string): string => id.replaceAll('-', '');
const nameOf = (orgId: string): string => `mad_${SCHEMA}_${bare(orgId)}`;

let mad: RunningProvisioner;
let fleet: Client<typeof ReconcileService>;

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: archivedMigrations(SCHEMA),
    environment: {
      PROVISIONER_STOCK_SIZE: '1',
      PROVISIONER_STOCK_PER_MINUTE: '6000',
      PROVISIONER_BACKUP_EVERY_HOURS: '0',
      PROVISIONER_CLEANUP_GRACE_MS: '0',
    },
  });
  fleet = createClient(
    ReconcileService,
    mad.as(() => platformToken({ permissions: ['platform.fleet.read', 'platform.fleet.repair'] })),
  );
});

afterAll(() => mad?.close());

async function ensure(): Promise<string> {
  const orgId = uuidv7();
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  return orgId;
}

async function backUp(orgId: string): Promise<{ backupId: string; file: string }> {
  const { backup, operation } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
  expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED });
  const { rows } = await mad.rows.query<{ object_key: string }>(
    'SELECT object_key FROM provisioner.backups WHERE backup_id = $1',
    [backup!.backupId],
  );
  return { backupId: backup!.backupId, file: rows[0]!.object_key };
}

const put = async (key: string): Promise<string> => {
  await mkdir(dirname(join(mad.objectsFolder, key)), { recursive: true });
  await writeFile(join(mad.objectsFolder, key), 'content');
  return key;
};

async function stock(): Promise<string> {
  for (let wait = 0; wait < 1_000; wait += 1) {
    const { rows } = await mad.rows.query<{ database_name: string }>(
      `SELECT database_name FROM provisioner.tenant_stock WHERE state = 'ready'`,
    );
    if (rows[0] !== undefined) return rows[0].database_name;
    await delay(20);
  }
  throw new Error('there never was stock');
}

const kindsOf = (differences: Difference[]): string[] => differences.map(({ kind, name }) => `${kind} ${name}`).sort();

test('where nothing differs nothing is found, however much is under way', async () => {
  await ensure();
  await stock();
  const [found] = await Promise.all([
    (async () => {
      const all: Difference[] = [];
      for (let round = 0; round < 10; round += 1) all.push(...(await fleet.inspectFleet({})).differences);
      return all;
    })(),
    ...Array.from({ length: 4 }, async () => {
      const orgId = await ensure();
      await backUp(orgId);
      await mad.tenants().suspendTenants({ orgId });
      await mad.tenants().resumeTenants({ orgId });
      await mad.tenants().eraseTenants({ orgId, erasureId: uuidv7(), slug: 'x', requestedBy: uuidv7() });
    }),
  ]);
  expect(found).toEqual([]);
  const { databases, roles, unreachable } = await fleet.inspectFleet({});
  expect(databases).toBeGreaterThan(2);
  expect(roles).toBeGreaterThan(2);
  expect(unreachable).toEqual([]);
}, 240_000);

describe('what is made by hand', () => {
  test('is named and removed, each kind of it; what no rule of ours names is left alone', async () => {
    const erased = await ensure();
    await mad.tenants().eraseTenants({ orgId: erased, erasureId: uuidv7(), slug: 'gone', requestedBy: uuidv7() });
    const digits = 'f'.repeat(16);
    const databases = {
      orphan_database: nameOf(uuidv7()),
      orphan_stock: `mad_${SCHEMA}_stock_${digits}`,
      orphan_copy: `mad_${SCHEMA}_copy_${digits}`,
      orphan_template: `mad_${SCHEMA}_template_${digits}`,
      orphan_reference: `mad_${SCHEMA}_reference_${digits}`,
    };
    const left = nameOf(erased);
    const mine = `mad_${SCHEMA}_keep_my_data`;
    for (const name of [...Object.values(databases), left, mine]) {
      await mad.admin.query(`CREATE DATABASE ${name} OWNER mad_provisioner_admin`);
    }
    const role = `${nameOf(uuidv7())}_a`;
    await mad.rows.query('SELECT 1');
    await inside('postgres', async (client) => {
      // As the provisioner's own roles are: it may drop what it made.
      await client.query('SET ROLE mad_provisioner_admin');
      await client.query(`CREATE ROLE ${role} LOGIN`);
    });
    const orgId = await ensure();
    const archive = await put(`orgs/${orgId}/backups/${uuidv7()}/00ff`);
    const object = await put(`orgs/${erased}/artifacts/aa`);
    await put(`orgs/${orgId}/artifacts/bb`);
    const expected = [
      ...Object.entries(databases).map(([kind, name]) => `${kind} ${name}`),
      `orphan_database ${left}`,
      `orphan_role ${role}`,
      `orphan_archive ${archive}`,
      `orphan_object ${object}`,
    ].sort();
    const found = await fleet.inspectFleet({});
    expect(kindsOf(found.differences)).toEqual(expected);
    expect(found.objects).toBe(3);
    expect(found.differences.every(({ repairable, whatToDo }) => repairable && whatToDo !== '')).toBe(true);

    const repaired = await fleet.repairFleet({});
    expect(kindsOf(repaired.repaired)).toEqual(expected);
    expect(repaired.differences).toEqual([]);
    const { rows } = await mad.admin.query(`SELECT datname FROM pg_database WHERE datname = ANY ($1)`, [
      [...Object.values(databases), left, mine],
    ]);
    expect(rows).toEqual([{ datname: mine }]);
    const { operations } = await mad.operations().listOperations({ kind: 'reconcile' });
    expect(operations).toMatchObject([{ state: OperationState.SUCCEEDED, actorKind: 'platform' }]);
  }, 120_000);

  test('an orphan that becomes somebody’s before it is removed is kept', async () => {
    const orgId = uuidv7();
    await mad.admin.query(`CREATE DATABASE ${nameOf(orgId)} OWNER mad_provisioner_admin`);
    expect(kindsOf((await fleet.inspectFleet({})).differences)).toEqual([`orphan_database ${nameOf(orgId)}`]);
    const [{ tenant }] = await Promise.all([
      mad.tenants().ensureTenant({ orgId, schema: SCHEMA }),
      fleet.repairFleet({}),
    ]);
    expect(tenant!.state).toBe(TenantState.READY);
    await inside(nameOf(orgId), (client) => fill(client, SCHEMA, 10));
    expect((await fleet.repairFleet({})).differences).toEqual([]);
    await inside(nameOf(orgId), (client) => contentOf(client, SCHEMA));
  }, 120_000);
});

describe('what is taken away by hand', () => {
  test('is named with what to do: stock and logins come back by a repair, a database by its backup', async () => {
    const [dropped, barred, archived] = [await ensure(), await ensure(), await ensure()];
    await inside(nameOf(dropped), (client) => fill(client, SCHEMA, 300));
    const content = await inside(nameOf(dropped), (client) => contentOf(client, SCHEMA));
    const { backupId } = await backUp(dropped);
    const lost = await backUp(archived);
    const shelf = await stock();

    await mad.admin.query(`DROP DATABASE ${nameOf(dropped)} WITH (FORCE)`);
    const role = `${nameOf(barred)}_a`;
    await mad.admin.query(`REVOKE CONNECT ON DATABASE ${nameOf(barred)} FROM ${role}`);
    await mad.admin.query(`DROP ROLE ${role}`);
    await rm(join(mad.objectsFolder, lost.file));
    await mad.admin.query(`DROP DATABASE ${shelf} WITH (FORCE)`);

    const found = await fleet.inspectFleet({});
    const expected = [
      `lost_archive ${lost.file}`,
      `lost_database ${nameOf(dropped)}`,
      `lost_role ${role}`,
      `lost_stock ${shelf}`,
    ];
    expect(kindsOf(found.differences)).toEqual(expected);

    const { repaired, differences } = await fleet.repairFleet({});
    expect(kindsOf(repaired)).toEqual([`lost_role ${role}`, `lost_stock ${shelf}`]);
    const named = differences.toSorted((a, b) => (a.kind < b.kind ? -1 : 1));
    expect(named.map(({ kind, whatToDo }) => [kind, whatToDo])).toEqual([
      ['lost_archive', `make another: mad backup create ${archived}, then mad backup delete ${lost.backupId}`],
      ['lost_database', `restore it: mad backup list --org-id ${dropped}, then mad backup restore <backup> --yes`],
    ]);
    // The login works again, with the password the routers know.
    const { route } = await mad.routes().getRoute({ orgId: barred, schema: SCHEMA });
    const login = new pg.Client({
      ...clientOptions(testCluster().adminUrlTo(route!.database)),
      user: route!.user,
      password: route!.password,
    });
    await login.connect();
    await login.query(`SELECT count(*) FROM ${SCHEMA}.migrations`).catch(() => undefined);
    await login.end();

    // What it says works.
    const restored = await mad.backups().restoreBackup({ backupId, keepHours: 0 });
    expect(await mad.ended(restored.operation)).toMatchObject({ state: OperationState.SUCCEEDED, error: '' });
    expect(await inside(nameOf(dropped), (client) => contentOf(client, SCHEMA))).toEqual(content);
    await backUp(archived);
    await mad.backups().deleteBackup({ backupId: lost.backupId });
    await stock();
    expect((await fleet.inspectFleet({})).differences).toEqual([]);
  }, 240_000);
});

test('the keeper tells by metric, and says nothing of a server that is away', async () => {
  await mad.servers().registerServer({
    name: 'away',
    host: '127.0.0.1',
    port: 1,
    region: 'nowhere',
    provisionerPassword: 'x',
    migratorPassword: 'x',
  });
  const name = nameOf(uuidv7());
  await mad.admin.query(`CREATE DATABASE ${name} OWNER mad_provisioner_admin`);
  const metrics = createMetrics('provisioner');
  const environment = { ...mad.environment, PROVISIONER_RECONCILE_MS: '200' };
  const another = await startProvisioner(readProvisionerConfig(environment), { logger: silent, metrics });
  try {
    const valueOf = async (line: string): Promise<string | undefined> =>
      (await metrics.text()).split('\n').find((one) => one.startsWith(line));
    const becomes = async (line: string, value: number): Promise<void> => {
      for (let wait = 0; wait < 1_000; wait += 1) {
        if ((await valueOf(line))?.endsWith(` ${value}`)) return;
        await delay(20);
      }
      throw new Error(`${line} is ${await valueOf(line)}`);
    };
    await becomes('reconcile_unreachable_servers', 1);
    await becomes('reconcile_differences{kind="orphan_database"', 1);
    const { unreachable, repaired } = await fleet.repairFleet({});
    expect(unreachable).toEqual(['away']);
    expect(kindsOf(repaired)).toEqual([`orphan_database ${name}`]);
    await becomes('reconcile_differences{kind="orphan_database"', 0);
  } finally {
    await another.close();
  }
}, 120_000);

test('many databases nobody knows are not dropped: then it is the rows that are wrong', async () => {
  const names = Array.from({ length: 3 }, () => nameOf(uuidv7()));
  for (const name of names) await mad.admin.query(`CREATE DATABASE ${name} OWNER mad_provisioner_admin`);
  const refused = await failure(fleet.repairFleet({ maxDatabases: 2 }));
  expect(refused.code).toBe(Code.FailedPrecondition);
  expect(refused.rawMessage).toBe(
    'max_databases: 3 databases are of organizations nobody knows; are these the right rows?',
  );
  expect(kindsOf((await fleet.inspectFleet({})).differences)).toHaveLength(3);
  expect((await fleet.repairFleet({ maxDatabases: 3 })).repaired).toHaveLength(3);
}, 120_000);

test('looking and repairing are each a permission of the platform’s', async () => {
  const reader = createClient(
    ReconcileService,
    mad.as(() => platformToken({ permissions: ['platform.fleet.read'] })),
  );
  expect((await failure(reader.repairFleet({}))).code).toBe(Code.PermissionDenied);
  const nobody = createClient(
    ReconcileService,
    mad.as(() => platformToken({ permissions: ['platform.servers.read'] })),
  );
  expect((await failure(nobody.inspectFleet({}))).code).toBe(Code.PermissionDenied);
});
