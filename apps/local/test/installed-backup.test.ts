import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL, fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { catalogMigrations } from '@mad/catalog';
import { identityMigrations } from '@mad/identity';
import { clientOptions } from '@mad/postgres';
import { provisionerMigrations } from '@mad/provisioner';
import { metadataDatabase, testCluster, testServiceKeys, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { eventually } from './support/fleet.ts';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const SLOW = 120_000;

let home: string;
let database: TestDatabase;
let settings: Record<string, string>;
let replaced: string | undefined;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-installed-'));
  const services = [
    { schema: 'identity', migrations: identityMigrations },
    { schema: 'catalog', migrations: catalogMigrations },
    { schema: 'provisioner', migrations: provisionerMigrations },
  ];
  database = await metadataDatabase({ services });
  await mkdir(join(home, 'objects'));
  await writeFile(join(home, 'install_admin_url'), `${testCluster().adminUrl}\n`);
  const keys = await testServiceKeys(['provisioner']);
  settings = {
    PATH: process.env.PATH!,
    INSTALL_ADMIN_URL_FILE: join(home, 'install_admin_url'),
    INSTALL_MIGRATE_URL: database.url('mad_migrator'),
    PROVISIONER_MASTER_KEY: randomBytes(32).toString('base64'),
    MAD_SERVICE_KEYS: JSON.stringify(keys.public),
    OBJECT_STORE_URL: pathToFileURL(join(home, 'objects')).href,
  };
}, SLOW);

afterAll(async () => {
  if (replaced !== undefined) await query(testCluster().adminUrl, `DROP DATABASE IF EXISTS ${replaced} WITH (FORCE)`);
  await database?.drop();
  await rm(home, { recursive: true, force: true });
});

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client(clientOptions(url));
  await client.connect();
  const { rows } = await client.query(sql);
  await client.end();
  return rows as unknown[];
}

function main(
  args: string[],
  env = settings,
): { child: ChildProcessWithoutNullStreams; said: string[]; code: Promise<number | null> } {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], { env, cwd: home });
  const said: string[] = [];
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes: Buffer) => said.push(bytes.toString()));
  return { child, said, code: new Promise((resolve) => child.once('close', resolve)) };
}

test(
  'where the services run elsewhere, a process with the settings of the container archives the metadata by the clock',
  async () => {
    const keeper = main(['metadata-keep']);
    const [archive] = await eventually(
      'an archive is there',
      async () => {
        const found = await readdir(join(home, 'objects', 'metadata')).catch(() => []);
        return found.length > 0 && found;
      },
      SLOW,
    );
    await eventually('it says so', () => Promise.resolve(keeper.said.join('').includes('"metadata backup"')));
    keeper.child.kill('SIGTERM');
    expect(await keeper.code).toBe(0);
    expect(keeper.said.join('')).not.toContain(new URL(testCluster().adminUrl).password);

    const verify = main(['metadata-verify', `metadata/${archive}`]);
    expect([await verify.code, verify.said.join('')]).toEqual([0, expect.stringMatching(/ is whole: \d+ rows\n$/)]);

    await query(
      database.adminUrl,
      `INSERT INTO identity.organizations (org_id, name, slug, status, region, quotas)
       VALUES (gen_random_uuid(), 'later', 'later', 'active', 'local', '{}')`,
    );
    const restore = main(['metadata-restore', `metadata/${archive}`, '--json']);
    expect(await restore.code).toBe(0);
    ({ replaced } = JSON.parse(restore.said.join('')) as { replaced: string });
    expect(await query(database.adminUrl, 'SELECT slug FROM identity.organizations')).toEqual([]);
  },
  SLOW,
);

test(
  'settings that are missing are named, all at once, and none is repeated',
  async () => {
    const { PATH, INSTALL_ADMIN_URL_FILE } = settings;
    const wrong = 'not a key of 32 bytes';
    const bad = main(['metadata-keep'], {
      PATH: PATH!,
      INSTALL_ADMIN_URL_FILE: INSTALL_ADMIN_URL_FILE!,
      PROVISIONER_MASTER_KEY: wrong,
    });
    expect(await bad.code).toBe(2);
    const said = bad.said.join('');
    for (const name of ['INSTALL_MIGRATE_URL', 'MAD_SERVICE_KEYS', 'OBJECT_STORE_URL', 'PROVISIONER_MASTER_KEY']) {
      expect(said).toContain(name);
    }
    expect(said).not.toContain(wrong);
  },
  SLOW,
);
