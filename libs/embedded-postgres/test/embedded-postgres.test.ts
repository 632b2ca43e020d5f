import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdtemp, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import pg from 'pg';
import { readEnv } from '@mad/process';
import {
  isInstalled,
  PG_MAJORS,
  readPostgresMajor,
  removeEmbeddedPostgres,
  startEmbeddedPostgres,
} from '../src/index.ts';
import { processStarted } from '../src/owner-file.ts';

let dataDir: string;

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'mad-embedded-test-'));
});

afterEach(async () => {
  await removeEmbeddedPostgres(dataDir);
});

const FAST = { fsync: 'off' };

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

/** False for a zombie too: where nothing reaps the children of dead processes, an ended orphan stays one. */
function alive(pid: number): boolean {
  return processStarted(pid) !== undefined;
}

/** Another Node process that starts a server on `dataDir` and prints its pid; it stays until it is killed. */
async function startInChild(uid?: number): Promise<{ child: ChildProcess; pid: number; adminUrl: string }> {
  const script = join(dataDir, '..', `start-${process.pid}-${Date.now()}.mjs`);
  const source = `
    import { startEmbeddedPostgres } from ${JSON.stringify(new URL('../src/index.ts', import.meta.url).href)};
    const server = await startEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)}, settings: { fsync: 'off' } });
    console.log(JSON.stringify({ pid: server.pid, adminUrl: server.adminUrl }));
    setInterval(() => undefined, 1000);`;
  await writeFile(script, source);
  const child = spawn(process.execPath, [script], { uid, gid: uid, stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  await rm(script);
  return { child, ...(JSON.parse(line) as { pid: number; adminUrl: string }) };
}

test('starts, keeps its data over a restart, and leaves no process behind', async () => {
  const messages: string[] = [];
  const first = await startEmbeddedPostgres({ dataDir, settings: FAST, log: (message) => messages.push(message) });
  const [settings] = await query(
    first.adminUrl,
    `SELECT current_setting('server_version_num')::int / 10000 AS major, current_setting('max_connections') AS max,
            current_setting('reserved_connections') AS reserved, current_setting('listen_addresses') AS listen,
            current_setting('synchronous_commit') AS sync, current_setting('fsync') AS fsync, d.datlocale AS locale,
            current_setting('server_encoding') AS encoding, current_setting('password_encryption') AS passwords
     FROM pg_database d WHERE d.datname = current_database()`,
  );
  expect(settings).toEqual({
    major: PG_MAJORS[0],
    max: '150',
    reserved: '5',
    listen: '127.0.0.1',
    sync: 'on',
    fsync: 'off',
    locale: 'C.UTF-8',
    encoding: 'UTF8',
    passwords: 'scram-sha-256',
  });
  await query(first.adminUrl, `CREATE TABLE kept AS SELECT 42 AS answer`);
  await first.stop();
  await first.stop();
  await first.exited;
  expect(alive(first.pid)).toBe(false);

  const second = await startEmbeddedPostgres({ dataDir, settings: FAST });
  expect(await query(second.adminUrl, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
  await second.stop();
  expect(messages.join('\n')).toMatch(
    /made a new Postgres data directory[\s\S]*ready on 127\.0\.0\.1:\d+ after \d+ ms/,
  );
});

test('keeps the password to itself and asks for it', async () => {
  const server = await startEmbeddedPostgres({ dataDir, settings: FAST });
  const passwordFile = await stat(join(dataDir, 'superuser-password'));
  expect(passwordFile.mode & 0o777).toBe(0o600);
  const wrong = new URL(server.adminUrl);
  wrong.password = 'wrong';
  await expect(query(wrong.href, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
  await server.stop();
});

test('a server orphaned by SIGKILL is ended by the next start, and its committed rows are there', async () => {
  const { child, pid, adminUrl } = await startInChild();
  await query(adminUrl, `CREATE TABLE kept AS SELECT 'committed' AS word`);
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(alive(pid)).toBe(true);

  const server = await startEmbeddedPostgres({ dataDir, settings: FAST });
  expect(alive(pid)).toBe(false);
  expect(await query(server.adminUrl, 'SELECT word FROM kept')).toEqual([{ word: 'committed' }]);
  await server.stop();
});

const asRoot = process.getuid?.() === 0 ? test : test.skip;

asRoot('root keeps data below a private folder, out of reach of the account the server runs under', async () => {
  await chmod(dataDir, 0o700);
  const inner = join(dataDir, 'inner');
  const server = await startEmbeddedPostgres({ dataDir: inner, settings: FAST });
  await query(server.adminUrl, 'CREATE TABLE kept AS SELECT 1 AS one');
  await server.stop();
  const again = await startEmbeddedPostgres({ dataDir: inner, settings: FAST });
  expect(await query(again.adminUrl, 'SELECT one FROM kept')).toEqual([{ one: 1 }]);
  await again.stop();
  const place = await realpath(join(inner, 'data'));
  await removeEmbeddedPostgres(inner);
  await expect(stat(place)).rejects.toMatchObject({ code: 'ENOENT' });
});

asRoot('an ordinary user runs it as itself', async () => {
  const uid = 1; // "daemon": initdb wants an account that the system knows
  await chown(dataDir, uid, uid);
  const { child, pid, adminUrl } = await startInChild(uid);
  expect(await query(adminUrl, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  expect((await stat(`/proc/${pid}`)).uid).toBe(uid);
  child.kill('SIGKILL');
  await once(child, 'exit');
});

test('data in use by a living process are refused', async () => {
  const { child, pid } = await startInChild();
  await expect(startEmbeddedPostgres({ dataDir, settings: FAST })).rejects.toThrow(
    `is in use: process ${child.pid} runs an embedded Postgres on it`,
  );
  expect(alive(pid)).toBe(true);
  child.kill('SIGKILL');
  await once(child, 'exit');
});

test('a server killed with SIGKILL starts again at once', async () => {
  const first = await startEmbeddedPostgres({ dataDir, settings: FAST });
  await query(first.adminUrl, 'CREATE TABLE kept AS SELECT 1 AS one');
  process.kill(first.pid, 'SIGKILL');
  await first.exited;
  const second = await startEmbeddedPostgres({ dataDir, settings: FAST });
  expect(await query(second.adminUrl, 'SELECT one FROM kept')).toEqual([{ one: 1 }]);
  await second.stop();
});

test('a port in use and a setting that does not exist fail with the reason', async () => {
  const first = await startEmbeddedPostgres({ dataDir, settings: FAST });
  const other = await mkdtemp(join(tmpdir(), 'mad-embedded-test-'));
  await expect(startEmbeddedPostgres({ dataDir: other, port: first.port })).rejects.toThrow(/could not bind/);
  await expect(startEmbeddedPostgres({ dataDir: other, settings: { no_such: '1' } })).rejects.toThrow(/no_such/);
  await removeEmbeddedPostgres(other);
  await first.stop();
});

test('a draft that a crash left is thrown away', async () => {
  const broken = join(dataDir, 'draft-left');
  await writeFile(broken, 'half');
  const server = await startEmbeddedPostgres({ dataDir, settings: FAST });
  await expect(stat(broken)).rejects.toMatchObject({ code: 'ENOENT' });
  expect(await readFile(join(dataDir, 'postgres.log'), 'utf8')).toContain('ready to accept connections');
  await server.stop();
});

const with16 = isInstalled(16) ? test : test.skip;

with16('data keep the major they were made with', async () => {
  const first = await startEmbeddedPostgres({ dataDir, major: 16, settings: FAST });
  const ask =
    'SELECT current_setting($$server_version_num$$)::int / 10000 AS major, datcollate FROM pg_database LIMIT 1';
  expect(await query(first.adminUrl, ask)).toEqual([{ major: 16, datcollate: 'C.UTF-8' }]);
  await first.stop();
  await expect(startEmbeddedPostgres({ dataDir, major: 18 })).rejects.toThrow(
    `the data in ${dataDir} are of Postgres 16: they cannot be run by Postgres 18`,
  );
  const again = await startEmbeddedPostgres({ dataDir, settings: FAST });
  expect(await query(again.adminUrl, ask)).toMatchObject([{ major: 16 }]);
  await again.stop();
});

test('the setting takes the majors there are', () => {
  const majors = PG_MAJORS.map((major) => readEnv({ MAD_POSTGRES_MAJOR: String(major) }, readPostgresMajor));
  expect(majors).toEqual([...PG_MAJORS]);
  expect(readEnv({}, readPostgresMajor)).toBeUndefined();
  expect(() => readEnv({ MAD_POSTGRES_MAJOR: '15' }, readPostgresMajor)).toThrow('must be one of 18, 16');
});
