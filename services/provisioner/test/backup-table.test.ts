import { readdir, truncate, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { OperationState, type Backup, type Operation } from '@mad/proto/provisioner';
import { archivedMigrations, contentOf, fill } from './archived-schema.ts';
import { inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'beside';
const SLOW = 120_000;
const ANIMALS = 2_000;

let mad: RunningProvisioner;
beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: archivedMigrations(SCHEMA),
    environment: { PROVISIONER_CLEANUP_GRACE_MS: '0', PROVISIONER_BACKUP_EVERY_HOURS: '0' },
  });
}, SLOW);
afterAll(() => mad?.close());

const nameOf = (orgId: string): string => `mad_${SCHEMA}_${orgId.replaceAll('-', '')}`;

async function backedUp(): Promise<{ database: string; backup: Backup }> {
  const orgId = uuidv7();
  await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  const database = nameOf(orgId);
  await inside(database, (client) => fill(client, SCHEMA, ANIMALS));
  const { backup, operation } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
  expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED });
  return { database, backup: (await mad.backups().getBackup({ backupId: backup!.backupId })).backup! };
}

const restore = async (backupId: string, table: string): Promise<Operation> =>
  mad.ended((await mad.backups().restoreTable({ backupId, table })).operation);

interface Laid {
  tables: { name: string; rows: number; content_sha256: string }[];
}

const tablesBeside = (database: string): Promise<string[]> =>
  inside(database, async (client) => {
    const sql = `SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('restored') AND relkind = 'r' ORDER BY 1`;
    return (await client.query<{ relname: string }>(sql)).rows.map(({ relname }) => relname);
  });

test(
  'a table comes back beside the one in use, as it was archived, with its types; nothing else is changed',
  async () => {
    const { database, backup } = await backedUp();
    const before = await inside(database, async (client) => {
      const { rows } = await client.query<{ sum: string }>(
        `SELECT md5(string_agg((a.animal_id, a.name, a.mood, a.weight, a.photo, a.facts, a.born)::text, '|' ORDER BY animal_id)) AS sum
         FROM ${SCHEMA}.animals a`,
      );
      await client.query(`DELETE FROM ${SCHEMA}.animals WHERE mother IS NOT NULL`);
      await client.query(`UPDATE ${SCHEMA}.animals SET name = 'spoiled', mood = NULL`);
      return rows[0]!.sum;
    });
    const inUse = await inside(database, (client) => contentOf(client, SCHEMA));
    const last = await restore(backup.backupId, 'animals');
    expect(last).toMatchObject({ state: OperationState.SUCCEEDED, error: '', kind: 'restore_table' });
    const archived = backup.tables.find(({ name }) => name === 'animals')!;
    const { tables } = last.result as unknown as Laid;
    expect(tables).toEqual([
      {
        name: expect.stringMatching(/^restored\.animals_[0-9a-f]{8}$/),
        rows: ANIMALS,
        content_sha256: archived.contentSha256,
      },
    ]);
    const back = await inside(database, async (client) => {
      const { rows } = await client.query<{ sum: string; mood: string }>(
        `SELECT md5(string_agg((a.animal_id, a.name, a.mood, a.weight, a.photo, a.facts, a.born)::text, '|' ORDER BY animal_id)) AS sum,
           min(pg_typeof(mood)::text) AS mood FROM ${tables[0]!.name} a`,
      );
      return rows[0]!;
    });
    expect(back).toEqual({ sum: before, mood: `${SCHEMA}.mood` });
    expect(await inside(database, (client) => contentOf(client, SCHEMA))).toEqual(inUse);
    // The organization's own logins see nothing of it.
    const { rows } = await inside(database, (client) =>
      client.query(`SELECT has_schema_privilege('${database}_a', 'restored', 'USAGE') AS may`),
    );
    expect(rows).toEqual([{ may: false }]);
  },
  SLOW,
);

test(
  'a partitioned table brings its partitions, the same table may come twice, and a later backup does not carry them',
  async () => {
    const { database, backup } = await backedUp();
    const first = await restore(backup.backupId, 'visits');
    expect((first.result as unknown as Laid).tables.map(({ name }) => name.replace(/_[0-9a-f]{8}$/, ''))).toEqual([
      'restored.visits_2026_01',
      'restored.visits_2026_02',
    ]);
    await restore(backup.backupId, 'zoos');
    await restore(backup.backupId, 'zoos');
    expect(await tablesBeside(database)).toHaveLength(4);
    const { operation, backup: later } = await mad.backups().createBackup({ orgId: backup.orgId, schema: SCHEMA });
    expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED });
    const { tables } = (await mad.backups().getBackup({ backupId: later!.backupId })).backup!;
    expect(tables.map(({ name }) => name)).toEqual(backup.tables.map(({ name }) => name));
  },
  SLOW,
);

test(
  'an unknown table is refused by the field, and of an archive that was cut nothing is laid',
  async () => {
    const { database, backup } = await backedUp();
    const { backupId, orgId } = backup;
    await expect(mad.backups().restoreTable({ backupId, table: 'animal' })).rejects.toMatchObject({
      code: Code.InvalidArgument,
      message: expect.stringContaining('table'),
    });
    await expect(mad.backups().restoreTable({ backupId, table: '' })).rejects.toMatchObject({
      code: Code.InvalidArgument,
    });
    const folder = join(mad.objectsFolder, 'orgs', orgId, 'backups', backupId);
    const file = join(folder, (await readdir(folder))[0]!);
    await truncate(file, (await stat(file)).size - 40);
    const last = await restore(backupId, 'zoos');
    expect(last).toMatchObject({ state: OperationState.FAILED, error: expect.stringContaining('ARCHIVE_TRUNCATED') });
    expect(await tablesBeside(database)).toEqual([]);
  },
  SLOW,
);
