import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { chown, copyFile, mkdir, readdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { serverAccount } from './account.ts';
import { walArchiveOf } from './wal-archive.ts';

const run = promisify(execFile);

/** Base backups that are kept, and with them the log since the oldest one's beginning. */
const KEEP = 2;
/** Folders whose content a server makes anew, or must not have twice. */
export const COPIED_ANEW = [
  'pg_wal',
  'pg_replslot',
  'pg_dynshmem',
  'pg_notify',
  'pg_serial',
  'pg_snapshots',
  'pg_stat_tmp',
  'pg_subtrans',
];
const LEFT_OUT = /^(postmaster\.(pid|opts)|pgsql_tmp.*|pg_internal\.init.*|recovery\.signal|standby\.signal)$/;
const SEGMENT = /^[0-9A-F]{24}/;

/** A copy of a server's files, from which the log leads to every later moment. */
export interface BaseBackup {
  /** Its folder's name. */
  name: string;
  /** By the server's clock: times from here on can be reached. ISO. */
  endedAt: string;
  /** The first segment of the log it needs. */
  firstSegment: string;
  files: number;
  bytes: number;
}

/** The base backups of the server of `dataDir`, oldest first. */
export async function listBaseBackups(dataDir: string): Promise<BaseBackup[]> {
  const { bases } = walArchiveOf(await realpath(join(dataDir, 'data')));
  const names = await readdir(bases).catch(() => []);
  const whole = names.filter((name) => !name.endsWith('.draft')).sort();
  return Promise.all(
    whole.map(async (name) => JSON.parse(await readFile(join(bases, name, 'base.json'), 'utf8')) as BaseBackup),
  );
}

/**
 * Copies the files of a running server that keeps its log, and removes what only older copies needed. The server is at work
 * meanwhile. `adminUrl`: a superuser's. Throws when the log is not kept.
 */
export async function takeBaseBackup(dataDir: string, adminUrl: string): Promise<BaseBackup> {
  const pgData = await realpath(join(dataDir, 'data'));
  const { bases } = walArchiveOf(pgData);
  const client = new pg.Client({ connectionString: adminUrl, application_name: 'mad-base-backup' });
  client.on('error', () => undefined);
  await client.connect();
  try {
    const { rows: modes } = await client.query<{ archive_mode: string }>('SHOW archive_mode');
    if (modes[0]!.archive_mode !== 'on') throw new Error('the server keeps no log: begin with mad up --archive-wal on');
    for (const name of await readdir(bases)) {
      if (name.endsWith('.draft')) await rm(join(bases, name), { recursive: true, force: true });
    }
    const { rows: begun } = await client.query<{ first: string; name: string }>(
      `SELECT pg_walfile_name(pg_backup_start('mad', true)) AS first,
         to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISSMS"Z"') AS name`,
    );
    const { first: firstSegment, name } = begun[0]!;
    const draft = join(bases, `${name}.draft`);
    const copied = await copyTree(pgData, join(draft, 'data'), (relative) => !COPIED_ANEW.includes(relative));
    // Returns when every segment the copy needs is in the archive.
    const { rows: ended } = await client.query<{ label: string; at: Date }>(
      'SELECT labelfile AS label, clock_timestamp() AS at FROM pg_backup_stop(true)',
    );
    const { label, at } = ended[0]!;
    await writeFile(join(draft, 'data', 'backup_label'), label, { mode: 0o600 });
    // The clock of the answer was read before or after the end: a millisecond later it was reached.
    const base: BaseBackup = { name, endedAt: new Date(at.getTime() + 1).toISOString(), firstSegment, ...copied };
    await writeFile(join(draft, 'base.json'), JSON.stringify(base), { mode: 0o600 });
    await run('sync', ['-f', draft]);
    await rename(draft, join(bases, name));
    await removeOlder(dataDir);
    return base;
  } finally {
    await client.end();
  }
}

/** Copies a folder of a server's data; files that vanish meanwhile were not needed. */
export async function copyTree(
  from: string,
  to: string,
  entered: (relative: string) => boolean = () => true,
  relative = '',
): Promise<{ files: number; bytes: number }> {
  const sum = { files: 0, bytes: 0 };
  await mkdir(join(to, relative), { recursive: true, mode: 0o700 });
  for (const entry of await readdir(join(from, relative), { withFileTypes: true })) {
    const path = relative === '' ? entry.name : join(relative, entry.name);
    if (LEFT_OUT.test(entry.name)) continue;
    if (entry.isDirectory()) {
      if (entered(path)) {
        const below = await copyTree(from, to, entered, path);
        sum.files += below.files;
        sum.bytes += below.bytes;
      } else await mkdir(join(to, path), { mode: 0o700 });
    } else if (entry.isFile()) {
      try {
        await copyFile(join(from, path), join(to, path), constants.COPYFILE_FICLONE);
        sum.bytes += (await stat(join(to, path))).size;
        sum.files += 1;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
    }
  }
  return sum;
}

/** Root copies, the server's account reads. */
export async function giveAway(path: string): Promise<void> {
  const account = serverAccount();
  if (account === undefined) return;
  await chown(path, account.uid, account.gid);
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    await chown(join(entry.parentPath, entry.name), account.uid, account.gid);
  }
}

/** Removes base backups beyond those that are kept, and the log before the oldest of these. */
async function removeOlder(dataDir: string): Promise<void> {
  const { bases, wal } = walArchiveOf(await realpath(join(dataDir, 'data')));
  const all = await listBaseBackups(dataDir);
  for (const { name } of all.slice(0, -KEEP)) await rm(join(bases, name), { recursive: true, force: true });
  const oldest = all.slice(-KEEP)[0];
  if (oldest === undefined) return;
  for (const file of await readdir(wal)) {
    const [segment] = SEGMENT.exec(file) ?? [];
    // The first eight digits are the timeline: what follows them is the place in the log.
    if (segment !== undefined && segment.slice(8) < oldest.firstSegment.slice(8))
      await rm(join(wal, file), { force: true });
  }
}
