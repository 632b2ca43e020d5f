import { SECOND_MS } from '@mad/process';
import type pg from 'pg';
import type { ServerRow } from '../db/entities/server.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import { loginName } from '../domain/names.ts';
import type { ObjectKind } from '../domain/plan.ts';
import type { Held } from '../operations/lease.ts';
import type { StepContext } from '../provisioning/steps.ts';
import { lockByName } from '../servers/tenant-database.ts';

/** A server that holds something of the organization, and what may be there. */
export interface Place {
  client: pg.ClientBase;
  server: ServerRow;
  tenants: TenantRow[];
  /** By derivation and by cleanup records: some may not exist. */
  names: { databases: string[]; roles: string[] };
}

/**
 * Runs `fn` for each server that holds something of the organization, under the locks of its tenants there; `lead` is the
 * connection that the operation's run holds, to `leadServer`.
 */
export async function eachPlace(
  { database, connections }: StepContext,
  lead: pg.ClientBase,
  leadServer: ServerRow,
  held: Held,
  fn: (place: Place) => Promise<void>,
): Promise<void> {
  const { servers, tenants, left } = await database.asSystem(async (tx) => {
    const rows = await tx.query<TenantRow>(
      `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 ORDER BY schema`,
      [held.orgId],
    );
    const leavings = await tx.query<{ server_id: string; kind: ObjectKind; name: string }>(
      `SELECT server_id, object_kind AS kind, object_name AS name FROM provisioner.cleanup_records
         WHERE org_id = $1 AND object_kind IN ('database', 'role')
       UNION ALL SELECT server_id, 'database', database_name FROM provisioner.tenant_stock WHERE org_id = $1`,
      [held.orgId],
    );
    const ids = [...rows, ...leavings].map(({ server_id: serverId }) => serverId);
    const found = await tx.query<ServerRow>(
      `SELECT server_id, name, host, port, sslmode, provisioner_secret, migrator_secret, master_key_version
       FROM provisioner.database_servers WHERE server_id = ANY ($1) ORDER BY name`,
      [ids],
    );
    return { servers: found, tenants: rows, left: leavings };
  });
  for (const server of servers) {
    const here = tenants.filter((row) => row.server_id === server.server_id);
    const leavings = left.filter((one) => one.server_id === server.server_id);
    const named = (kind: ObjectKind): string[] => leavings.filter((one) => one.kind === kind).map(({ name }) => name);
    const logins = here.flatMap(({ schema }) =>
      (['a', 'b'] as const).map((slot) => loginName(schema, held.orgId, slot)),
    );
    const names = {
      databases: [...new Set([...here.map((row) => row.database_name), ...named('database')])],
      roles: [...new Set([...logins, ...named('role')])],
    };
    if (server.server_id === leadServer.server_id) {
      await locked(lead, here, held, () => fn({ client: lead, server, tenants: here, names }));
    } else {
      await connections.asAdmin(server, (client) =>
        locked(client, here, held, () => fn({ client, server, tenants: here, names })),
      );
    }
  }
}

/** Under the locks of the tenants: what a run that lost its lease still does is waited for. The run holds the lead's. */
async function locked(
  client: pg.ClientBase,
  tenants: readonly TenantRow[],
  held: Held,
  fn: () => Promise<void>,
): Promise<void> {
  for (const { schema } of tenants) {
    if (schema !== held.schema) await lockByName(client, `mad.tenant.${schema}.${held.orgId}`, 30 * SECOND_MS);
  }
  await fn();
}
