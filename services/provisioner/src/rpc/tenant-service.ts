import { Code } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import { TenantService, TenantState } from '@mad/proto/provisioner';
import {
  actorOf,
  bind,
  callerOf,
  invalid,
  nextPageToken,
  notFound,
  orgOf,
  pageOf,
  rpcError,
  type BoundService,
} from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import { recordAudit } from '../provisioning/audit.ts';
import { ensureTenant } from '../provisioning/ensure.ts';
import { beginWithIdle } from '../operations/begin-idle.ts';
import { givesWay } from '../operations/lease.ts';
import { switchTenants } from '../provisioning/switching.ts';
import { fleetHealth } from '../servers/fleet-health.ts';
import { describeTenants } from './describe-tenants.ts';
import { eraseTenants } from './erase-tenants.ts';
import { moveTenant } from './move-tenant.ts';
import { rotateTenantCredentials } from './rotate-tenant-credentials.ts';
import { stateName, tenantMessage } from './messages.ts';

const REGION = /^[a-z][a-z0-9-]{0,62}$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const RETRY_MS = SECOND_MS;

export function tenantService(context: ProvisionerContext): BoundService {
  const { database, boss, owners, runs, defaultRegion, leaseMs } = context;
  const health = fleetHealth(context);

  const tenantOf = async (orgId: string, schema: string): Promise<TenantRow> => {
    const [row] = await database.asSystem((tx) =>
      tx.query<TenantRow>(`SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 AND schema = $2`, [
        orgId,
        schema,
      ]),
    );
    if (row === undefined) throw notFound('tenant', schema);
    return row;
  };

  return bind(TenantService, {
    async ensureTenant({ orgId, schema, region }, ctx) {
      owners.of(schema);
      if (region !== '' && !REGION.test(region)) throw invalid('region', 'is not the name of a region');
      const key = { orgId: orgId.toLowerCase(), schema };
      return { tenant: tenantMessage(await ensureTenant(context, key, region || defaultRegion, ctx)) };
    },

    async suspendTenants({ orgId }, ctx) {
      const rows = await switchTenants(context, orgId.toLowerCase(), 'suspend', ctx);
      return { tenants: rows.map(tenantMessage) };
    },

    async freezeTenants({ orgId }, ctx) {
      const rows = await switchTenants(context, orgId.toLowerCase(), 'freeze', ctx);
      return { tenants: rows.map(tenantMessage) };
    },

    async resumeTenants({ orgId }, ctx) {
      const rows = await switchTenants(context, orgId.toLowerCase(), 'resume', ctx);
      return { tenants: rows.map(tenantMessage) };
    },

    eraseTenants: (request, ctx) => eraseTenants(context, request, ctx),

    async getTenant({ schema }, ctx) {
      const orgId = orgOf(ctx);
      const [row] = await database.inOrg(
        orgId,
        (tx) =>
          tx.query<TenantRow>(`SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 AND schema = $2`, [
            orgId,
            schema,
          ]),
        { readOnly: true, signal: ctx.signal },
      );
      if (row === undefined) throw notFound('tenant', schema);
      return { tenant: tenantMessage(row) };
    },

    describeTenants: (request, ctx) => describeTenants(context, request, ctx),

    async listTenants(request, ctx) {
      const { orgId, state } = request;
      if (orgId !== '' && !UUID.test(orgId)) throw invalid('org_id', 'is not a UUID');
      const query = { list: 'tenants', orgId: orgId.toLowerCase(), state };
      const { size, cursor } = pageOf(request, { query, isCursor: isTenantCursor });
      const [createdAt, afterOrg, afterSchema] = (cursor ?? [null, null, null]) as (string | null)[];
      const rows = await database.asSystem(
        (tx) =>
          tx.query<TenantRow>(
            `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants
             WHERE ($1::uuid IS NULL OR org_id = $1) AND ($2::text IS NULL OR state = $2)
               AND ($3::timestamptz IS NULL OR (created_at, org_id, schema) < ($3, $4, $5))
             ORDER BY created_at DESC, org_id DESC, schema DESC LIMIT $6`,
            [
              orgId || null,
              state === TenantState.UNSPECIFIED ? null : stateName(state),
              createdAt,
              afterOrg,
              afterSchema,
              size + 1,
            ],
          ),
        { signal: ctx.signal },
      );
      const page = rows.slice(0, size);
      const last = page.at(-1);
      const more = rows.length > size && last !== undefined;
      return {
        tenants: page.map(tenantMessage),
        nextPageToken: more ? nextPageToken(query, [last.created_at.toISOString(), last.org_id, last.schema]) : '',
      };
    },

    async labelTenant({ orgId, schema, labels, remove }, ctx) {
      const row = await database.asSystem(async (tx) => {
        const [labelled] = await tx.query<TenantRow>(
          `UPDATE provisioner.tenants SET labels = (labels || $3::jsonb) - $4::text[], updated_at = now()
           WHERE org_id = $1 AND schema = $2 RETURNING ${TENANT_COLUMNS}`,
          [orgId, schema, JSON.stringify(labels), remove],
        );
        if (labelled === undefined) throw notFound('tenant', schema);
        const fact = { orgId: labelled.org_id, schema, action: 'tenants.label', metadata: { labels, remove } };
        await recordAudit(tx, boss, { ...fact, ...actorOf(callerOf(ctx)) });
        return labelled;
      });
      return { tenant: tenantMessage(row) };
    },

    async migrateTenant({ orgId, schema }, ctx) {
      owners.of(schema);
      const key = { orgId: orgId.toLowerCase(), schema };
      const request = { leaseMs, actor: actorOf(callerOf(ctx)) };
      const held = await database.asSystem((tx) => beginWithIdle(tx, key, 'migrate', request));
      const outcome = await runs.carryOut(held);
      if (outcome.state === 'failed') {
        const row = await tenantOf(key.orgId, schema);
        const message = `the migration failed: ${row.last_error}`;
        throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { schema }, { cause: outcome.error });
      }
      if (outcome.state === 'cancelled') {
        if (await givesWay(database, held)) {
          const message = "the migration gave way to a change of the tenant's state: ask for it again";
          throw rpcError(Code.Unavailable, 'TENANT_PROVISIONING', message, { schema }, { retryAfterMs: RETRY_MS });
        }
        throw rpcError(Code.Aborted, 'STATE_CONFLICT', 'the migration was cancelled', { schema });
      }
      if (outcome.state === 'left') {
        const options = { retryAfterMs: RETRY_MS };
        throw rpcError(Code.Unavailable, 'TENANT_PROVISIONING', 'the migration goes on elsewhere', { schema }, options);
      }
      return { tenant: tenantMessage(await tenantOf(key.orgId, schema)), applied: outcome.findings.applied ?? [] };
    },

    async rotateTenantCredentials(request, ctx) {
      owners.of(request.schema);
      return rotateTenantCredentials(context, request, ctx);
    },

    async moveTenant(request, ctx) {
      owners.of(request.schema);
      return moveTenant(context, request, ctx);
    },

    getFleetHealth: () => health(),
  });
}

/** Tokens are not signed: a forged one must not reach the database as a malformed value. */
function isTenantCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 3) return false;
  const [createdAt, orgId, schema] = cursor as unknown[];
  return (
    typeof createdAt === 'string' &&
    !Number.isNaN(Date.parse(createdAt)) &&
    typeof orgId === 'string' &&
    UUID.test(orgId) &&
    typeof schema === 'string'
  );
}
