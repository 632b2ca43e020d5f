import type { Logger } from '@mad/process';
import type pg from 'pg';
import type { DataSource, EntityManager, EntityTarget, ObjectLiteral, QueryRunner, Repository } from 'typeorm';
import { statementName } from './statement-name.ts';

/** A row as the driver gives it: values by column name. */
export type Row = Record<string, unknown>;

/** One open transaction. Lives as long as the callback it was given to. */
export interface Tx {
  /** Runs one statement and returns its rows. With parameters it is prepared once per connection. */
  query<R = Row>(sql: string, params?: readonly unknown[]): Promise<R[]>;
  /** Runs one statement and returns how many rows it wrote (or, for a SELECT, found). */
  execute(sql: string, params?: readonly unknown[]): Promise<number>;
  /** TypeORM's repository of an entity inside this transaction: plain create, read, update, delete. */
  repository<E extends ObjectLiteral>(entity: EntityTarget<E>): Repository<E>;
  /** TypeORM's entity manager inside this transaction. */
  readonly manager: EntityManager;
  /** The connection itself, for COPY. Neither commit nor release it. */
  readonly client: pg.PoolClient;
}

/** The part of a transaction that is statements. */
export type Statements = Pick<Tx, 'query' | 'execute'>;

/** Statements on a connection of one's own, for what else runs in a transaction. */
export function statementsOn(client: pg.ClientBase): Statements {
  return {
    query: async <R>(sql: string, params?: readonly unknown[]) =>
      (await client.query(sql, params as unknown[])).rows as R[],
    execute: async (sql, params) => (await client.query(sql, params as unknown[])).rowCount ?? 0,
  };
}

export interface TxOptions {
  dataSource: DataSource;
  /** False behind a pooler that hands each transaction another connection and does not know prepared statements. */
  prepare: boolean;
  /** Logs every statement with its milliseconds, never its parameters. */
  sqlLogger?: Logger;
}

/** What a query runner keeps for itself and we fill in, so that the entity manager works on our open transaction. */
interface OpenQueryRunner {
  databaseConnection: { query(sql: string, params?: readonly unknown[]): Promise<pg.QueryResult> };
  isTransactionActive: boolean;
  transactionDepth: number;
}

/**
 * TypeORM's manager on a connection that has a transaction open already. Made on first use only: most transactions
 * are plain SQL and never pay for it.
 */
function managerOn(dataSource: DataSource, query: OpenQueryRunner['databaseConnection']['query']): EntityManager {
  const runner: QueryRunner = dataSource.createQueryRunner();
  const open = runner as unknown as OpenQueryRunner;
  // Ours, so that its statements are prepared and logged like all others.
  open.databaseConnection = { query };
  // Otherwise `save` would begin a transaction of its own, and commit ours.
  open.isTransactionActive = true;
  open.transactionDepth = 1;
  return runner.manager;
}

/** The transaction that is open on `client`. */
export function createTx(client: pg.PoolClient, options: TxOptions): Tx {
  const { dataSource, prepare, sqlLogger } = options;
  let manager: EntityManager | undefined;

  async function run(sql: string, params?: readonly unknown[]): Promise<pg.QueryResult> {
    const began = sqlLogger === undefined ? 0 : performance.now();
    try {
      if (params === undefined) return await client.query(sql);
      const name = prepare ? statementName(sql) : undefined;
      return await client.query({ text: sql, values: params as unknown[], ...(name === undefined ? {} : { name }) });
    } finally {
      sqlLogger?.info({ sql, ms: Math.round((performance.now() - began) * 100) / 100 }, 'sql');
    }
  }

  return {
    client,
    async query<R>(sql: string, params?: readonly unknown[]): Promise<R[]> {
      const result = await run(sql, params);
      // Several statements in one text answer with a list; the last one is the answer.
      const last = Array.isArray(result) ? (result as pg.QueryResult[]).at(-1) : result;
      return (last?.rows ?? []) as R[];
    },
    async execute(sql: string, params?: readonly unknown[]): Promise<number> {
      return (await run(sql, params)).rowCount ?? 0;
    },
    get manager() {
      return (manager ??= managerOn(dataSource, run));
    },
    repository(entity) {
      return this.manager.getRepository(entity);
    },
  };
}
