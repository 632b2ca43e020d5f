import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { chown, copyFile, mkdir, readdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { MINUTE_MS, SECOND_MS } from '@mad/process';
import pg from 'pg';
import { serverAccount } from './account.ts';
import { walArchiveOf } from './wal-archive.ts';

const run = promisify(execFile);

/** Base backups that are kept where nothing else is said, and with them the log since the oldest one's beginning. */
const KEEP = 2;
/** The log a copy needs is in the archive by then, or it never gets there. */
const ARCHIVE_WAIT_MS = 10 * MINUTE_MS;
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
/** SQLSTATE of a statement that was ended, here by its time limit. */
const QUERY_CANCELED = '57014';
/** Beside the copies: how the last try went. */
const ATTEMPT = 'last-attempt.json';
/** Whoever copies holds this lock of the server: drafts of one that is under way look like those of one that broke off. */
const LOCK = 'mad.base-backup';
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

export interface BaseBackupOptions {
  /** How many are kept, this one included: 2. */
  keep?: number;
  /** How long the server may take to archive what the copy needs, in milliseconds: 10 minutes. */
  archiveWaitMs?: number;
  /** Gives it up. */
  signal?: AbortSignal;
}

/** When a base backup was last tried, and why it failed; empty when it did not. */
export interface BaseBackupAttempt {
  /** ISO. */
  at: string;
  error: string;
}

/** The last try to make one; undefined when there was none. */
export async function lastBaseBackupAttempt(dataDir: string): Promise<BaseBackupAttempt | undefined> {
  const { folder } = walArchiveOf(await realpath(join(dataDir, 'data')));
  const text = await readFile(join(folder, ATTEMPT), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as BaseBackupAttempt);
}

/** The base backups of the server of `dataDir`, oldest first. */
export async function listBaseBackups(dataDir: string): Promise<BaseBackup[]> {
  const { bases } = walArchiveOf(await realpath(join(dataDir, 'data')));
  const names = await readdir(bases).catch(() => []);
  const found: BaseBackup[] = [];
  for (const name of names.filter((one) => !one.endsWith('.draft')).sort()) {
    // One that is removed meanwhile is gone already.
    const text = await readFile(join(bases, name, 'base.json'), 'utf8').catch(ignoreMissing);
    if (text !== undefined) found.push(JSON.parse(text) as BaseBackup);
  }
  return found;
}

/**
 * Copies the files of a running server that keeps its log, and removes what only older copies needed. The server is at work
 * meanwhile. `adminUrl`: a superuser's. Throws when the log is not kept or not archived in time, and while another copy is
 * under way; how it went is noted.
 */
export async function takeBaseBackup(
  dataDir: string,
  adminUrl: string,
  options: BaseBackupOptions = {},
): Promise<BaseBackup> {
  const pgData = await realpath(join(dataDir, 'data'));
  const { folder } = walArchiveOf(pgData);
  const client = new pg.Client({ connectionString: adminUrl, application_name: 'mad-base-backup' });
  client.on('error', () => undefined);
  await client.connect();
  // With the session the server's backup mode ends as well.
  const giveUp = (): void => void client.end();
  options.signal?.addEventListener('abort', giveUp);
  try {
    const { rows: modes } = await client.query<{ archive_mode: string }>('SHOW archive_mode');
    if (modes[0]!.archive_mode !== 'on') throw new Error('the server keeps no log: begin with mad up --archive-wal on');
    const { rows: locks } = await client.query<{ free: boolean }>(
      'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS free',
      [LOCK],
    );
    if (!locks[0]!.free) throw new Error('another base backup is being made');
    let error = '';
    try {
      return await copyServer(client, dataDir, pgData, options);
    } catch (failure) {
      error = (failure as Error).message;
      throw failure;
    } finally {
      // One that was given up, by a shutdown, has not failed: how the one before went still counts.
      if (options.signal?.aborted !== true) await noteAttempt(folder, error);
    }
  } finally {
    options.signal?.removeEventListener('abort', giveUp);
    await client.end();
  }
}

/** In one piece: metrics read it at any time. */
async function noteAttempt(folder: string, error: string): Promise<void> {
  const attempt: BaseBackupAttempt = { at: new Date().toISOString(), error };
  const draft = join(folder, `${ATTEMPT}.draft`);
  await writeFile(draft, JSON.stringify(attempt), { mode: 0o600 });
  await rename(draft, join(folder, ATTEMPT));
}

async function copyServer(
  client: pg.Client,
  dataDir: string,
  pgData: string,
  { keep = KEEP, archiveWaitMs = ARCHIVE_WAIT_MS, signal }: BaseBackupOptions,
): Promise<BaseBackup> {
  const { bases } = walArchiveOf(pgData);
  for (const name of await readdir(bases)) {
    if (name.endsWith('.draft')) await rm(join(bases, name), { recursive: true, force: true });
  }
  const { rows: begun } = await client.query<{ first: string; name: string }>(
    `SELECT pg_walfile_name(pg_backup_start('mad', true)) AS first,
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISSMS"Z"') AS name`,
  );
  const { first: firstSegment, name } = begun[0]!;
  const draft = join(bases, `${name}.draft`);
  const copied = await copyTree(pgData, join(draft, 'data'), (relative) => {
    signal?.throwIfAborted();
    return !COPIED_ANEW.includes(relative);
  });
  const { label, at } = await endBackup(client, archiveWaitMs);
  await writeFile(join(draft, 'data', 'backup_label'), label, { mode: 0o600 });
  // The clock of the answer was read before or after the end: a millisecond later it was reached.
  const base: BaseBackup = { name, endedAt: new Date(at.getTime() + 1).toISOString(), firstSegment, ...copied };
  await writeFile(join(draft, 'base.json'), JSON.stringify(base), { mode: 0o600 });
  await run('sync', ['-f', draft]);
  await rename(draft, join(bases, name));
  await removeOlder(dataDir, keep);
  return base;
}

/** Returns when every segment the copy needs is in the archive. Throws when that takes too long. */
async function endBackup(client: pg.Client, waitMs: number): Promise<{ label: string; at: Date }> {
  await client.query(`SET statement_timeout = ${waitMs}`);
  try {
    const { rows } = await client.query<{ label: string; at: Date }>(
      'SELECT labelfile AS label, clock_timestamp() AS at FROM pg_backup_stop(true)',
    );
    return rows[0]!;
  } catch (cause) {
    if ((cause as Partial<pg.DatabaseError>).code !== QUERY_CANCELED) throw cause;
    const { rows } = await client.query<{ failed: string | null }>(
      'SELECT last_failed_wal AS failed FROM pg_stat_archiver WHERE last_failed_time > coalesce(last_archived_time, $1)',
      ['-infinity'],
    );
    const stuck = rows[0] === undefined ? '' : `; ${rows[0].failed} could not be archived`;
    throw new Error(`the log was not archived within ${waitMs / SECOND_MS} s${stuck}`, { cause });
  }
}

function ignoreMissing(error: unknown): undefined {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  return undefined;
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
        ignoreMissing(error);
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
async function removeOlder(dataDir: string, keep: number): Promise<void> {
  const { bases, wal } = walArchiveOf(await realpath(join(dataDir, 'data')));
  const all = await listBaseBackups(dataDir);
  for (const { name } of all.slice(0, -keep)) {
    // At once it is no copy any more, whenever its files are gone.
    const doomed = join(bases, `${name}.draft`);
    await rename(join(bases, name), doomed);
    await rm(doomed, { recursive: true, force: true });
  }
  const oldest = all.slice(-keep)[0];
  if (oldest === undefined) return;
  for (const file of await readdir(wal)) {
    const [segment] = SEGMENT.exec(file) ?? [];
    // The first eight digits are the timeline: what follows them is the place in the log.
    if (segment !== undefined && segment.slice(8) < oldest.firstSegment.slice(8))
      await rm(join(wal, file), { force: true });
  }
}
