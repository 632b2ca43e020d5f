import { readdir } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { createClient } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { OperationState, ReconcileService, TenantState } from '@mad/proto/provisioner';
import { openSmallDisk, platformToken, smallDiskMissing, type SmallDisk } from '@mad/testing';
import { archivedMigrations, contentOf, fill } from './archived-schema.ts';
import { inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'crammed';
const missing = smallDiskMissing();
const onDisk = missing === undefined ? describe : describe.skip;

let disk: SmallDisk;
let mad: RunningProvisioner;

beforeAll(async () => {
  if (missing !== undefined) return;
  disk = await openSmallDisk(64);
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: archivedMigrations(SCHEMA),
    environment: {
      OBJECT_STORE_URL: pathToFileURL(disk.folder).href,
      PROVISIONER_BACKUP_EVERY_HOURS: '0',
      PROVISIONER_CLEANUP_GRACE_MS: '0',
    },
  });
});

afterAll(async () => {
  await mad?.close();
  await disk?.close();
});

const ensure = async (orgId: string) => (await mad.tenants().ensureTenant({ orgId, schema: SCHEMA })).tenant!;

onDisk(`a disk that is full${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  test('of the object store fails a backup by name and leaves nothing of it; the next one is whole', async () => {
    const orgId = uuidv7();
    const { databaseName } = await ensure(orgId);
    await inside(databaseName, (client) => fill(client, SCHEMA, 4_000));
    const before = await inside(databaseName, (client) => contentOf(client, SCHEMA));
    await disk.fill(20_000);
    const full = await mad.backups().createBackup({ orgId, schema: SCHEMA });
    const failed = await mad.ended(full.operation);
    expect(failed).toMatchObject({ state: OperationState.FAILED, error: expect.stringContaining('no space left') });
    const left = await readdir(disk.folder, { recursive: true, withFileTypes: true });
    expect(left.filter((one) => one.isFile()).map(({ name }) => name)).toEqual([]);
    await disk.relieve();
    const { backup, operation } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED });
    const { operation: verifying } = await mad.backups().verifyBackup({ backupId: backup!.backupId });
    expect(await mad.ended(verifying)).toMatchObject({ state: OperationState.SUCCEEDED });
    expect(await inside(databaseName, (client) => contentOf(client, SCHEMA))).toEqual(before);
  }, 60_000);

  test('of a server fails a new organization by name; where there is room again it is made, and nothing is left over', async () => {
    const { rows } = await mad.admin.query<{ name: string }>(
      `SELECT datname AS name FROM pg_database WHERE datname LIKE 'mad\\_${SCHEMA}\\_template\\_%'`,
    );
    // A clone is where its template is.
    await mad.admin.query(`ALTER DATABASE ${rows[0]!.name} IS_TEMPLATE false`);
    await disk.hold(rows[0]!.name);
    await mad.admin.query(`ALTER DATABASE ${rows[0]!.name} IS_TEMPLATE true ALLOW_CONNECTIONS false`);
    // Postgres makes the files of a clone with holes, and finds out when it fills them: so little that not even the files fit.
    await disk.fill(100_000);
    const orgId = uuidv7();
    const refused = await ensure(orgId);
    expect(refused.state).not.toBe(TenantState.READY);
    expect(refused.lastError).toContain('No space left');
    await disk.relieve();
    expect(await ensure(orgId)).toMatchObject({ state: TenantState.READY, lastError: '' });
    const fleet = createClient(
      ReconcileService,
      mad.as(() => platformToken({ permissions: ['platform.fleet.read'] })),
    );
    expect((await fleet.inspectFleet({})).differences).toEqual([]);
    expect((await mad.objects()).databases).toHaveLength(2);
    await mad.admin.query(`ALTER DATABASE ${rows[0]!.name} IS_TEMPLATE false`);
    await mad.admin.query(`DROP DATABASE ${refused.databaseName} WITH (FORCE)`);
  }, 60_000);
});
