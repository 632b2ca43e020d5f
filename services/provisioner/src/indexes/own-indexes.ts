import type { Database } from '@mad/postgres';
import type pg from 'pg';
import type { ServerRow } from '../db/entities/server.ts';
import type { TenantIndexRow } from '../db/entities/tenant-index.ts';
import type { TenantKey } from '../domain/plan.ts';
import { buildIndex, indexDefinition } from '../drift/build-index.ts';
import { asOwnerInside } from '../drift/look.ts';
import type { ServerConnections } from '../servers/server-connections.ts';

type Wanted = Pick<TenantIndexRow, 'name' | 'table_name' | 'columns' | 'method'>;

/** Builds one in the database that `inside` is in, and says how the catalog defines it. Names were checked when it was asked for. */
export async function buildOwnIndex(inside: pg.ClientBase, schema: string, wanted: Wanted): Promise<string> {
  const { name, table_name: table, columns, method } = wanted;
  const { rows } = await inside.query<{ partitioned: boolean }>(
    `SELECT relkind = 'p' AS partitioned FROM pg_class WHERE oid = to_regclass($1)`,
    [`${schema}.${table}`],
  );
  if (rows.length === 0) throw new Error(`table: ${schema} has no table ${table}`);
  const only = rows[0]!.partitioned ? 'ONLY ' : '';
  await buildIndex(
    inside,
    schema,
    `CREATE INDEX ${name} ON ${only}${schema}.${table} USING ${method} (${columns.join(', ')})`,
  );
  const built = await indexDefinition(inside, schema, name);
  if (built === undefined || !built.valid) throw new Error(`${name} was built and is not valid`);
  return built.definition;
}

/** Builds every index an organization has of its own in a database that is to be its: one restored, or moved. */
export async function buildOwnIndexes(
  { database, connections }: { database: Database; connections: ServerConnections },
  server: ServerRow,
  { orgId, schema }: TenantKey,
  databaseName: string,
): Promise<void> {
  const wanted = await database.asSystem((tx) =>
    tx.query<Wanted>(
      `SELECT name, table_name, columns, method FROM provisioner.tenant_indexes
       WHERE org_id = $1 AND schema = $2 AND state = 'ready' ORDER BY name`,
      [orgId, schema],
    ),
  );
  if (wanted.length === 0) return;
  await asOwnerInside(connections, server, { database_name: databaseName, schema }, async (inside) => {
    for (const one of wanted) await buildOwnIndex(inside, schema, one);
  });
}
