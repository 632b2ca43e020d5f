import type { TenantTx } from '@mad/tenancy';

/**
 * Runs a statement that walks many rows, without a prepared name: it is planned for these very parameters and for tables as
 * large as they are now. A plan kept from when a tenant was small may join each row with each.
 */
export async function planned<R>(tx: TenantTx, sql: string, params: readonly unknown[]): Promise<R[]> {
  return (await tx.client.query(sql, [...params])).rows as R[];
}
