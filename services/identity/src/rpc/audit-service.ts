import { create, type JsonObject } from '@bufbuild/protobuf';
import { timestampDate, timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import { AuditEventSchema, type AuditEvent, type AuditService } from '@mad/proto/identity';
import { nextPageToken, pageOf, requireStorable } from '@mad/rpc';
import { appendAudit } from '../audit/append.ts';
import { AUDIT_COLUMNS, verifyChain } from '../audit/verify.ts';
import type { IdentityContext } from '../context.ts';
import type { AuditLogRow } from '../db/entities/audit.ts';
import { PLATFORM_ORG_ID, type AuditEntry } from '../domain/audit-chain.ts';
import { organizationNotFound, readOrganization } from '../organization-scope.ts';

/** Reads another service's event. Throws INVALID_ARGUMENT naming the field that cannot be stored. */
function entryOf(event: AuditEvent, index: number): AuditEntry {
  const entry: AuditEntry = {
    auditId: event.auditId.toLowerCase(),
    orgId: event.orgId.toLowerCase() || PLATFORM_ORG_ID,
    userId: event.userId.toLowerCase() || null,
    actorKind: event.actorKind as AuditEntry['actorKind'],
    action: event.action,
    entityType: event.entityType,
    entityId: event.entityId,
    pipelineId: event.pipelineId.toLowerCase() || null,
    jobId: event.jobId.toLowerCase() || null,
    requestId: event.requestId.toLowerCase() || null,
    address: event.address,
    outcome: event.outcome,
    metadata: (event.metadata as Record<string, unknown> | undefined) ?? {},
    time: timestampDate(event.time!),
  };
  const names = { action: 'action', entityType: 'entity_type', entityId: 'entity_id', address: 'address' } as const;
  for (const [name, field] of [...Object.entries(names), ['outcome', 'outcome'], ['metadata', 'metadata']] as const) {
    requireStorable(`events[${index}].${field}`, entry[name as keyof AuditEntry]);
  }
  return entry;
}

/** Events by organization, organizations in one order everywhere: two appends must not wait for each other. */
function byOrganization(entries: readonly AuditEntry[]): [string, AuditEntry[]][] {
  const groups = Map.groupBy(entries, ({ orgId }) => orgId);
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1));
}

function eventMessage(row: AuditLogRow): AuditEvent {
  return create(AuditEventSchema, {
    auditId: row.audit_id,
    orgId: row.org_id,
    seq: BigInt(row.seq),
    userId: row.user_id ?? '',
    actorKind: row.actor_kind,
    action: row.action,
    entityType: row.entity_type,
    entityId: row.entity_id,
    pipelineId: row.pipeline_id ?? '',
    jobId: row.job_id ?? '',
    requestId: row.request_id ?? '',
    address: row.address,
    outcome: row.outcome,
    metadata: row.metadata as JsonObject,
    time: timestampFromDate(row.ts),
  });
}

function isSeq(cursor: unknown): cursor is number {
  return Number.isSafeInteger(cursor) && (cursor as number) > 0;
}

/** The append-only, hash-chained record of who did what. */
export function auditService(context: IdentityContext): ServiceImpl<typeof AuditService> {
  return {
    async appendAuditEvents(request, ctx) {
      const groups = byOrganization(request.events.map(entryOf));
      const organizations = groups.map(([orgId]) => orgId).filter((orgId) => orgId !== PLATFORM_ORG_ID);
      const appended = await context.database.asSystem(
        async (tx) => {
          const known = await tx.query<{ org_id: string }>(
            'SELECT org_id FROM identity.organizations WHERE org_id = ANY ($1)',
            [organizations],
          );
          const missing = organizations.find((orgId) => !known.some(({ org_id }) => org_id === orgId));
          if (missing !== undefined) throw organizationNotFound(missing);
          let count = 0;
          for (const [orgId, entries] of groups) count += await appendAudit(tx, orgId, entries);
          return count;
        },
        { signal: ctx.signal },
      );
      return { appended };
    },

    async listAuditEvents(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const query = { list: 'audit', orgId, action: request.action };
        const page = pageOf(request, { query, isCursor: isSeq });
        const rows = await tx.query<AuditLogRow>(
          `SELECT ${AUDIT_COLUMNS} FROM identity.audit_logs
           WHERE org_id = $1 AND ($2::bigint IS NULL OR seq < $2) AND ($3 = '' OR action = $3)
           ORDER BY seq DESC LIMIT $4`,
          [orgId, page.cursor ?? null, request.action, page.size + 1],
        );
        const shown = rows.slice(0, page.size);
        return {
          events: shown.map(eventMessage),
          nextPageToken: rows.length > page.size ? nextPageToken(query, Number(shown.at(-1)!.seq)) : '',
        };
      });
    },

    async verifyAuditChain(_request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const { checked, brokenSeq } = await verifyChain(tx, orgId);
        return { intact: brokenSeq === 0, checked: BigInt(checked), brokenSeq: BigInt(brokenSeq) };
      });
    },
  };
}
