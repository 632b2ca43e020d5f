import { SECOND_MS } from '@mad/process';
import type { Logger } from '@mad/process';
import pg from 'pg';
import { clientOptions } from './client-options.ts';

/** A connection idle for longer is asked for a sign of life first: firewalls drop silent ones without a word. */
const CHECK_AFTER_MS = 30 * SECOND_MS;
const CLOSE_IDLE_AFTER_MS = 300 * SECOND_MS;
const CONNECT_TIMEOUT_MS = 10 * SECOND_MS;

export interface PoolOptions {
  url: string;
  /** Connections at most. */
  max: number;
  /** Shown in pg_stat_activity. */
  applicationName: string;
  logger?: Logger;
  /** Start-up options of every session, e.g. `-c role=…`. Poolers do not pass them on. */
  sessionOptions?: string;
  /** Overrides the 30 s after which an idle connection is checked before use (tests). */
  checkAfterMs?: number;
}

const lastUsed = new WeakMap<pg.PoolClient, number>();
const checkAfter = new WeakMap<pg.Pool, number>();

/** A pool of connections to one database. Opens them when they are needed, closes them after five idle minutes. */
export function createPool(options: PoolOptions): pg.Pool {
  const pool = new pg.Pool({
    ...clientOptions(options.url),
    max: options.max,
    application_name: options.applicationName,
    options: options.sessionOptions,
    idleTimeoutMillis: CLOSE_IDLE_AFTER_MS,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    allowExitOnIdle: true,
  });
  surviveLosses(pool, (error) => options.logger?.warn({ err: error }, 'an idle database connection was lost'));
  pool.on('release', (_error, client) => lastUsed.set(client, Date.now()));
  checkAfter.set(pool, options.checkAfterMs ?? CHECK_AFTER_MS);
  return pool;
}

/** Keeps a lost connection from ending this process, whenever it is lost; the next use opens another. */
export function surviveLosses(pool: pg.Pool, onIdle: (error: Error) => void): void {
  pool.on('error', onIdle);
  // Nobody listens while it is closed, or between its greeting and its first user: one piece may hold both, and its end.
  pool.on('connect', (client) => client.on('error', () => undefined));
}

/** Takes a connection that is known to live. The caller releases it. */
export async function acquire(pool: pg.Pool): Promise<pg.PoolClient> {
  for (;;) {
    const client = await pool.connect();
    const used = lastUsed.get(client);
    if (used === undefined || Date.now() - used < (checkAfter.get(pool) ?? CHECK_AFTER_MS)) return client;
    try {
      await client.query('SELECT 1');
      return client;
    } catch (error) {
      client.release(error as Error);
    }
  }
}
