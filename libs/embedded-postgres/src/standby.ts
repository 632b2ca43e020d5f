import { appendFile, copyFile, mkdir, realpath, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { COPIED_ANEW, copyTree, giveAway } from './base-backup.ts';
import { startEmbeddedPostgres, type EmbeddedPostgres } from './start.ts';

export interface StandbyOptions {
  /** Of the server that runs. */
  primary: { dataDir: string; adminUrl: string };
  /** A folder of its own for the standby. */
  dataDir: string;
  /** As those of the primary. */
  settings?: Readonly<Record<string, string>>;
}

/**
 * Starts a second server that streams everything from the first one, to be promoted with `pg_promote()`. The first one keeps
 * the log it needs. Nothing ships `pg_basebackup`, so the copy is made as base backups are.
 */
export async function startStandby({ primary, dataDir, settings }: StandbyOptions): Promise<EmbeddedPostgres> {
  const from = await realpath(join(primary.dataDir, 'data'));
  await mkdir(dataDir, { recursive: true, mode: 0o711 });
  // Beside its folder and not in it, as with every server: its account may enter the folder, and own only the data.
  const data = `${dataDir}-data`;
  const slot = `standby_${process.pid}_${Date.now()}`;
  const client = new pg.Client({ connectionString: primary.adminUrl, application_name: 'mad-standby' });
  // A lost connection fails the query that runs; the event alone must not end the process.
  client.on('error', () => undefined);
  await client.connect();
  try {
    await client.query('SELECT pg_create_physical_replication_slot($1, true)', [slot]);
    await client.query(`SELECT pg_backup_start('standby', true)`);
    await copyTree(from, data, (relative) => !COPIED_ANEW.includes(relative));
    const { rows } = await client.query<{ label: string }>('SELECT labelfile AS label FROM pg_backup_stop(false)');
    await writeFile(join(data, 'backup_label'), rows[0]!.label, { mode: 0o600 });
  } finally {
    await client.end();
  }
  await writeFile(join(data, 'standby.signal'), '', { mode: 0o600 });
  const { hostname, port, username, password } = new URL(primary.adminUrl);
  // Not on the command line, where every process of the machine could read the password.
  const conninfo = `host=${hostname} port=${port} user=${username} password=${password} application_name=standby`;
  const lines = `primary_conninfo = '${conninfo}'\nprimary_slot_name = '${slot}'\n`;
  await appendFile(join(data, 'postgresql.auto.conf'), lines);
  await giveAway(data);
  await symlink(data, join(dataDir, 'data'));
  await copyFile(join(primary.dataDir, 'superuser-password'), join(dataDir, 'superuser-password'));
  return startEmbeddedPostgres({ dataDir, ...(settings === undefined ? {} : { settings }) });
}
