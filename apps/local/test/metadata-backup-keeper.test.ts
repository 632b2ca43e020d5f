import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { catalogMigrations } from '@mad/catalog';
import { identityMigrations } from '@mad/identity';
import { openObjectStore } from '@mad/object-store';
import { createLogger, createMetrics, HOUR_MS, mergedMetricsText, type Metrics } from '@mad/process';
import { lastMetadataArchive, parseMasterKeys, provisionerMigrations } from '@mad/provisioner';
import { metadataDatabase, testCluster, type TestDatabase } from '@mad/testing';
import { backUpMetadata, type ArchivedPlace } from '../src/metadata-backup.ts';
import { MetadataBackupKeeper } from '../src/metadata-backup-keeper.ts';

const SLOW = 120_000;

let home: string;
let database: TestDatabase;
let place: ArchivedPlace;
let metrics: Metrics;
let log: string[];

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-metadata-clock-'));
  const services = [
    { schema: 'identity', migrations: identityMigrations },
    { schema: 'catalog', migrations: catalogMigrations },
    { schema: 'provisioner', migrations: provisionerMigrations },
  ];
  database = await metadataDatabase({ services });
  place = {
    adminUrl: testCluster().adminUrl,
    database: database.name,
    master: parseMasterKeys(randomBytes(32).toString('base64')),
    objectStoreUrl: pathToFileURL(home).href,
  };
}, SLOW);

afterAll(async () => {
  await database?.drop();
  await rm(home, { recursive: true, force: true });
});

function keeper(everyHours: number, more: { keep?: number; retryMs?: number } = {}): MetadataBackupKeeper {
  metrics = createMetrics('local');
  log = [];
  const logger = createLogger('local', { level: 'info', destination: { write: (line) => void log.push(line) } });
  return new MetadataBackupKeeper({ place, logger, metrics, everyHours, keep: 2, lookMs: 20, ...more });
}

const archives = (folder: string): Promise<string[]> => readdir(join(home, folder)).catch(() => []);

const failed = async (): Promise<string | undefined> =>
  /^metadata_backup_failed(?:{[^}]*})? (.+)$/m.exec(await mergedMetricsText([metrics]))?.[1];

async function until(look: () => Promise<boolean>): Promise<void> {
  while (!(await look())) await delay(20);
}

test(
  'one is made at once, then when the newest is old enough, whoever made it; beyond the number the oldest go',
  async () => {
    const store = openObjectStore(place.objectStoreUrl);
    expect(await lastMetadataArchive(store)).toBeUndefined();
    const began = Date.now();
    const daily = keeper(24);
    await until(
      async () => (await archives('metadata')).length === 1 && (await archives('metadata-keys')).length === 1,
    );
    const [first] = await archives('metadata');
    await delay(200);
    expect(await archives('metadata')).toEqual([first]);
    await daily.close();
    expect(await failed()).toBe('0');
    // Its key tells when: to the second.
    const at = (await lastMetadataArchive(store))!.getTime();
    expect(at).toBeGreaterThan(began - 1_000);
    expect(at).toBeLessThanOrEqual(Date.now());

    // A day later: the same archive, of yesterday.
    const yesterday = new Date(Date.now() - 25 * HOUR_MS).toISOString().replace(/[-:]|\.\d+/g, '');
    await rename(join(home, 'metadata', first!), join(home, 'metadata', first!.replace(/^[^-]+/, yesterday)));
    await backUpMetadata(place, { keep: 2 });
    const byHand = (await archives('metadata')).toSorted().at(-1);
    const satisfied = keeper(24);
    await delay(200);
    await satisfied.close();
    expect(await archives('metadata')).toHaveLength(2);

    // Always due: the clock goes on, and only the newest two and the newest keys stay.
    const eager = keeper(1_000 / HOUR_MS);
    await until(async () => !(await archives('metadata')).includes(byHand!));
    await eager.close();
    expect(await archives('metadata')).toHaveLength(2);
    expect(await archives('metadata-keys')).toHaveLength(1);
    expect(log.filter((line) => line.includes('"metadata backup"')).length).toBeGreaterThanOrEqual(2);

    const never = keeper(0);
    const before = await archives('metadata');
    await delay(200);
    await never.close();
    expect(await archives('metadata')).toEqual(before);
  },
  SLOW,
);

test(
  'one that fails is told in the log and the metrics, what there was stays, and it is made when the cause is gone',
  async () => {
    const before = await archives('metadata');
    // No archive of keys can be written: one of metadata would be of no use without.
    await rename(join(home, 'metadata-keys'), join(home, 'away'));
    await writeFile(join(home, 'metadata-keys'), 'in the way');
    const failing = keeper(500 / HOUR_MS, { retryMs: 300, keep: 50 });
    await until(async () => (await failed()) === '1');
    expect(log.some((line) => line.includes('a backup of the metadata that was due was not made'))).toBe(true);
    expect(await archives('metadata')).toEqual(before);

    await rm(join(home, 'metadata-keys'));
    await mkdir(join(home, 'metadata-keys'));
    await until(async () => (await failed()) === '0');
    await failing.close();
    expect(await archives('metadata-keys')).toHaveLength(1);
    expect((await archives('metadata')).length).toBeGreaterThan(before.length);
  },
  SLOW,
);

test(
  'one that is given up by a shutdown leaves no part of an archive',
  async () => {
    const before = await archives('metadata');
    const eager = keeper(1 / HOUR_MS, { keep: 50 });
    await eager.close();
    const after = await archives('metadata');
    expect(after.length - before.length).toBeLessThanOrEqual(1);
    const drafts = await readdir(join(home, 'drafts'), { recursive: true, withFileTypes: true });
    expect(drafts.filter((entry) => entry.isFile())).toEqual([]);
    expect(await failed()).toBe('0');
  },
  SLOW,
);
