import type { Database } from '@mad/postgres';
import type { ServerRow } from '../db/entities/server.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import { lookForDrift, type LookContext, type Looked } from './look.ts';

/** Looks for drift and notes what was found, for health; that it could not be looked at as well. Throws as the look does. */
export async function lookAndNote(context: LookContext, server: ServerRow, tenant: TenantRow): Promise<Looked> {
  try {
    const looked = await lookForDrift(context, server, tenant);
    await noteDrift(context.database, tenant, looked.differences.length);
    return looked;
  } catch (error) {
    await noteDrift(context.database, tenant, null);
    throw error;
  }
}

/** Of a database that was replaced meanwhile nothing is noted: another one was looked at. */
export async function noteDrift(
  database: Database,
  { org_id: orgId, schema, generation }: Pick<TenantRow, 'org_id' | 'schema' | 'generation'>,
  differences: number | null,
): Promise<void> {
  await database.asSystem((tx) =>
    tx.execute(
      `UPDATE provisioner.tenants SET drift_looked_at = now(), drift_count = $4
       WHERE org_id = $1 AND schema = $2 AND generation = $3`,
      [orgId, schema, generation, differences],
    ),
  );
}
