import { create, fromJson, toJson, type JsonObject, type JsonValue } from '@bufbuild/protobuf';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import type { Client, HandlerContext } from '@connectrpc/connect';
import type { Boss, BossJob, Tx } from '@mad/postgres';
import { MINUTE_MS, SECOND_MS, uuidv7 } from '@mad/process';
import { AuditEventSchema, type AuditEvent, type AuditService } from '@mad/proto/identity';
import { actorOf, addressOf, callerOf, type Actor } from '@mad/rpc';

/** The queue of events on their way to identity's audit log. */
export const AUDIT = 'audit';

/** Identity may be down for days; nothing done in that time goes unrecorded. */
export const AUDIT_QUEUE = { retryLimit: 100_000, retryDelayMs: SECOND_MS, retryDelayMaxMs: MINUTE_MS };

/** Fewer than identity takes at once (500). */
const BATCH_SIZE = 200;
const POLL_MS = SECOND_MS;
const PATIENCE_MS = 30 * SECOND_MS;

/** What a handler says of a change it made. */
export interface AuditFact {
  /** E.g. `pipelines.publish`. */
  action: string;
  entityType: string;
  entityId: string;
  pipelineId?: string;
  jobId?: string;
  requestId?: string;
  /** `ok` unless said otherwise. */
  outcome?: string;
  /** Never secrets. */
  metadata?: JsonObject;
}

/** The event of what a caller did. */
export function auditEvent(ctx: HandlerContext, orgId: string, fact: AuditFact): AuditEvent {
  return event(orgId, fact, actorOf(callerOf(ctx)), addressOf(ctx));
}

/** The event of what catalog did by itself, e.g. admitting a job. */
export function systemAuditEvent(orgId: string, fact: AuditFact): AuditEvent {
  return event(orgId, fact, { actorKind: 'service' }, '');
}

function event(orgId: string, fact: AuditFact, { actorKind, userId = '' }: Actor, address: string) {
  return create(AuditEventSchema, {
    auditId: uuidv7(),
    orgId,
    actorKind,
    userId,
    action: fact.action,
    entityType: fact.entityType,
    entityId: fact.entityId,
    pipelineId: fact.pipelineId ?? '',
    jobId: fact.jobId ?? '',
    requestId: fact.requestId ?? '',
    address,
    outcome: fact.outcome ?? 'ok',
    metadata: fact.metadata ?? {},
    time: timestampNow(),
  });
}

/** Sends an event in the transaction that does what it tells: it is recorded if and only if that commits. */
export async function audit(tx: Tx, boss: Boss, auditEventToSend: AuditEvent): Promise<void> {
  await boss.send(tx, AUDIT, { event: toJson(AuditEventSchema, auditEventToSend) });
}

/** Carries events to identity, many at a time. Delivered twice they are recorded once: identity knows them by their ids. */
export async function deliverAudit(boss: Boss, identity: Client<typeof AuditService>): Promise<void> {
  const deliver = async (jobs: readonly BossJob<{ event: JsonValue }>[]): Promise<void> => {
    const events = jobs.map(({ data }) => fromJson(AuditEventSchema, data.event));
    await identity.appendAuditEvents({ events }, { timeoutMs: PATIENCE_MS });
  };
  await boss.workBatch(AUDIT, deliver, { batchSize: BATCH_SIZE, pollMs: POLL_MS });
}
