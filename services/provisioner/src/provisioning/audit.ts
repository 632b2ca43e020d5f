import { create, toJson, type JsonObject } from '@bufbuild/protobuf';
import { timestampNow } from '@bufbuild/protobuf/wkt';
import type { Boss, Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { AuditEventSchema } from '@mad/proto/identity';

/** The queue of audit events on their way to identity. */
export const AUDIT_QUEUE = 'audit-events';

/** A message of that queue: an AuditEvent as JSON. */
export interface AuditMessage {
  event: JsonObject;
}

/** What happened to a tenant. */
export interface TenantFact {
  orgId: string;
  /** E.g. `tenants.create`. */
  action: string;
  /** The tenant schema. */
  schema: string;
  /** Who asked for it, when a person did. */
  userId?: string;
  actorKind?: 'user' | 'platform' | 'service';
  /** `ok`, or the error's code. */
  outcome?: string;
  /** Never secrets. */
  metadata?: JsonObject;
}

/** Sends an event to identity's audit log: if and only if the transaction commits. */
export async function recordAudit(tx: Tx, boss: Boss, fact: TenantFact): Promise<void> {
  const event = create(AuditEventSchema, {
    auditId: uuidv7(),
    orgId: fact.orgId,
    userId: fact.userId ?? '',
    actorKind: fact.actorKind ?? 'service',
    action: fact.action,
    entityType: 'tenant',
    entityId: fact.schema,
    outcome: fact.outcome ?? 'ok',
    metadata: fact.metadata ?? {},
    time: timestampNow(),
  });
  const message: AuditMessage = { event: toJson(AuditEventSchema, event) as JsonObject };
  await boss.send(tx, AUDIT_QUEUE, message);
}
