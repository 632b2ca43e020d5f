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

const left = (sql: string): Promise<number> => running(`SELECT (${sql})::int AS n`);

const LOOKS = `SELECT count(*) FROM provisioner_boss.job
  WHERE name = 'backup-schedule' AND state < 'completed' AND start_after <= now()`;
const OPERATIONS = `SELECT count(*) FROM provisioner.operations WHERE state = 'running'`;

async function ended(...whats: string[]): Promise<void> {
  for (const until = performance.now() + WAIT_MS; performance.now() < until; await delay(50)) {
    const counts = await Promise.all(whats.map(left));
    if (counts.every((count) => count === 0)) return;
  }
  throw new Error('the clock never came to rest');
}

const strike = (): Promise<unknown> =>
  mad.rows.query(`INSERT INTO provisioner_boss.job (name, data) VALUES ('backup-schedule', '{}')`);

/** What the clock does every five minutes; returns when all it began has ended. */
async function tick(): Promise<void> {
  await strike();
  await ended(LOOKS, OPERATIONS);
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

const triesBegun = (): Promise<number> =>
  running(`SELECT count(*)::int AS n FROM provisioner.operations WHERE kind = 'verify_backup'`);

test('one look tries every backup that is due, one at a time, the tenant that was tried the longest ago first', async () => {
  const orgs = await Promise.all(Array.from({ length: 4 }, ensure));
  // The first look backs up all of them and tries them as well: a look goes on until nothing is due.
  await tick();
  const newest = async (): Promise<Backup[]> =>
    Promise.all(orgs.map(async (orgId) => (await backupsOf(orgId)).find(({ scheduled }) => scheduled)!));
  for (const backup of await newest()) {
    expect(backup).toMatchObject({ state: BackupState.READY, verifyTime: expect.anything(), verifyError: '' });
  }
  const begun = await triesBegun();
  await tick();
  expect(await triesBegun()).toBe(begun);

  // A week later, the third one's last try the longest ago.
  await mad.rows.query(
    `UPDATE provisioner.operations SET started_at = started_at - interval '8 days' WHERE kind = 'verify_backup'`,
  );
  await mad.rows.query(
    `UPDATE provisioner.backups SET tried_at = tried_at - CASE org_id WHEN $1 THEN 30 ELSE 8 END * interval '1 day'`,
    [orgs[2]],
  );
  await tick();
  const { rows } = await mad.rows.query<{ org_id: string; started_at: Date; ended_at: Date }>(
    `SELECT org_id, started_at, ended_at FROM provisioner.operations
     WHERE kind = 'verify_backup' AND started_at > now() - interval '1 day' ORDER BY started_at, operation_id`,
  );
  expect(rows.map(({ org_id: orgId }) => orgId)).toEqual(expect.arrayContaining(orgs));
  expect(rows[0]!.org_id).toBe(orgs[2]);
  // The next one begins when the one before has ended.
  for (const [index, row] of rows.slice(1).entries()) {
    expect(row.started_at.getTime()).toBeGreaterThanOrEqual(rows[index]!.ended_at.getTime());
  }
}, 120_000);

test('while a try of an earlier look is at work no other is begun, and backups are made nevertheless', async () => {
  const orgId = await ensure();
  // One that nobody here carries out: another process's.
  const { rows } = await mad.rows.query<{ operation_id: string }>(
    `INSERT INTO provisioner.operations (operation_id, org_id, schema, kind) VALUES (gen_random_uuid(), $1, $2, 'verify_backup')
     RETURNING operation_id`,
    [uuidv7(), SCHEMA],
  );
  const begun = await triesBegun();
  await strike();
  await ended(LOOKS);
  expect((await backupsOf(orgId))[0]!.state).toBe(BackupState.READY);
  expect((await backupsOf(orgId))[0]!.verifyTime).toBeUndefined();
  expect(await triesBegun()).toBe(begun);
  await mad.rows.query(
    `UPDATE provisioner.operations SET state = 'succeeded', ended_at = now() WHERE operation_id = $1`,
    [rows[0]!.operation_id],
  );
  await tick();
  expect((await backupsOf(orgId))[0]).toMatchObject({ verifyTime: expect.anything(), verifyError: '' });
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
