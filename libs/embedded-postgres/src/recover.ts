import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readdir, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HOUR_MS, MINUTE_MS, SECOND_MS, sleep } from '@mad/process';
import pg from 'pg';
import { copyTree, giveAway, listBaseBackups } from './base-backup.ts';
import { reapOrphan } from './orphan.ts';
import { startEmbeddedPostgres, type EmbeddedPostgres } from './start.ts';
import { recoverySettings, walArchiveOf } from './wal-archive.ts';

const ARCHIVED_MS = MINUTE_MS;
const POLL_MS = 20;
/** Reading a day's log takes a while. */
const RECOVERY_MS = 2 * HOUR_MS;

export interface RecoverOptions {
  /** Of the server that runs. */
  dataDir: string;
  /** A superuser's, to that server. */
  adminUrl: string;
  /** The moment, as Postgres reads a timestamptz. */
  to: string;
  /** As those of the server that runs. */
  settings?: Readonly<Record<string, string>>;
  log?: (message: string) => void;
}

/** A server of its own, as another one was at a moment. */
export interface Recovered {
  server: EmbeddedPostgres;
  /** The moment, ISO with microseconds. */
  at: string;
  /** Stops it and deletes its data. */
  discard(): Promise<void>;
}

/**
 * Starts a second server with the data the first one had at a moment: the newest base backup before it, and the log from
 * there on. The first one is not touched. Throws when the moment is in the future, before the oldest base backup, or when
 * the log has a gap.
 */
export async function recoverTo({ dataDir, adminUrl, to, settings, log }: RecoverOptions): Promise<Recovered> {
  const at = await reachable(dataDir, adminUrl, to);
  const base = (await listBaseBackups(dataDir)).findLast(({ endedAt }) => Date.parse(endedAt) <= Date.parse(at));
  if (base === undefined) {
    const [oldest] = await listBaseBackups(dataDir);
    const reach =
      oldest === undefined ? 'there is no base backup: mad backup base' : `the oldest ends ${oldest.endedAt}`;
    throw new Error(`no base backup ended before ${at}; ${reach}`);
  }
  const pgData = await realpath(join(dataDir, 'data'));
  await removeLeft(dataDir, pgData);
  const id = randomBytes(6).toString('hex');
  const [folder, data] = [join(dataDir, `scratch-${id}`), `${pgData}-scratch-${id}`];
  const remove = async (): Promise<void> => {
    for (const one of [data, folder]) await rm(one, { recursive: true, force: true });
  };
  try {
    await mkdir(folder, { mode: 0o711 });
    await copyTree(join(walArchiveOf(pgData).bases, base.name, 'data'), data);
    await writeFile(join(data, 'recovery.signal'), '', { mode: 0o600 });
    await giveAway(data);
    await symlink(data, join(folder, 'data'));
    await copyFile(join(dataDir, 'superuser-password'), join(folder, 'superuser-password'));
    const server = await startEmbeddedPostgres({
      dataDir: folder,
      settings: { ...settings, ...recoverySettings(pgData, at) },
      startTimeoutMs: RECOVERY_MS,
      ...(log === undefined ? {} : { log }),
    });
    const discard = async (): Promise<void> => {
      await server.stop();
      await remove();
    };
    return { server, at, discard };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** The moment to the microsecond, once the archive holds the log beyond it. */
async function reachable(dataDir: string, adminUrl: string, to: string): Promise<string> {
  const { wal } = walArchiveOf(await realpath(join(dataDir, 'data')));
  const client = new pg.Client({ connectionString: adminUrl, application_name: 'mad-recovery' });
  client.on('error', () => undefined);
  await client.connect();
  try {
    const { rows } = await client.query<{ at: string; past: boolean }>(
      `SELECT to_char($1::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
         $1::timestamptz < clock_timestamp() AS past`,
      [to],
    );
    if (!rows[0]!.past) throw new Error(`${rows[0]!.at} is in the future`);
    // Recovery knows that it has reached a moment by the first commit after it.
    await client.query('SELECT pg_current_xact_id()');
    const { rows: switched } = await client.query<{ segment: string }>(
      'SELECT pg_walfile_name(pg_switch_wal()) AS segment',
    );
    const { segment } = switched[0]!;
    for (const until = performance.now() + ARCHIVED_MS; ; await sleep(POLL_MS)) {
      if (await stat(join(wal, `${segment}.gz`)).catch(() => undefined)) return rows[0]!.at;
      if (performance.now() > until) {
        throw new Error(`the log was not archived within ${ARCHIVED_MS / SECOND_MS} s: see the server's log`);
      }
    }
  } finally {
    await client.end();
  }
}

/** What recoveries left whose process died: their servers are ended first. Those under way stay. */
async function removeLeft(dataDir: string, pgData: string): Promise<void> {
  for (const name of await readdir(dataDir)) {
    if (!name.startsWith('scratch-')) continue;
    const inUse = await reapOrphan(join(dataDir, name)).then(
      () => false,
      () => true,
    );
    if (inUse) continue;
    for (const one of [`${pgData}-${name}`, join(dataDir, name)]) await rm(one, { recursive: true, force: true });
  }
}
