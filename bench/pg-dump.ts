import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { chown, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SECOND_MS, sleep } from '@mad/process';
import pg from 'pg';
import { millisecondsOf } from './measure.ts';

const run = promisify(execFile);

/** Where Debian puts the programs of a major. */
const VERSIONS = '/usr/lib/postgresql';
const START_MS = 30 * SECOND_MS;
const USER = 'bench';

/** A server of Debian's Postgres, which its `pg_dump` can read: ours are newer. */
export interface DumpServer {
  client: pg.Client;
  /** Dumps everything into a file, compressed as fast as it can, until that is on the disk; milliseconds. */
  dump(): Promise<number>;
  stop(): Promise<void>;
}

function programs(): string | undefined {
  if (!existsSync(VERSIONS)) return undefined;
  const majors = readdirSync(VERSIONS).sort((a, b) => Number(b) - Number(a));
  const folders = majors.map((major) => join(VERSIONS, major, 'bin'));
  return folders.find((folder) => ['initdb', 'postgres', 'pg_dump'].every((one) => existsSync(join(folder, one))));
}

/** The installed pg_dump's version, where its server is installed too. */
export function pgDumpVersion(): string | undefined {
  const folder = programs();
  if (folder === undefined) return undefined;
  return execFileSync(join(folder, 'pg_dump'), ['--version'], { encoding: 'utf8' }).trim();
}

/** Starts an empty server in a folder of its own, reached by a socket in there alone. */
export async function startDumpServer(): Promise<DumpServer> {
  const folder = programs()!;
  const home = await mkdtemp(join(tmpdir(), 'mad-bench-dump-'));
  // Postgres refuses to run as root.
  const account = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
  if (account.uid !== undefined) await chown(home, account.uid, account.gid);
  const data = join(home, 'data');
  await run(join(folder, 'initdb'), ['-D', data, '-U', USER, '--auth=trust', '--encoding=UTF8', '--locale=C'], account);
  const settings = ['listen_addresses=', `unix_socket_directories=${home}`, 'max_wal_size=4GB'];
  const server: ChildProcess = spawn(
    join(folder, 'postgres'),
    ['-D', data, ...settings.flatMap((one) => ['-c', one])],
    { ...account, stdio: 'ignore' },
  );
  const exited = once(server, 'exit');
  const stop = async (): Promise<void> => {
    if (server.exitCode === null) server.kill('SIGINT');
    await exited;
    await rm(home, { recursive: true, force: true });
  };
  try {
    const client = await connected(home);
    const file = join(home, 'dump');
    return {
      client,
      dump: () =>
        millisecondsOf(async () => {
          const to = ['-h', home, '-U', USER, '--format=custom', '--compress=1', '-f', file, 'postgres'];
          await run(join(folder, 'pg_dump'), to, account);
          const written = await open(file, 'r+');
          await written.sync();
          await written.close();
        }),
      async stop() {
        await client.end();
        await stop();
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function connected(host: string): Promise<pg.Client> {
  for (const until = performance.now() + START_MS; ; await sleep(50)) {
    const client = new pg.Client({ host, user: USER, database: 'postgres' });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return client;
    } catch (error) {
      await client.end().catch(() => undefined);
      if (performance.now() > until) throw error;
    }
  }
}
