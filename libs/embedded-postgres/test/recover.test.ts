import { chmod, mkdtemp, readdir, realpath, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  listBaseBackups,
  recoverTo,
  removeEmbeddedPostgres,
  startEmbeddedPostgres,
  takeBaseBackup,
  type EmbeddedPostgres,
} from '@mad/embedded-postgres';
import pg from 'pg';

const SLOW = 120_000;
const settings = { fsync: 'off' };

let folder: string;
let dataDir: string;
let server: EmbeddedPostgres;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mad-recover-'));
  await chmod(folder, 0o755);
  // What a shell, and the server's own placeholders, would stumble over.
  dataDir = join(folder, `it's a 50% "one" $HOME`);
  server = await startEmbeddedPostgres({ dataDir, settings, archiveWal: true });
}, SLOW);

afterAll(async () => {
  await server?.stop();
  await removeEmbeddedPostgres(dataDir);
  await rm(folder, { recursive: true, force: true });
}, SLOW);

async function query<R extends pg.QueryResultRow>({ adminUrl }: EmbeddedPostgres, sql: string): Promise<R[]> {
  const client = new pg.Client({ connectionString: adminUrl });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<R>(sql)).rows;
  } finally {
    await client.end();
  }
}

const archive = async (): Promise<string> => `${await realpath(join(dataDir, 'data'))}-archive`;
const clock = async (): Promise<string> =>
  (await query<{ at: string }>(server, 'SELECT clock_timestamp()::text AS at'))[0]!.at;

test(
  'a second server has what the first one had at a moment, and the first one goes on',
  async () => {
    await query(server, 'CREATE TABLE notes (n integer)');
    await takeBaseBackup(dataDir, server.adminUrl);
    const moments: { at: string; count: number }[] = [];
    for (let n = 1; n <= 3; n += 1) {
      await query(server, `INSERT INTO notes SELECT ${n} FROM generate_series(1, 1000)`);
      await delay(5);
      moments.push({ at: await clock(), count: n * 1_000 });
      await delay(5);
    }
    await query(server, 'DROP TABLE notes');
    for (const { at, count } of [moments[2]!, moments[0]!]) {
      const recovered = await recoverTo({ dataDir, adminUrl: server.adminUrl, to: at, settings });
      const rows = await query(recovered.server, 'SELECT count(*)::int AS count FROM notes');
      await recovered.discard();
      expect(rows).toEqual([{ count }]);
    }
    expect(await query(server, `SELECT to_regclass('notes') IS NULL AS gone`)).toEqual([{ gone: true }]);
    expect((await readdir(dataDir)).filter((name) => name.includes('scratch'))).toEqual([]);
  },
  SLOW,
);

test(
  'a gap in the log is told, and leaves nothing behind',
  async () => {
    await takeBaseBackup(dataDir, server.adminUrl);
    await query(server, 'CREATE TABLE later (n integer)');
    const segments: string[] = [];
    for (let n = 0; n < 3; n += 1) {
      await query(server, `INSERT INTO later VALUES (${n})`);
      const [switched] = await query<{ segment: string }>(server, 'SELECT pg_walfile_name(pg_switch_wal()) AS segment');
      segments.push(join(await archive(), 'wal', `${switched!.segment}.gz`));
    }
    await delay(5);
    const at = await clock();
    await delay(5);
    for (let wait = 0; wait < 1_000 && !(await stat(segments[2]!).catch(() => undefined)); wait += 1) await delay(10);
    await rm(segments[1]!);
    await expect(recoverTo({ dataDir, adminUrl: server.adminUrl, to: at, settings })).rejects.toThrow(
      /recovery ended before configured recovery target was reached/,
    );
    expect((await readdir(dataDir)).filter((name) => name.includes('scratch'))).toEqual([]);
  },
  SLOW,
);

test(
  'the log is kept until that is ended; then it is deleted and no base backup can be made',
  async () => {
    await server.stop();
    server = await startEmbeddedPostgres({ dataDir, settings });
    expect(await query(server, 'SHOW archive_mode')).toEqual([{ archive_mode: 'on' }]);
    await server.stop();
    server = await startEmbeddedPostgres({ dataDir, settings, archiveWal: false });
    expect(await query(server, 'SHOW archive_mode')).toEqual([{ archive_mode: 'off' }]);
    await expect(readdir(await archive())).rejects.toThrow('ENOENT');
    await expect(takeBaseBackup(dataDir, server.adminUrl)).rejects.toThrow(/keeps no log/);
    expect(await listBaseBackups(dataDir)).toEqual([]);
  },
  SLOW,
);
