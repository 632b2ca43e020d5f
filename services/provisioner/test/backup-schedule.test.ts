import { readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { BackupState, TenantState, type Backup } from '@mad/proto/provisioner';
import { beyondRetention } from '../src/domain/backup-rules.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'clocked';
const WAIT_MS = 60_000;

let mad: RunningProvisioner;

beforeAll(async () => {
  const environment = { PROVISIONER_BACKUP_KEEP: '2', PROVISIONER_CLEANUP_GRACE_MS: '0' };
  mad = await runProvisioner({ schema: SCHEMA, environment });
});

afterAll(() => mad?.close());

async function ensure(): Promise<string> {
  const orgId = uuidv7();
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(tenant!.state).toBe(TenantState.READY);
  return orgId;
}

const running = async (sql: string): Promise<number> => (await mad.rows.query<{ n: number }>(sql)).rows[0]!.n;

/** What the clock does every five minutes; returns when all it began has ended. */
async function tick(): Promise<void> {
  await mad.rows.query(`INSERT INTO provisioner_boss.job (name, data) VALUES ('backup-schedule', '{}')`);
  for (const until = performance.now() + WAIT_MS; performance.now() < until; await delay(50)) {
    const left = await running(
      `SELECT (SELECT count(*) FROM provisioner_boss.job WHERE name = 'backup-schedule' AND state < 'completed'
           AND start_after <= now())::int
         + (SELECT count(*) FROM provisioner.operations WHERE state = 'running')::int AS n`,
    );
    if (left === 0) return;
  }
  throw new Error('the clock never came to rest');
}

const backupsOf = async (orgId: string): Promise<Backup[]> => (await mad.backups().listBackups({ orgId })).backups;

const age = (hours: number): Promise<unknown> =>
  mad.rows.query(
    `UPDATE provisioner.backups SET created_at = created_at - $1 * interval '1 hour',
       tried_at = tried_at - $1 * interval '1 hour', verified_at = verified_at - $1 * interval '1 hour'`,
    [hours],
  );

test('every tenant is backed up when it is due, by its own policy, and only as many are kept', async () => {
  const [daily, never, hourly] = [await ensure(), await ensure(), await ensure()];
  await mad.backups().setBackupPolicy({ orgId: never, everyHours: 0, keep: 1 });
  await mad.backups().setBackupPolicy({ orgId: hourly, everyHours: 1, keep: 3 });
  const counts = async (): Promise<number[]> =>
    Promise.all([daily, never, hourly].map(async (orgId) => (await backupsOf(orgId)).length));

  await tick();
  expect(await counts()).toEqual([1, 0, 1]);
  expect((await backupsOf(daily))[0]).toMatchObject({ scheduled: true, state: BackupState.READY });
  await tick();
  expect(await counts()).toEqual([1, 0, 1]);
  await age(2);
  await tick();
  expect(await counts()).toEqual([1, 0, 2]);
  // One somebody asked for is neither counted nor removed.
  await mad.backups().createBackup({ orgId: daily, schema: SCHEMA });
  for (let day = 0; day < 4; day += 1) {
    await age(25);
    await tick();
  }
  // What one look begins beyond the number, the next removes.
  await tick();
  let kept = 0;
  for (const [orgId, keep] of [
    [daily, 2],
    [hourly, 3],
  ] as const) {
    const backups = await backupsOf(orgId);
    const scheduled = backups.filter((backup) => backup.scheduled);
    expect(backups.length - scheduled.length).toBe(orgId === daily ? 1 : 0);
    // Beyond the number only the newest one that was proven whole, where none of the newer ones was.
    const beyond = scheduled.slice(keep);
    expect(scheduled.length).toBeGreaterThanOrEqual(keep);
    expect(beyond.length).toBeLessThanOrEqual(1);
    expect(beyond.filter(({ verifyTime }) => verifyTime === undefined)).toEqual([]);
    kept += backups.length;
  }
  const stored = await readdir(mad.objectsFolder, { recursive: true, withFileTypes: true });
  expect(stored.filter((entry) => entry.isFile())).toHaveLength(kept);
}, 120_000);

test('backups are tried by restoring them, the tenant that was tried the longest ago first', async () => {
  const orgs = [await ensure(), await ensure()];
  for (const orgId of orgs) await mad.backups().setBackupPolicy({ orgId, everyHours: 24, keep: 2 });
  // One try at each look; every tenant of this file gets its turn.
  for (let look = 0; look < 8; look += 1) await tick();
  for (const orgId of orgs) {
    const [newest] = await backupsOf(orgId);
    expect(newest).toMatchObject({ verifyTime: expect.anything(), verifyError: '' });
  }
  const before = await running(`SELECT count(*)::int AS n FROM provisioner.operations WHERE kind = 'verify_backup'`);
  await tick();
  expect(await running(`SELECT count(*)::int AS n FROM provisioner.operations WHERE kind = 'verify_backup'`)).toBe(
    before,
  );
}, 120_000);

test('the newest backup that was proven whole outlives the number that is kept', () => {
  const backup = (day: number, verified = false) => ({
    backupId: String(day),
    createdAt: new Date(Date.UTC(2026, 0, day)),
    verified,
  });
  const ids = (backups: { backupId: string }[]): string[] => backups.map(({ backupId }) => backupId);
  expect(ids(beyondRetention([backup(1), backup(2), backup(3)], 2))).toEqual(['1']);
  expect(ids(beyondRetention([backup(1, true), backup(2), backup(3)], 2))).toEqual([]);
  expect(ids(beyondRetention([backup(1, true), backup(2, true), backup(3), backup(4)], 2))).toEqual(['1']);
  expect(beyondRetention([], 2)).toEqual([]);
});
