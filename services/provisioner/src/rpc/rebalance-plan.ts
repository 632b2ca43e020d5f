import type { Database } from '@mad/postgres';
import { planRebalance, type Holder, type PlacedTenant } from '../domain/rebalance.ts';
import type { databaseSizes } from '../servers/fleet-statistics.ts';

const DEFAULT_MOVES = 100;

interface Row {
  name: string;
  region: string;
  draining: boolean;
  max_tenants: number;
  tenants: { orgId: string; schema: string; database: string }[];
}

/** A suspended tenant counts as well; one that is made, moved or erased is left alone. */
const HOLDERS_SQL = `
  SELECT s.name, s.region, s.draining, s.max_tenants, coalesce(
    (SELECT jsonb_agg(jsonb_build_object('orgId', t.org_id, 'schema', t.schema, 'database', t.database_name)
       ORDER BY t.created_at, t.org_id, t.schema)
     FROM provisioner.tenants t WHERE t.server_id = s.server_id AND t.state IN ('ready', 'read_only', 'suspended')), '[]')
    AS tenants
  FROM provisioner.database_servers s ORDER BY s.name`;

/** What to move where, and why; nothing is moved. */
export async function rebalancePlan(
  database: Database,
  sizes: ReturnType<typeof databaseSizes>,
  maxMoves: number,
  signal: AbortSignal,
) {
  const rows = await database.asSystem((tx) => tx.query<Row>(HOLDERS_SQL), { signal });
  const measured = await sizes('', signal);
  const bytes = new Map(measured.rows.map((row) => [`${row.server} ${row.database}`, row.bytes]));
  const holders = rows.map((row): Holder => ({
    name: row.name,
    region: row.region,
    draining: row.draining,
    maxTenants: row.max_tenants,
    tenants: row.tenants.map((one) => ({ ...one, sizeBytes: bytes.get(`${row.name} ${one.database}`) ?? 0 })),
  }));
  const { moves, stuck } = planRebalance(holders, maxMoves || DEFAULT_MOVES);
  const about = ({ orgId, schema, database: databaseName, sizeBytes }: PlacedTenant) => {
    return { orgId, schema, databaseName, sizeBytes: BigInt(Math.round(sizeBytes)) };
  };
  const holderOf = (tenant: PlacedTenant): string => holders.find(({ tenants }) => tenants.includes(tenant))!.name;
  return {
    moves: moves.map(({ tenant, from, to, reason }) => ({ ...about(tenant), from, to, reason })),
    stuck: stuck.map((tenant) => ({ ...about(tenant), from: holderOf(tenant), to: '', reason: 'draining' })),
    unmeasured: measured.unavailable,
  };
}
