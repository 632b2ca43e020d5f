import { schemaObjects } from '@mad/postgres';
import pMap from 'p-map';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import type { RolloutRow } from '../db/entities/rollout.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import { isUsable } from '../domain/tenant-state.ts';
import { differencesText } from '../domain/schema-difference.ts';
import { appliedIn, asOwnerInside, driftOf, type LookContext } from '../drift/look.ts';

const BATCH = 200;
const AT_ONCE = 4;
const NAMED = 3;

type Unchecked = Pick<TenantRow, 'org_id' | 'schema' | 'database_name' | 'state' | 'server_id'>;

interface Finding {
  org_id: string;
  state: 'pending' | 'succeeded' | 'queued';
  from_version: string;
  drift: string;
  error: string;
}

/**
 * Looks at every tenant that was not looked at: those at the version are done with one connection each, those out of
 * reach wait in the queue, those that drifted are named. Answers why the rollout must not go on; undefined when it may.
 */
export async function checkFleet(
  context: LookContext,
  { rollout_id: rolloutId, schema, version }: RolloutRow,
  stop: () => Promise<boolean>,
): Promise<string | undefined> {
  const { database } = context;
  const servers = await database.asSystem((tx) =>
    tx.query<ServerRow>(`SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers`),
  );
  const serverOf = new Map(servers.map((one) => [one.server_id, one]));
  const look = async (tenant: Unchecked): Promise<Finding> => {
    const about = { org_id: tenant.org_id, from_version: '', drift: '', error: '' };
    if (!isUsable(tenant.state) && tenant.state !== 'suspended') {
      return { ...about, state: 'queued', error: `the tenant is ${tenant.state}` };
    }
    const server = serverOf.get(tenant.server_id)!;
    try {
      return await asOwnerInside(context.connections, server, tenant, async (inside): Promise<Finding> => {
        const applied = await appliedIn(inside, schema);
        const from = applied.at(-1) ?? '';
        // Nothing will be done to it; its drift is a sweep's to find.
        if (from === version) return { ...about, state: 'succeeded', from_version: version };
        const objects = await schemaObjects(inside, schema);
        const { differences } = await driftOf(context, server, tenant, applied, objects);
        const drift = differencesText(differences);
        return { ...about, state: 'pending', from_version: from, drift, error: drift };
      });
    } catch (error) {
      return { ...about, state: 'queued', error: error instanceof Error ? error.message : String(error) };
    }
  };
  for (;;) {
    const batch = await database.asSystem((tx) =>
      tx.query<Unchecked>(
        `SELECT t.org_id, t.schema, t.database_name, t.state, t.server_id FROM provisioner.migration_runs r
         JOIN provisioner.tenants t USING (org_id, schema)
         WHERE r.rollout_id = $1 AND r.state = 'pending' AND r.drift IS NULL ORDER BY r.wave, r.org_id LIMIT ${BATCH}`,
        [rolloutId],
      ),
    );
    if (batch.length === 0 || (await stop())) break;
    const found = await pMap(batch, look, { concurrency: AT_ONCE });
    await database.asSystem((tx) =>
      tx.execute(
        // Where one that was begun before comes from is known: it may stand between two versions now.
        `UPDATE provisioner.migration_runs r SET state = f.state, drift = f.drift, error = f.error, updated_at = now(),
           from_version = CASE WHEN r.operation_id IS NULL OR r.from_version = '' THEN f.from_version ELSE r.from_version END
         FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[])
           AS f (org_id, state, from_version, drift, error)
         WHERE r.rollout_id = $1 AND r.org_id = f.org_id AND r.state = 'pending'`,
        [
          rolloutId,
          found.map((one) => one.org_id),
          found.map((one) => one.state),
          found.map((one) => one.from_version),
          found.map((one) => one.drift),
          found.map((one) => one.error),
        ],
      ),
    );
  }
  const drifted = await database.asSystem((tx) =>
    tx.query<{ database_name: string; drift: string }>(
      `SELECT t.database_name, r.drift FROM provisioner.migration_runs r JOIN provisioner.tenants t USING (org_id, schema)
       WHERE r.rollout_id = $1 AND r.state = 'pending' AND r.drift <> '' ORDER BY r.wave, r.org_id`,
      [rolloutId],
    ),
  );
  if (drifted.length === 0) return undefined;
  const named = drifted.slice(0, NAMED).map(({ database_name: name, drift }) => `${name}: ${drift}`);
  const more = drifted.length > NAMED ? `; and ${drifted.length - NAMED} more` : '';
  return `${drifted.length === 1 ? '1 database is not what its version makes' : `${drifted.length} databases are not what their versions make`}: ${named.join('; ')}${more}`;
}
