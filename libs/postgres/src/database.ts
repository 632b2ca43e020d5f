import { MINUTE_MS } from '@mad/process';
import type { Logger } from '@mad/process';
import type pg from 'pg';
import type { EntitySchema } from 'typeorm';
import { mayPrepare } from './client-options.ts';
import { openDataSource } from './data-source.ts';
import { createPool } from './pool.ts';
import { replicaChooser } from './replica.ts';
import { selfCheck } from './self-check.ts';
import { inTransaction, type TransactionSource } from './transaction.ts';
import type { Tx } from './tx.ts';

const DEFAULT_POOL_SIZE = 5;
const DEFAULT_SYSTEM_POOL_SIZE = 2;
const DEFAULT_STATEMENT_TIMEOUT_MS = MINUTE_MS;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export interface DatabaseOptions {
  /** The service's login, bound to one organization at a time. Of this and the next two: `?prepare=false` behind a pooler. */
  url: string;
  /** The second login, for what crosses organizations. Without it `asSystem` throws. */
  systemUrl?: string;
  /** A replica under the service's login, for reads that may be a few seconds old. */
  readUrl?: string;
  /** The service's schema; unqualified table names mean it. */
  schema: string;
  entities?: readonly EntitySchema[];
  /** Connections at most: 5, and 2 for the second login. */
  poolSize?: number;
  systemPoolSize?: number;
  applicationName: string;
  /** After this the server cancels a statement: 60 s. */
  statementTimeoutMs?: number;
  /** Logs every statement, without parameters. Needs `logger`. */
  logSql?: boolean;
  logger?: Logger;
}

export interface OrgOptions {
  /** The server refuses writes. */
  readOnly?: boolean;
  /** With `readOnly`: a replica that is at most seconds behind may answer. */
  mayLag?: boolean;
  /** Aborting cancels on the server. */
  signal?: AbortSignal;
}

/** A service's own schema of the metadata database. */
export interface Database {
  /**
   * Runs `fn` in a transaction that sees and writes the rows of one organization only. Commits when it returns, rolls
   * back when it throws. Queries filter by `org_id` as well: two walls. Throws TypeError when `orgId` is not a UUID.
   */
  inOrg<T>(orgId: string, fn: (tx: Tx) => Promise<T>, options?: OrgOptions): Promise<T>;
  /** Runs `fn` in a transaction under the second login. For service and public-login code only. */
  asSystem<T>(fn: (tx: Tx) => Promise<T>, options?: { signal?: AbortSignal }): Promise<T>;
  /** One round trip; returns its milliseconds. Rejects when the database does not answer. */
  ping(): Promise<number>;
  /** Open, idle and waiting of the service's login's pool. */
  connections(): { open: number; idle: number; waiting: number };
  close(): Promise<void>;
}

/**
 * Opens a service's schema and checks that row-level security binds the logins (`selfCheck`); throws when it does not.
 * Close it when the service ends.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const { schema, logger } = options;
  const sources: TransactionSource[] = [];
  const open = async (url: string, max: number, suffix: string): Promise<TransactionSource> => {
    const pool = createPool({ url, max, applicationName: `${options.applicationName}${suffix}`, logger });
    try {
      await selfCheck(pool, schema);
    } catch (error) {
      await pool.end();
      throw error;
    }
    const source: TransactionSource = {
      pool,
      dataSource: await openDataSource(pool, { schema, entities: options.entities ?? [] }),
      prepare: mayPrepare(url),
      statementTimeoutMs: options.statementTimeoutMs ?? DEFAULT_STATEMENT_TIMEOUT_MS,
      sqlLogger: options.logSql ? logger : undefined,
    };
    sources.push(source);
    return source;
  };
  const close = async (): Promise<void> => {
    await Promise.all(sources.splice(0).map(({ dataSource }) => dataSource.destroy()));
  };

  let primary: TransactionSource;
  let system: TransactionSource | undefined;
  let replica: TransactionSource | undefined;
  try {
    primary = await open(options.url, options.poolSize ?? DEFAULT_POOL_SIZE, '');
    const { systemUrl, readUrl } = options;
    if (systemUrl) system = await open(systemUrl, options.systemPoolSize ?? DEFAULT_SYSTEM_POOL_SIZE, '-system');
    if (readUrl) replica = await open(readUrl, options.poolSize ?? DEFAULT_POOL_SIZE, '-read');
  } catch (error) {
    await close();
    throw error;
  }
  const chooseReader = replicaChooser(primary.pool, replica?.pool);
  const sourceOf = (pool: pg.Pool): TransactionSource => (pool === replica?.pool ? replica : primary);

  return {
    async inOrg(orgId, fn, { readOnly = false, mayLag = false, signal } = {}) {
      if (!UUID.test(orgId)) throw new TypeError(`not an organization's id: ${orgId}`);
      const source = readOnly && mayLag ? sourceOf(await chooseReader()) : primary;
      return inTransaction(source, { readOnly, signal, settings: { 'app.current_org_id': orgId } }, fn);
    },
    async asSystem(fn, { signal } = {}) {
      if (system === undefined) throw new Error(`no second login is configured for schema ${schema}`);
      return inTransaction(system, { signal }, fn);
    },
    async ping() {
      const began = performance.now();
      await primary.pool.query('SELECT 1');
      return performance.now() - began;
    },
    connections: () => ({
      open: primary.pool.totalCount,
      idle: primary.pool.idleCount,
      waiting: primary.pool.waitingCount,
    }),
    close,
  };
}
