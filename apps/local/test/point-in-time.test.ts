import { mkdtemp, readdir, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { listBaseBackups, removeEmbeddedPostgres, takeBaseBackup } from '@mad/embedded-postgres';
import { createLogger } from '@mad/process';
import { BackupService, BackupState, OperationService, OperationState } from '@mad/proto/provisioner';
import pg from 'pg';
import { migratorUrl } from '../src/databases.ts';
import { localPlace } from '../src/metadata-backup.ts';
import { backUpThePast, type PastBackup } from '../src/point-in-time.ts';
import { startLocal, type LocalSystem } from '../src/start.ts';
import { eventually } from './support/fleet.ts';
import { newOrganization, signIn, type Person } from './support/people.ts';

const SLOW = 300_000;
const METADATA = 'mad_metadata';
const postgresSettings = { fsync: 'off' };

interface Tenant {
  orgId: string;
  database: string;
}

let home: string;
let system: LocalSystem;
let platform: Person;
let acme: Tenant;
let globex: Tenant;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-pitr-'));
  const logger = createLogger('local', { level: 'silent' });
  const outer = { PROVISIONER_STOCK_SIZE: '0', PROVISIONER_BACKUP_EVERY_HOURS: '0', MAD_BASE_BACKUP_EVERY_HOURS: '0' };
  system = await startLocal({ home, logger, anyPorts: true, outer, postgresSettings, archiveWal: true });
  platform = await signIn(system.url, system.secrets.administrator);
  const made = async (slug: string): Promise<Tenant> => {
    const { organization, databaseName } = await newOrganization(system.url, platform, slug);
    return { orgId: organization.orgId, database: databaseName };
  };
  acme = await made('acme');
  globex = await made('globex');
}, SLOW);

afterAll(async () => {
  await system?.close();
  await removeEmbeddedPostgres(join(home, 'postgres'));
  await rm(home, { recursive: true, force: true });
}, SLOW);

async function inside<R extends pg.QueryResultRow>(database: string, sql: string): Promise<R[]> {
  const url = new URL(system.postgres.adminUrl);
  url.pathname = `/${database}`;
  const client = new pg.Client({ connectionString: url.href });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<R>(sql)).rows;
  } finally {
    await client.end();
  }
}

const write = (database: string, note: string, count: number): Promise<unknown> =>
  inside(
    database,
    `INSERT INTO results.jobs (pipeline_version_id, input_signature, params, status, started_at, ended_at)
     SELECT gen_random_uuid(), repeat('a', 64), jsonb_build_object('note', '${note}', 'n', n), 'completed', now(), now()
     FROM generate_series(1, ${count}) n`,
  );

/** What an organization's jobs come to, and which database they are in. */
async function contentOf({
  database,
}: Tenant): Promise<{ checksum: string; count: number; notes: string; oid: number }> {
  const [found] = await inside<{ checksum: string; count: number; notes: string; oid: number }>(
    database,
    `SELECT md5(string_agg(j::text, '|' ORDER BY job_id)) AS checksum, count(*)::int AS count,
       (SELECT string_agg(DISTINCT params ->> 'note', ',') FROM results.jobs) AS notes,
       (SELECT oid::int FROM pg_database WHERE datname = current_database()) AS oid
     FROM results.jobs j`,
  );
  return found!;
}

const clock = async (): Promise<string> =>
  (await inside<{ at: string }>('postgres', `SELECT clock_timestamp()::text AS at`))[0]!.at;

async function past(orgId: string, to: string): Promise<PastBackup> {
  const { port, adminUrl } = system.postgres;
  const migrateUrl = migratorUrl({ host: '127.0.0.1', port, database: METADATA }, system.secrets);
  const place = localPlace(home, system.secrets, { adminUrl, migrateUrl, database: METADATA });
  return backUpThePast(place, { home, orgId, to, settings: postgresSettings });
}

async function restore(backupId: string): Promise<void> {
  const { operation } = await platform.client(BackupService).restoreBackup({ backupId });
  await eventually('the restore ends', async () => {
    const now = await platform.client(OperationService).getOperation({ operationId: operation!.operationId });
    if (now.operation!.state === OperationState.RUNNING) return false;
    expect(now.operation).toMatchObject({ state: OperationState.SUCCEEDED, error: '' });
    return true;
  });
}

const leftBehind = async (): Promise<string[]> =>
  (await readdir(join(home, 'postgres'))).filter((name) => name.includes('scratch'));

test(
  'an organization is brought back to a moment, to the checksum recorded then; its neighbour is not touched',
  async () => {
    await write(acme.database, 'before the base backup', 50);
    await expect(past(acme.orgId, await clock())).rejects.toThrow(
      /no base backup ended before .*there is no base backup/,
    );
    const early = await clock();
    const base = await takeBaseBackup(join(home, 'postgres'), system.postgres.adminUrl);
    expect(base.files).toBeGreaterThan(1_000);

    await write(acme.database, 'between', 70);
    await inside(acme.database, `DELETE FROM results.jobs WHERE (params ->> 'n')::int % 9 = 0`);
    await write(globex.database, 'neighbour', 30);
    const recorded = await contentOf(acme);
    await delay(20);
    const moment = await clock();
    await delay(20);
    await write(acme.database, 'too late', 40);
    await inside(acme.database, `UPDATE results.jobs SET error = 'spoiled'`);
    await inside(acme.database, `DELETE FROM results.jobs WHERE params ->> 'note' = 'between'`);
    await write(globex.database, 'neighbour, later', 20);
    const neighbour = await contentOf(globex);
    const spoiled = await contentOf(acme);

    const made = await past(acme.orgId, moment);
    // A backup like every other, of that moment; nothing is restored yet.
    expect(await contentOf(acme)).toEqual(spoiled);
    const { backup } = await platform.client(BackupService).getBackup({ backupId: made.backupId });
    expect(backup).toMatchObject({ state: BackupState.READY, orgId: acme.orgId });
    expect(new Date(Number(backup!.snapshotTime!.seconds) * 1_000).toISOString().slice(0, 19)).toBe(
      made.at.slice(0, 19),
    );

    await restore(made.backupId);
    const back = await contentOf(acme);
    expect(back).toMatchObject({ checksum: recorded.checksum, count: recorded.count });
    expect(back.notes).toBe('before the base backup,between');
    expect(back.oid).not.toBe(spoiled.oid);
    expect(await contentOf(globex)).toEqual(neighbour);
    expect(await leftBehind()).toEqual([]);

    // Back and forth: a later moment is still in the log, whatever was restored since; an earlier one never was.
    await expect(past(acme.orgId, early)).rejects.toThrow(/no base backup ended before .*the oldest ends/);
    await expect(past(acme.orgId, '2999-01-01')).rejects.toThrow(/is in the future/);
    await expect(past(acme.orgId, 'yesterday noon')).rejects.toThrow(/timestamp/);
    await expect(past('01900000-0000-7000-8000-000000000000', moment)).rejects.toThrow(/no tenant/);
  },
  SLOW,
);

test(
  'only the two newest base backups stay, and the log goes on after a restart that does not ask for it',
  async () => {
    const dataDir = join(home, 'postgres');
    await takeBaseBackup(dataDir, system.postgres.adminUrl);
    const newest = await takeBaseBackup(dataDir, system.postgres.adminUrl);
    const kept = await listBaseBackups(dataDir);
    expect(kept).toHaveLength(2);
    expect(kept[1]).toEqual(newest);
    const segments = await readdir(join(`${await realpath(join(dataDir, 'data'))}-archive`, 'wal'));
    const full = segments.filter((name) => /^[0-9A-F]{24}\.gz$/.test(name)).sort();
    expect(full[0]!.slice(0, 24) >= kept[0]!.firstSegment).toBe(true);

    await system.close();
    const logger = createLogger('local', { level: 'silent' });
    system = await startLocal({
      home,
      logger,
      anyPorts: true,
      outer: { PROVISIONER_STOCK_SIZE: '0' },
      postgresSettings,
    });
    platform = await signIn(system.url, system.secrets.administrator);
    const before = await contentOf(globex);
    const moment = await clock();
    await delay(20);
    await inside(globex.database, 'DELETE FROM results.jobs');
    const made = await past(globex.orgId, moment);
    await restore(made.backupId);
    expect(await contentOf(globex)).toMatchObject({ checksum: before.checksum, count: before.count });
  },
  SLOW,
);
