import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { open, readFile, realpath, stat, truncate } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { SECOND_MS } from '@mad/process';
import { serverAccount, type Account } from './account.ts';
import { locateBinaries, type Binaries, type PgMajor } from './binaries.ts';
import { initialize, majorOf, readPassword, SUPERUSER } from './initialize.ts';
import { readPostmasterFile, reapOrphan } from './orphan.ts';
import { removeOwner, writeOwner } from './owner-file.ts';
import { shutDown } from './shutdown.ts';
import { archiveSettings } from './wal-archive.ts';

const START_TIMEOUT_MS = 60 * SECOND_MS;
const POLL_MS = 10;
/** A restart within this time of a crash finds the dead server's processes still holding its memory. */
const RETRY_MS = 10 * SECOND_MS;
const LOG_LIMIT_BYTES = 16 * 1024 * 1024;
const LOG_TAIL_BYTES = 2_000;

/**
 * What a server of ours differs in from Postgres's own defaults, wherever it runs. Connections: 3 metadata services ×
 * (5 app + 2 system + 3 pg-boss) + the tenant budget of 80 + reserves fit into 150. Just-in-time compilation costs short
 * queries more than it gives.
 */
export const SERVER_SETTINGS: Readonly<Record<string, string>> = {
  max_connections: '150',
  reserved_connections: '5',
  jit: 'off',
  // A tenant is moved to another server while it works.
  wal_level: 'logical',
  // What `mad db slow` reads. Statements that make roles are not kept: their texts hold verifiers.
  shared_preload_libraries: 'pg_stat_statements',
  'pg_stat_statements.track_utility': 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
};

/** Reached from this machine alone, over TCP. */
const LOCAL_SETTINGS: Readonly<Record<string, string>> = { listen_addresses: '127.0.0.1', unix_socket_directories: '' };

export interface EmbeddedPostgresOptions {
  /** A folder of its own for the server: data, password (mode 0600), log. Made when missing. */
  dataDir: string;
  /** The major to make the data with, 18 unless told; data that exist say it themselves. */
  major?: PgMajor;
  /** The TCP port on 127.0.0.1; 0 or absent takes a free one. */
  port?: number;
  /** Server settings over ours, e.g. `{ fsync: 'off' }` in tests. */
  settings?: Readonly<Record<string, string>>;
  /** Whether to keep the write-ahead log from now on; false deletes what was kept. Where absent, as it was. */
  archiveWal?: boolean;
  /** How long until it must be ready, in milliseconds; 60,000 where absent. */
  startTimeoutMs?: number;
  /** Told in plain words what is being done and how long it took. */
  log?: (message: string) => void;
}

/** A running server. */
export interface EmbeddedPostgres {
  /** Connection URL of the superuser, to the database `postgres`. Holds the password. */
  adminUrl: string;
  port: number;
  /** The postmaster's process id. */
  pid: number;
  /** Resolves when the server has ended, by `stop` or on its own; only then may it be started again. */
  exited: Promise<void>;
  /** Ends sessions, writes a checkpoint and returns when the server is gone. May be called twice. */
  stop(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Opens the log for appending; one that has grown over its limit starts anew. Returns where our part begins. */
async function openLog(path: string) {
  const size = await stat(path).then(
    (info) => info.size,
    () => 0,
  );
  if (size > LOG_LIMIT_BYTES) await truncate(path, 0);
  const file = await open(path, 'a', 0o600);
  return { file, from: size > LOG_LIMIT_BYTES ? 0 : size };
}

async function logSince(path: string, from: number): Promise<string> {
  const text = await readFile(path).then((bytes) => bytes.subarray(from).toString('utf8'));
  return text.slice(-LOG_TAIL_BYTES).trim();
}

interface Launch {
  dataDir: string;
  pgData: string;
  port: number;
  settings: Readonly<Record<string, string>>;
  binaries: Binaries;
  account: Account | undefined;
  timeoutMs: number;
}

/** Starts the postmaster once; resolves when it accepts connections, rejects with its own words when it ends. */
async function launch(options: Launch): Promise<ChildProcess> {
  const { dataDir, pgData, port, settings, binaries, account, timeoutMs } = options;
  const logPath = join(dataDir, 'postgres.log');
  const { file, from } = await openLog(logPath);
  const flags = Object.entries({ ...SERVER_SETTINGS, ...LOCAL_SETTINGS, ...settings, port: String(port) }).flatMap(
    ([name, value]) => ['-c', `${name}=${value}`],
  );
  const child = spawn(binaries.postgres, ['-D', pgData, ...flags], {
    ...account,
    cwd: '/',
    // A session of its own: Ctrl-C in a terminal must reach us first, so that services drain before their database goes.
    detached: true,
    env: { PATH: process.env['PATH'] ?? '', TZ: 'UTC' },
    stdio: ['ignore', file.fd, file.fd],
  });
  // A program that cannot be spawned reports itself by 'error' and never by 'exit'.
  const failed = new Promise<string>((settle) => {
    child.once('error', (error) => settle(error.message));
    child.once('exit', (code, signal) => settle(`it ended with ${signal ?? `exit code ${code}`}`));
  });
  let failure: string | undefined;
  void failed.then((text) => (failure = text));
  await file.close();

  const deadline = Date.now() + timeoutMs;
  for (;;) {
    if (failure !== undefined) {
      throw new Error(`Postgres did not start: ${failure}: ${await logSince(logPath, from)}`);
    }
    const postmaster = await readPostmasterFile(pgData);
    if (postmaster?.pid === child.pid && postmaster?.state === 'ready') return child;
    if (Date.now() > deadline) {
      if (child.pid !== undefined) await shutDown(child.pid);
      throw new Error(`Postgres was not ready after ${timeoutMs / SECOND_MS} s: ${await logSince(logPath, from)}`);
    }
    await delay(POLL_MS);
  }
}

/** Launches again where the reason to fail goes away by itself. */
async function launchPatiently(
  options: Omit<Launch, 'port'>,
  wantedPort: number,
): Promise<{ child: ChildProcess; port: number }> {
  const deadline = Date.now() + RETRY_MS;
  for (;;) {
    const port = wantedPort || (await freePort());
    try {
      return { child: await launch({ ...options, port }), port };
    } catch (error) {
      const { message } = error as Error;
      const crashedJustNow = message.includes('pre-existing shared memory block');
      const portTaken = wantedPort === 0 && message.includes('could not bind');
      if (!(crashedJustNow || portTaken) || Date.now() > deadline) throw error;
      await delay(10 * POLL_MS);
    }
  }
}

/**
 * Starts a real Postgres server of our own on 127.0.0.1, with the data kept in `dataDir`: makes them on the first
 * start, ends an orphan of an earlier process, recovers after a crash. As root the server runs under an account
 * without rights. Throws when the data are in use by a living process, or with Postgres's own words when it fails.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const log = options.log ?? (() => undefined);
  const began = Date.now();
  const dataDir = resolve(options.dataDir);
  const account = serverAccount();

  const orphan = await reapOrphan(dataDir);
  if (orphan !== undefined) log(`ended the Postgres server that an earlier run left behind (process ${orphan})`);
  const binaries = await locateBinaries(account, await majorOf(dataDir, options.major));
  if (await initialize(dataDir, binaries, account)) log(`made a new Postgres data directory in ${dataDir}`);

  const pgData = await realpath(join(dataDir, 'data'));
  const password = await readPassword(dataDir);
  await writeOwner(dataDir);
  let started;
  try {
    const settings = { ...(await archiveSettings(pgData, options.archiveWal, account)), ...options.settings };
    const timeoutMs = options.startTimeoutMs ?? START_TIMEOUT_MS;
    const launchOptions = { dataDir, pgData, settings, binaries, account, timeoutMs };
    started = await launchPatiently(launchOptions, options.port ?? 0);
  } catch (error) {
    await removeOwner(dataDir);
    throw error;
  }
  const { child, port } = started;
  const pid = child.pid!;
  const exited = once(child, 'exit').then(() => removeOwner(dataDir));
  // The server must not keep a process alive that has nothing else to do.
  child.unref();
  log(`Postgres is ready on 127.0.0.1:${port} after ${Date.now() - began} ms`);

  return {
    adminUrl: `postgres://${SUPERUSER}:${password}@127.0.0.1:${port}/postgres`,
    port,
    pid,
    exited,
    async stop() {
      // Whoever waits for the end must live to see it.
      child.ref();
      await shutDown(pid);
      await exited;
      log('Postgres has stopped');
    },
  };
}
