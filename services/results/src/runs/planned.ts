import type { TenantTx } from '@mad/tenancy';

/**
 * Runs a statement that walks many rows, without a prepared name: it is planned for these very parameters and for tables as
 * large as they are now. A plan kept from when a tenant was small may join each row with each.
 */
export async function planned<R>(tx: TenantTx, sql: string, params: readonly unknown[]): Promise<R[]> {
  return (await tx.client.query(sql, [...params])).rows as R[];
}

/**
 * The same for a statement that joins many rows with many: by hash or by merge, never each row with each. Postgres believes an
 * execution or a job it has no statistics of to have one row, and where it has those of others it takes the join that is
 * quickest for one: 40,000 items of an execution then cost it 1.6 thousand million comparisons.
 */
export async function joined<R>(tx: TenantTx, sql: string, params: readonly unknown[]): Promise<R[]> {
  await tx.client.query('SET LOCAL enable_nestloop = off');
  const rows = await planned<R>(tx, sql, params);
  await tx.client.query('SET LOCAL enable_nestloop TO DEFAULT');
  return rows;
}
