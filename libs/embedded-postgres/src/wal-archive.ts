import { chown, mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Account } from './account.ts';

/** A segment that is not full is archived after so long, so that not more than this is missing when the disk is lost. */
const ARCHIVE_TIMEOUT = '5min';

/** What is kept to bring a server back to an earlier time, beside its data and as theirs. */
export interface WalArchive {
  folder: string;
  /** Segments of the write-ahead log, gzipped. */
  wal: string;
  /** Base backups, each in a folder of its own. */
  bases: string;
}

/** The archive of the data in `pgData`, whether there is one or not. */
export function walArchiveOf(pgData: string): WalArchive {
  const folder = `${pgData}-archive`;
  return { folder, wal: join(folder, 'wal'), bases: join(folder, 'bases') };
}

const quoted = (path: string): string => `'${path.replaceAll("'", `'\\''`)}'`;
/** For commands in which the server puts names in the place of %f and %p. */
const inCommand = (path: string): string => quoted(path).replaceAll('%', '%%');

/**
 * Begins to keep the log (`wanted` true), ends that and deletes what was kept (false), or leaves it as it was: once begun
 * it goes on at every start, for a gap could not be mended. Returns the server's settings for it.
 */
export async function archiveSettings(
  pgData: string,
  wanted: boolean | undefined,
  account: Account | undefined,
): Promise<Record<string, string>> {
  const { folder, wal, bases } = walArchiveOf(pgData);
  if (wanted === false) await rm(folder, { recursive: true, force: true });
  const there = await stat(wal).catch(() => undefined);
  if (there === undefined && wanted !== true) return {};
  for (const one of [folder, wal, bases]) {
    await mkdir(one, { recursive: true, mode: 0o700 });
    if (account !== undefined) await chown(one, account.uid, account.gid);
  }
  const [draft, kept] = [`${inCommand(wal)}/%f.part`, `${inCommand(wal)}/%f.gz`];
  // A segment that is there already must be the same one: a crash may have come before the server noted it.
  const command = `test ! -f ${kept} && gzip -1 <%p >${draft} && sync ${draft} && mv ${draft} ${kept} || gzip -dc ${kept} | cmp -s - %p`;
  return { archive_mode: 'on', archive_command: command, archive_timeout: ARCHIVE_TIMEOUT };
}

/** Settings of a server that reads the archive until a time (ISO, in UTC), and then goes on by itself. */
export function recoverySettings(pgData: string, to: string): Record<string, string> {
  const kept = `${inCommand(walArchiveOf(pgData).wal)}/%f.gz`;
  return {
    archive_mode: 'off',
    // It answers nobody before it has got there: what it answered on the way would be of an earlier moment.
    hot_standby: 'off',
    restore_command: `test -f ${kept} && gzip -dc ${kept} >%p`,
    // Read before names of time zones are known.
    recovery_target_time: to.replace('T', ' ').replace('Z', '+00'),
    recovery_target_action: 'promote',
  };
}
