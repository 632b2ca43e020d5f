import type { HandlerContext } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { callerOf, type Caller } from '@mad/rpc';
import type { AuditEntry } from '../domain/audit-chain.ts';
import { addressOf } from '../caller-address.ts';
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

/** Who acts, as the audit log names them. A platform administrator acting on an organization is named as one. */
function actorOf(caller: Caller): Pick<AuditEntry, 'actorKind' | 'userId'> & { service?: string } {
  switch (caller.kind) {
    case 'user':
      return caller.onBehalf === undefined
        ? { actorKind: 'user', userId: caller.userId }
        : { actorKind: 'platform', userId: caller.onBehalf };
    case 'platform':
      return { actorKind: 'platform', userId: caller.userId };
    case 'service':
      return { actorKind: 'service', userId: caller.userId ?? null, service: caller.service };
    default:
      return { actorKind: 'service', userId: null };
  }
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
  const { service, ...actor } = actorOf(callerOf(ctx));
  const metadata = service === undefined ? fact.metadata : { ...fact.metadata, service };
  await appendAudit(tx, orgId, [auditEvent(orgId, { ...fact, metadata }, actor, addressOf(ctx))]);
}
