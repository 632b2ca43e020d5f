import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { HandlerContext } from '@connectrpc/connect';
import { PlannedTenantSchema, type PlanRolloutRequest, type PlanRolloutResponseSchema } from '@mad/proto/provisioner';
import { nextPageToken, pageOf } from '@mad/rpc';
import pMap from 'p-map';
import type { ProvisionerContext } from '../context.ts';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import { schemaOwner, versionOf } from '../domain/names.ts';
import { appliedIn, asOwnerInside } from '../drift/look.ts';
import type { OwnedMigration } from '../servers/schema-owners.ts';
import { whileConnectable } from '../servers/tenant-database.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const MAX_PAGE = 200;
const AT_ONCE = 4;

/** What a rollout would do with a page of tenants, tried on each and rolled back. */
export async function planRollout(
  context: ProvisionerContext,
  request: PlanRolloutRequest,
  ctx: HandlerContext,
): Promise<MessageInitShape<typeof PlanRolloutResponseSchema>> {
  const { database, owners, connections } = context;
  const { schema, skipTry } = request;
  const known = await owners.of(schema).migrations();
  const query = { list: 'rollout-plan', schema, skipTry };
  const { size, cursor } = pageOf(request, { query, isCursor: (one) => typeof one === 'string' && UUID.test(one) });
  const pageSize = Math.min(size, MAX_PAGE);
  const { tenants, servers } = await database.asSystem(
    async (tx) => ({
      tenants: await tx.query<TenantRow>(
        `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE schema = $1 AND state IN ('ready', 'read_only', 'suspended')
           AND ($2::uuid IS NULL OR org_id > $2) ORDER BY org_id LIMIT $3`,
        [schema, cursor ?? null, pageSize + 1],
      ),
      servers: await tx.query<ServerRow>(`SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers`),
    }),
    { signal: ctx.signal },
  );
  const page = tenants.slice(0, pageSize);
  const serverOf = new Map(servers.map((one) => [one.server_id, one]));
  const plan = async (tenant: TenantRow) => {
    const { org_id: orgId, database_name: databaseName, labels } = tenant;
    const about = { orgId, databaseName, staging: 'staging' in labels };
    const server = serverOf.get(tenant.server_id)!;
    try {
      const applied = await asOwnerInside(connections, server, tenant, (inside) => appliedIn(inside, schema));
      const migrations = known.map(({ name }) => name).filter((name) => !applied.includes(name));
      const planned = { ...about, fromVersion: applied.at(-1) ?? '', migrations };
      if (skipTry || migrations.length === 0) return create(PlannedTenantSchema, planned);
      return create(PlannedTenantSchema, { ...planned, ...(await tried(context, server, tenant, known)) });
    } catch (error) {
      return create(PlannedTenantSchema, { ...about, error: error instanceof Error ? error.message : String(error) });
    }
  };
  const planned = await pMap(page, plan, { concurrency: AT_ONCE, signal: ctx.signal });
  const lacking = new Set(planned.flatMap(({ migrations }) => migrations));
  const last = page.at(-1);
  const more = tenants.length > pageSize && last !== undefined;
  return {
    version: versionOf(known),
    tenants: planned,
    migrations: known
      .filter(({ name }) => lacking.has(name))
      .map(({ name, up, transactional }) => ({ name, sql: up.trim(), transactional })),
    nextPageToken: more ? nextPageToken(query, last.org_id) : '',
  };
}

async function tried(
  { connections, owners, references }: ProvisionerContext,
  server: ServerRow,
  { schema, database_name: name }: TenantRow,
  known: readonly OwnedMigration[],
): Promise<{ error?: string; triedWithoutData?: string[]; rowsToChange?: bigint }> {
  const login = await connections.migratorLogin(server, name);
  try {
    const { untried, rowsToChange } = await connections.asAdmin(server, async (client) => {
      const answer = await whileConnectable(client, name, login.user, () =>
        owners.of(schema).tryMigrations(server, login, schemaOwner(schema), ''),
      );
      // Made from nothing by every migration there is: what cannot be rolled back runs there.
      if (answer.untried.length > 0) await references.of(server, schema, known, client);
      return answer;
    });
    return { triedWithoutData: untried, rowsToChange };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}
