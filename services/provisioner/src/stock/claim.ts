import type { Database, Tx } from '@mad/postgres';
import type pg from 'pg';
import type { TenantRow } from '../db/entities/tenant.ts';
import { databaseExists, dropDatabase, renameDatabase } from '../servers/tenant-database.ts';

/** Whose database, where. */
type Place = Pick<TenantRow, 'org_id' | 'schema' | 'server_id'>;

/**
 * A waiting clone of this template for the tenant, its own from this commit on; the one it claimed before a crash first.
 * Undefined when there is none. Claims do not wait for each other: SKIP LOCKED.
 */
export async function claimStock(db: Database, place: Place, template: string): Promise<string | undefined> {
  const { org_id: orgId, schema, server_id: serverId } = place;
  return db.asSystem(async (tx) => {
    const [claimed] = await tx.query<{ database_name: string; fits: boolean }>(
      `SELECT database_name, template = $4 AND server_id = $3 AS fits FROM provisioner.tenant_stock
       WHERE org_id = $1 AND schema = $2`,
      [orgId, schema, serverId, template],
    );
    if (claimed?.fits) return claimed.database_name;
    // A release came between: the keeper clears the old one away.
    if (claimed !== undefined) await giveUpClaim(tx, place);
    const [found] = await tx.query<{ database_name: string }>(
      `UPDATE provisioner.tenant_stock SET state = 'claimed', org_id = $1
       WHERE stock_id = (SELECT stock_id FROM provisioner.tenant_stock
         WHERE server_id = $2 AND schema = $3 AND state = 'ready' AND template = $4
         ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
       RETURNING database_name`,
      [orgId, serverId, schema, template],
    );
    return found?.database_name;
  });
}

/**
 * Gives a claimed clone the tenant's name. Repeatable: when the clone is gone it has the name already. What an attempt
 * before the claim left under the name goes first: nobody has used it. False when there is neither.
 */
export async function moveIn(client: pg.ClientBase, stocked: string, database: string): Promise<boolean> {
  if (!(await databaseExists(client, stocked))) return databaseExists(client, database);
  await dropDatabase(client, database);
  await renameDatabase(client, stocked, database);
  return true;
}

async function giveUpClaim(tx: Tx, { org_id: orgId, schema }: Place): Promise<void> {
  await tx.execute(
    `UPDATE provisioner.tenant_stock SET state = 'making', org_id = NULL WHERE org_id = $1 AND schema = $2`,
    [orgId, schema],
  );
}

/** The tenant has its database: the claim is history. */
export async function forgetClaim(tx: Tx, { org_id: orgId, schema }: Place): Promise<void> {
  await tx.execute('DELETE FROM provisioner.tenant_stock WHERE org_id = $1 AND schema = $2', [orgId, schema]);
}
