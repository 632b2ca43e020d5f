import { execFile } from 'node:child_process';
import { chown, mkdtemp, rm, rmdir, stat, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { clientOptions } from '@mad/postgres';
import pg from 'pg';
import { testCluster } from './cluster.ts';

const run = promisify(execFile);

/** A file system in memory, and a tablespace of the run's server on it: what can be filled without harm to others. */
export interface SmallDisk {
  /** A folder on it, for files. */
  folder: string;
  /** Ends the sessions of a database and puts it on the disk. */
  hold(database: string): Promise<void>;
  /** Leaves so many bytes. */
  fill(leave: number): Promise<void>;
  /** Takes away what `fill` put there. */
  relieve(): Promise<void>;
  /** Unmounts it; what it held is lost, so databases on it are dropped. */
  close(): Promise<void>;
}

/** Why no small disk can be had here, or undefined. */
export function smallDiskMissing(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root: it mounts a small file system';
  return testCluster().place.sslmode === '' ? undefined : 'a container does not see a file system of this machine';
}

/** Mounts a file system of so many megabytes. */
export async function openSmallDisk(megabytes: number): Promise<SmallDisk> {
  const mount = await mkdtemp(join(tmpdir(), 'mad-small-disk-'));
  await run('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=755`, 'tmpfs', mount]);
  const client = new pg.Client(clientOptions(testCluster().adminUrl));
  await client.connect();
  const folder = await mkdtemp(join(mount, 'files-'));
  const tables = await mkdtemp(join(mount, 'tables-'));
  const { rows } = await client.query<{ data_directory: string }>('SHOW data_directory');
  const { uid, gid } = await stat(rows[0]!.data_directory);
  await chown(tables, uid, gid);
  const tablespace = `small_${process.pid}_${Date.now()}`;
  await client.query(`CREATE TABLESPACE ${tablespace} LOCATION ${pg.escapeLiteral(tables)}`);
  const ballast = join(mount, 'ballast');
  const held: string[] = [];
  return {
    folder,
    async hold(database) {
      const name = pg.escapeIdentifier(database);
      await client.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
      await client.query('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1', [database]);
      await client.query(`ALTER DATABASE ${name} SET TABLESPACE ${tablespace}`);
      await client.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
      held.push(name);
    },
    async fill(leave) {
      const { bavail, bsize } = await statfs(mount);
      await writeFile(ballast, Buffer.alloc(Math.max(0, bavail * bsize - leave)));
    },
    async relieve() {
      await rm(ballast, { force: true });
    },
    async close() {
      await rm(ballast, { force: true });
      for (const name of held) await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
      await client.query(`DROP TABLESPACE ${tablespace}`);
      await client.end();
      await run('umount', [mount]);
      await rmdir(mount);
    },
  };
}
