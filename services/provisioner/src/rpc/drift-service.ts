import { create } from '@bufbuild/protobuf';
import { Code } from '@connectrpc/connect';
import {
  DifferenceKind,
  DriftService,
  SchemaDifferenceSchema,
  TenantDriftSchema,
  type SchemaDifference,
  type TenantDrift,
} from '@mad/proto/provisioner';
import { actorOf, bind, callerOf, nextPageToken, notFound, pageOf, rpcError, type BoundService } from '@mad/rpc';
import pMap from 'p-map';
import type { ProvisionerContext } from '../context.ts';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import type { Difference } from '../domain/schema-difference.ts';
import type { Looked } from '../drift/look.ts';
import { lookAndNote } from '../drift/noted.ts';
import { repairOf } from '../drift/steps.ts';
import { beginWithIdle } from '../operations/begin-idle.ts';
import { startOperation } from './operation.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** Connections a sweep has open at once, over all servers. */
const AT_ONCE = 4;
const MAX_PAGE = 200;

export function driftService(context: ProvisionerContext): BoundService {
  const { database, owners, leaseMs, logger } = context;

  const look = async (tenant: TenantRow, server: ServerRow): Promise<TenantDrift> => {
    const about = { orgId: tenant.org_id, schema: tenant.schema, databaseName: tenant.database_name };
    try {
      const { version, differences } = await lookAndNote(context, server, tenant);
      return create(TenantDriftSchema, { ...about, schemaVersion: version, differences: differences.map(message) });
    } catch (error) {
      logger.warn({ org_id: tenant.org_id, schema: tenant.schema, error }, 'looking for drift failed');
      const why = error instanceof Error ? error.message : String(error);
      return create(TenantDriftSchema, { ...about, error: why });
    }
  };

  const find = async (orgId: string, schema: string): Promise<Looked> => {
    const { tenant, server } = await database.asSystem(async (tx) => {
      const [row] = await tx.query<TenantRow>(
        `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants
         WHERE org_id = $1 AND schema = $2 AND state IN ('ready', 'read_only', 'suspended')`,
        [orgId, schema],
      );
      if (row === undefined) throw notFound('tenant', schema);
      const [at] = await tx.query<ServerRow>(
        `SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers WHERE server_id = $1`,
        [row.server_id],
      );
      return { tenant: row, server: at! };
    });
    return lookAndNote(context, server, tenant);
  };

  return bind(DriftService, {
    async listDrift(request, ctx) {
      const { schema } = request;
      const orgId = request.orgId.toLowerCase();
      const query = { list: 'drift', orgId, schema };
      const { size, cursor } = pageOf(request, { query, isCursor: isDriftCursor });
      const pageSize = Math.min(size, MAX_PAGE);
      const [afterOrg, afterSchema] = (cursor ?? [null, null]) as (string | null)[];
      const { tenants, servers } = await database.asSystem(
        async (tx) => ({
          tenants: await tx.query<TenantRow>(
            `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants
             WHERE state IN ('ready', 'read_only', 'suspended') AND ($1::uuid IS NULL OR org_id = $1)
               AND ($2 = '' OR schema = $2) AND ($3::uuid IS NULL OR (org_id, schema) > ($3, $4))
             ORDER BY org_id, schema LIMIT $5`,
            [orgId || null, schema, afterOrg, afterSchema, pageSize + 1],
          ),
          servers: await tx.query<ServerRow>(`SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers`),
        }),
        { signal: ctx.signal },
      );
      const page = tenants.slice(0, pageSize);
      const serverOf = new Map(servers.map((one) => [one.server_id, one]));
      const found = await pMap(page, (tenant) => look(tenant, serverOf.get(tenant.server_id)!), {
        concurrency: AT_ONCE,
        signal: ctx.signal,
      });
      const last = page.at(-1);
      const more = tenants.length > pageSize && last !== undefined;
      return { tenants: found, nextPageToken: more ? nextPageToken(query, [last.org_id, last.schema]) : '' };
    },

    async planRepair({ orgId, schema }) {
      owners.of(schema);
      const { digest, statements, left } = repairOf(schema, (await find(orgId.toLowerCase(), schema)).differences);
      return {
        planDigest: digest,
        statements,
        left: left.map(({ difference, why }) => ({ difference: message(difference), why })),
      };
    },

    async repairTenant({ orgId, schema, planDigest }, ctx) {
      owners.of(schema);
      const key = { orgId: orgId.toLowerCase(), schema };
      const { digest } = repairOf(schema, (await find(key.orgId, schema)).differences);
      if (digest !== planDigest) {
        const text = 'plan_digest: the database is not what it was when this was planned: plan it anew';
        throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', text, { org_id: key.orgId, schema });
      }
      const request = { leaseMs, actor: actorOf(callerOf(ctx)), params: { plan_digest: planDigest } };
      const held = await database.asSystem((tx) => beginWithIdle(tx, key, 'repair', request));
      return { operation: await startOperation(context, held) };
    },
  });
}

const KINDS: Readonly<Record<Difference['difference'], DifferenceKind>> = {
  missing: DifferenceKind.MISSING,
  unexpected: DifferenceKind.UNEXPECTED,
  different: DifferenceKind.DIFFERENT,
};

function message({ difference, ...rest }: Difference): SchemaDifference {
  return create(SchemaDifferenceSchema, { ...rest, difference: KINDS[difference] });
}

/** Tokens are not signed: a forged one must not reach the database as a malformed value. */
function isDriftCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 2) return false;
  const [orgId, schema] = cursor as unknown[];
  return typeof orgId === 'string' && UUID.test(orgId) && typeof schema === 'string';
}
