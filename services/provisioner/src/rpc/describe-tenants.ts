import type { HandlerContext } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import type { DescribeTenantsRequest } from '@mad/proto/provisioner';
import type { ProvisionerContext } from '../context.ts';
import type { ServerRow } from '../db/entities/server.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import { tenantMessage } from './messages.ts';

/** A server that does not answer by then leaves the size out. */
const SIZE_MS = SECOND_MS;

/** An organization's tenants with their sizes on disk, by schema. */
export async function describeTenants(
  context: ProvisionerContext,
  { orgId }: DescribeTenantsRequest,
  { signal }: HandlerContext,
) {
  const { rows, servers } = await context.database.asSystem(
    async (tx) => {
      const found = await tx.query<TenantRow>(
        `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 ORDER BY schema`,
        [orgId],
      );
      const holders = await tx.query<ServerRow>(
        `SELECT server_id, name, host, port, sslmode, provisioner_secret, migrator_secret, master_key_version
         FROM provisioner.database_servers WHERE server_id = ANY ($1::uuid[])`,
        [found.map((row) => row.server_id)],
      );
      return { rows: found, servers: new Map(holders.map((server) => [server.server_id, server])) };
    },
    { signal },
  );
  const tenants = rows.map(async (row) => {
    const server = servers.get(row.server_id);
    return { tenant: tenantMessage(row), sizeBytes: server && (await sizeOf(context, server, row.database_name)) };
  });
  return { tenants: await Promise.all(tenants) };
}

/** Bytes on disk; undefined when there is no such database or its server does not say so in time. */
async function sizeOf(
  { connections, logger }: ProvisionerContext,
  server: ServerRow,
  database: string,
): Promise<bigint | undefined> {
  const limit = Promise.withResolvers<undefined>();
  const timer = setTimeout(limit.resolve, SIZE_MS, undefined);
  const asked = connections.asAdmin(server, async (client) => {
    const { rows } = await client.query<{ size: string }>(
      'SELECT pg_database_size(oid) AS size FROM pg_database WHERE datname = $1',
      [database],
    );
    return rows[0] && BigInt(rows[0].size);
  });
  try {
    return await Promise.race([asked, limit.promise]);
  } catch (error) {
    logger.warn({ error, server: server.name }, 'the size of a tenant is not to be had');
    return undefined;
  } finally {
    clearTimeout(timer);
    // What comes too late is nobody's error.
    asked.catch(() => undefined);
  }
}
