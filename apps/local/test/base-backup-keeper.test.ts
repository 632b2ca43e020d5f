import { mkdtemp, readdir, realpath, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  lastBaseBackupAttempt,
  listBaseBackups,
  removeEmbeddedPostgres,
  startEmbeddedPostgres,
  takeBaseBackup,
  type EmbeddedPostgres,
} from '@mad/embedded-postgres';
import { createLogger, createMetrics, HOUR_MS, mergedMetricsText, type Metrics } from '@mad/process';
import pg from 'pg';
import { BaseBackupKeeper } from '../src/base-backup-keeper.ts';

const SLOW = 120_000;

let dataDir: string;
let archive: string;
let postgres: EmbeddedPostgres;
let metrics: Metrics;

beforeAll(async () => {
  dataDir = join(await mkdtemp(join(tmpdir(), 'mad-bases-')), 'postgres');
  postgres = await startEmbeddedPostgres({ dataDir, archiveWal: true, settings: { fsync: 'off' } });
  archive = `${await realpath(join(dataDir, 'data'))}-archive`;
}, SLOW);

afterAll(async () => {
  await postgres?.stop();
  await removeEmbeddedPostgres(dataDir);
  await rm(join(dataDir, '..'), { recursive: true, force: true });
}, SLOW);

function keeper(more: {
  everyHours: number;
  keep?: number;
  archiveWaitMs?: number;
  retryMs?: number;
}): BaseBackupKeeper {
  metrics = createMetrics('local');
  const logger = createLogger('local', { level: 'silent' });
  return new BaseBackupKeeper({ dataDir, adminUrl: postgres.adminUrl, logger, metrics, keep: 2, lookMs: 20, ...more });
}

/** The value of one gauge; undefined when it has none. */
async function gauge(name: string): Promise<number | undefined> {
  const text = await mergedMetricsText([metrics]);
  const found = new RegExp(`^${name}(?:{[^}]*})? (.+)$`, 'm').exec(text)?.[1];
  return found === undefined ? undefined : Number(found);
}

async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    await delay(20);
  }
}

const names = async (): Promise<string[]> => (await listBaseBackups(dataDir)).map(({ name }) => name);

/** Fills a segment of the log, so that the next copy begins in a later one. */
async function switchLog(): Promise<void> {
  const client = new pg.Client({ connectionString: postgres.adminUrl });
  await client.connect();
  await client.query(`CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1); SELECT pg_switch_wal()`);
  await client.end();
}

test(
  'one is made at once, then when the last one is old enough; old copies go, and of the log what no copy needs',
  async () => {
    const daily = keeper({ everyHours: 24 });
    const [first] = await until(async () => ((await names()).length === 1 ? names() : undefined));
    await delay(200);
    expect(await names()).toEqual([first]);
    await daily.close();
    expect(await gauge('base_backups')).toBe(1);
    expect(await gauge('base_backup_failed')).toBe(0);

    await switchLog();
    const eager = keeper({ everyHours: 500 / HOUR_MS });
    await until(async () => ((await names()).length === 2 && !(await names()).includes(first!) ? true : undefined));
    await eager.close();
    const [oldest, newest] = await listBaseBackups(dataDir);
    const kept = (await readdir(join(archive, 'wal'))).map((name) => name.slice(0, 24)).sort();
    // All that the older of the two needs, and nothing before it.
    expect(kept[0]).toBe(oldest!.firstSegment);
    expect(kept).toContain(newest!.firstSegment);
    expect((await readdir(join(archive, 'bases'))).sort()).toEqual([oldest!.name, newest!.name]);
    expect(await gauge('base_backup_age_seconds')).toBeLessThan(120);
  },
  SLOW,
);

test(
  'one that fails is named and shows in the metrics, the copies before it stay, and it is made when the cause is gone',
  async () => {
    const before = await names();
    await rename(join(archive, 'wal'), join(archive, 'away'));
    await expect(takeBaseBackup(dataDir, postgres.adminUrl, { archiveWaitMs: 1_500 })).rejects.toThrow(
      /^the log was not archived within 1.5 s; [0-9A-F]{24}.* could not be archived$/,
    );
    const failing = keeper({ everyHours: 500 / HOUR_MS, archiveWaitMs: 1_500, retryMs: 200 });
    await until(async () => ((await gauge('base_backup_failed')) === 1 ? true : undefined));
    expect((await lastBaseBackupAttempt(dataDir))!.error).toMatch(/^the log was not archived/);
    expect(await names()).toEqual(before);

    await rename(join(archive, 'away'), join(archive, 'wal'));
    await until(async () => ((await gauge('base_backup_failed')) === 0 ? true : undefined));
    await failing.close();
    expect(await names()).not.toEqual(before);
    expect((await names()).length).toBe(2);
    expect((await lastBaseBackupAttempt(dataDir))!.error).toBe('');
  },
  SLOW,
);

test(
  'two are not made at once, and one that is given up leaves neither a copy nor the server in backup mode',
  async () => {
    const before = await names();
    const [one, other] = await Promise.allSettled([
      takeBaseBackup(dataDir, postgres.adminUrl),
      takeBaseBackup(dataDir, postgres.adminUrl),
    ]);
    const reasons = [one, other].flatMap((end) => (end.status === 'rejected' ? [(end.reason as Error).message] : []));
    expect(reasons).toEqual(['another base backup is being made']);
    expect(await names()).toHaveLength(2);

    const made = await names();
    expect(made).not.toEqual(before);
    const stop = new AbortController();
    const given = takeBaseBackup(dataDir, postgres.adminUrl, { signal: stop.signal });
    await until(async () =>
      (await readdir(join(archive, 'bases'))).some((name) => name.endsWith('.draft')) ? true : undefined,
    );
    stop.abort();
    await expect(given).rejects.toThrow();
    expect(await names()).toEqual(made);
    await takeBaseBackup(dataDir, postgres.adminUrl);
    expect((await readdir(join(archive, 'bases'))).filter((name) => name.endsWith('.draft'))).toEqual([]);
  },
  SLOW,
);
