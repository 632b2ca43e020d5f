import { currentSpan } from '@mad/process';
import pg from 'pg';
import { applicationName } from './application-name.ts';
import { cancelStatement } from './cancel.ts';
import { acquire } from './pool.ts';
import { createTx, type Tx, type TxOptions } from './tx.ts';

/** What a transaction runs on. */
export interface TransactionSource extends TxOptions {
  pool: pg.Pool;
  statementTimeoutMs: number;
  /** Of the pool's connections; inside a transaction organization and trace follow it. */
  applicationName: string;
}

export interface TransactionOptions {
  /** True makes the server refuse writes. */
  readOnly?: boolean;
  /** Aborting it cancels the statement that runs, on the server too, and rolls back. */
  signal?: AbortSignal;
  /** Whose transaction it is, for who looks at the server's sessions. */
  orgId?: string;
  /** Settings of this transaction only, e.g. `{ 'app.current_org_id': … }`. */
  settings?: Readonly<Record<string, string>>;
}

/** Kept on one line and sent at once: a transaction costs two round trips beyond its own statements. */
function beginSql(source: TransactionSource, options: TransactionOptions): string {
  const settings = {
    statement_timeout: String(source.statementTimeoutMs),
    application_name: applicationName(source.applicationName, options.orgId, currentSpan()),
    ...options.settings,
  };
  const calls = Object.entries(settings).map(
    ([name, value]) => `set_config(${pg.escapeLiteral(name)}, ${pg.escapeLiteral(value)}, true)`,
  );
  return `BEGIN${options.readOnly ? ' READ ONLY' : ''}; SELECT ${calls.join(', ')}`;
}

/** A prepared statement whose table changed under it, or which a pooler's other connection never saw. */
export function mustReconnect(error: unknown): boolean {
  const { code, message } = (error ?? {}) as { code?: string; message?: string };
  return code === '26000' || (code === '0A000' && (message ?? '').includes('cached plan'));
}

/**
 * Runs `fn` in one transaction: commits when it returns, rolls back when it throws, and always gives the connection
 * back. Throws the signal's reason when that aborts first.
 */
export async function inTransaction<T>(
  source: TransactionSource,
  options: TransactionOptions,
  fn: (tx: Tx) => Promise<T>,
): Promise<T> {
  const { signal } = options;
  signal?.throwIfAborted();
  const client = await acquire(source.pool);
  let broken: Error | undefined;
  const onError = (error: Error): void => {
    broken ??= error;
  };
  const onAbort = (): void => {
    broken ??= new Error('the transaction was aborted');
    cancelStatement(client);
  };
  // While checked out nobody else listens, and an unheard error event ends the process.
  client.on('error', onError);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    signal?.throwIfAborted();
    await client.query(beginSql(source, options));
    const result = await fn(createTx(client, source));
    signal?.throwIfAborted();
    const { command } = await client.query('COMMIT');
    // Postgres answers COMMIT of a failed transaction with a rollback and no error.
    if (command === 'ROLLBACK') throw new Error('a failed statement was ignored: the transaction was rolled back');
    return result;
  } catch (error) {
    if (mustReconnect(error)) broken ??= error as Error;
    if (broken === undefined) {
      await client.query('ROLLBACK').catch(onError);
    }
    throw signal?.aborted ? signal.reason : error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    client.removeListener('error', onError);
    client.release(broken);
  }
}
