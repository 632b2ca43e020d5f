import type { HandlerContext } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { actorOf, addressOf, callerOf } from '@mad/rpc';
import type { AuditEntry } from '../domain/audit-chain.ts';
import { appendAudit } from './append.ts';

/** What a handler says of a change it made. */
export interface AuditFact {
  /** E.g. `members.create`. */
  action: string;
  entityType: string;
  entityId: string;
  requestId?: string;
  /** `ok` unless said otherwise. */
  outcome?: string;
  /** Never secrets. */
  metadata?: Record<string, unknown>;
}

/** Builds the event of a fact. */
export function auditEvent(
  orgId: string,
  fact: AuditFact,
  actor: Pick<AuditEntry, 'actorKind' | 'userId'>,
  address = '',
): AuditEntry {
  return {
    auditId: uuidv7(),
    orgId,
    userId: actor.userId,
    actorKind: actor.actorKind,
    action: fact.action,
    entityType: fact.entityType,
    entityId: fact.entityId,
    pipelineId: null,
    jobId: null,
    requestId: fact.requestId || null,
    address,
    outcome: fact.outcome ?? 'ok',
    metadata: fact.metadata ?? {},
    time: new Date(),
  };
}

/** Writes what a handler did into an organization's audit log, in the transaction that does it. */
export async function recordAudit(tx: Tx, ctx: HandlerContext, orgId: string, fact: AuditFact): Promise<void> {
  const { actorKind, userId = null, service } = actorOf(callerOf(ctx));
  const metadata = service === undefined ? fact.metadata : { ...fact.metadata, service };
  await appendAudit(tx, orgId, [auditEvent(orgId, { ...fact, metadata }, { actorKind, userId }, addressOf(ctx))]);
}
