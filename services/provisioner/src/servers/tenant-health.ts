import type { ProvisionerContext } from '../context.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import { versionOf } from '../domain/names.ts';
import { askEach, placesOf } from './fleet-statistics.ts';

/** A tenant as its row, its server and its backups show it; the tenant's own database is not asked. */
export interface TenantHealth extends Pick<
  TenantRow,
  'org_id' | 'schema' | 'database_name' | 'state' | 'schema_version' | 'last_error' | 'drift_looked_at' | 'drift_count'
> {
  server: string;
  backed_up_at: Date | null;
  verified_at: Date | null;
  /** Undefined where the owner of the schema does not answer. */
  newest: boolean | undefined;
  bytes: number | undefined;
  sessions: number | undefined;
  /** Why bytes and sessions are not known; empty when they are. */
  unavailable: string;
}

type Known = Omit<TenantHealth, 'newest' | 'bytes' | 'sessions' | 'unavailable'>;

const PAGE_SQL = `
  SELECT t.org_id, t.schema, t.database_name, t.state, t.schema_version, t.last_error, t.drift_looked_at,
    t.drift_count, s.name AS server,
    (SELECT max(b.snapshot_at) FROM provisioner.backups b WHERE b.org_id = t.org_id AND b.schema = t.schema
       AND b.completed_at IS NOT NULL AND b.deleting_at IS NULL) AS backed_up_at,
    (SELECT max(b.verified_at) FROM provisioner.backups b WHERE b.org_id = t.org_id AND b.schema = t.schema) AS verified_at
  FROM provisioner.tenants t JOIN provisioner.database_servers s USING (server_id)
  WHERE t.state <> 'erased' AND ($1::uuid IS NULL OR t.org_id = $1)
    AND ($2::uuid IS NULL OR (t.org_id, t.schema) > ($2, $3))
  ORDER BY t.org_id, t.schema LIMIT $4`;

/** Of databases, from outside them: nobody's is woken up. */
const DATABASES_SQL = `
  SELECT d.datname AS database, pg_database_size(d.oid)::float8 AS bytes, count(a.pid)::int AS sessions
  FROM pg_database d LEFT JOIN pg_stat_activity a ON a.datid = d.oid
  WHERE d.datname = ANY ($1) GROUP BY d.oid, d.datname`;

interface Measured {
  database: string;
  bytes: number;
  sessions: number;
}

/** Tenants after the one given, by organization and schema, `limit` at most. */
export async function tenantHealth(
  context: ProvisionerContext,
  {
    orgId,
    after,
    limit,
  }: { orgId: string; after: readonly [orgId: string, schema: string] | undefined; limit: number },
  signal: AbortSignal,
): Promise<TenantHealth[]> {
  const { database } = context;
  const rows = await database.asSystem(
    (tx) => tx.query<Known>(PAGE_SQL, [orgId || null, after?.[0] ?? null, after?.[1] ?? null, limit]),
    { signal },
  );
  const servers = new Set(rows.map(({ server }) => server));
  const places = (await placesOf(context, '', signal)).filter(({ name }) => servers.has(name));
  const answers = await askEach(context, places, (place) =>
    place.ask<Measured>(DATABASES_SQL, [
      rows.filter((row) => row.server === place.name).map((row) => row.database_name),
    ]),
  );
  const measured = new Map(answers.map(({ place, found, unavailable }) => [place.name, { found, unavailable }]));
  const newest = await newestVersions(context, new Set(rows.map(({ schema }) => schema)));
  return rows.map((row) => {
    const { found, unavailable } = measured.get(row.server)!;
    const own = found?.find((one) => one.database === row.database_name);
    const version = newest.get(row.schema);
    return {
      ...row,
      newest: version === undefined ? undefined : version === row.schema_version,
      bytes: own?.bytes,
      sessions: own?.sessions,
      unavailable: own === undefined && unavailable === '' ? 'the server has no such database' : unavailable,
    };
  });
}

/** The newest version of each schema whose owner answers: one that does not must not keep the rest from being seen. */
async function newestVersions(
  { owners, logger }: ProvisionerContext,
  schemas: Set<string>,
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  await Promise.all(
    [...schemas].map(async (schema) => {
      try {
        found.set(schema, versionOf(await owners.of(schema).migrations()));
      } catch (error) {
        logger.warn({ error, schema }, 'the owner of a schema does not say its newest version');
      }
    }),
  );
  return found;
}
