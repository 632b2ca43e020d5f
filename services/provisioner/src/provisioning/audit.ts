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

/** What happened, and who asked for it. */
interface Fact {
  /** E.g. `tenants.create`. */
  action: string;
  /** Who asked for it, when a person did. */
  userId?: string;
  actorKind?: 'user' | 'platform' | 'service';
  /** `ok`, or the error's code. */
  outcome?: string;
  /** Never secrets. */
  metadata?: JsonObject;
}

/** What happened to a tenant. */
export interface TenantFact extends Fact {
  orgId: string;
  /** The tenant schema. */
  schema: string;
}

/** What happened to something that is no organization's. */
export interface PlatformFact extends Fact {
  entityType: 'server' | 'rollout';
  entityId: string;
}

/** Sends an event of a tenant to identity's audit log: if and only if the transaction commits. */
export function recordAudit(tx: Tx, boss: Boss, fact: TenantFact): Promise<void> {
  return send(tx, boss, fact, { orgId: fact.orgId, entityType: 'tenant', entityId: fact.schema });
}

/** The same of the platform's own. */
export function recordPlatformAudit(tx: Tx, boss: Boss, fact: PlatformFact): Promise<void> {
  return send(tx, boss, fact, { orgId: '', entityType: fact.entityType, entityId: fact.entityId });
}

async function send(
  tx: Tx,
  boss: Boss,
  fact: Fact,
  about: { orgId: string; entityType: string; entityId: string },
): Promise<void> {
  const event = create(AuditEventSchema, {
    auditId: uuidv7(),
    userId: fact.userId ?? '',
    actorKind: fact.actorKind ?? 'service',
    action: fact.action,
    ...about,
    outcome: fact.outcome ?? 'ok',
    metadata: fact.metadata ?? {},
    time: timestampNow(),
  });
  const message: AuditMessage = { event: toJson(AuditEventSchema, event) as JsonObject };
  await boss.send(tx, AUDIT_QUEUE, message);
}
