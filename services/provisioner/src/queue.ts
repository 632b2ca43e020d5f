import { fromJson } from '@bufbuild/protobuf';
import { createClient, type Transport } from '@connectrpc/connect';
import type { Boss } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import { AuditEventSchema, AuditService } from '@mad/proto/identity';
import { BACKUP_QUEUE } from './backups/schedule.ts';
import { AUDIT_QUEUE, type AuditMessage } from './provisioning/audit.ts';

/** The queues this service owns. An audit event is delivered however long identity is away. */
export const QUEUES = {
  [BACKUP_QUEUE]: { retryLimit: 0 },
  [AUDIT_QUEUE]: { retryLimit: 1_000, retryDelayMs: SECOND_MS, retryDelayMaxMs: 60 * SECOND_MS },
};

/** A burst of new organizations is one call or a few; identity takes up to 500 events in one. */
const BATCH = { batchSize: 100, pollMs: SECOND_MS / 2 };

/** Delivers audit events to identity, which ignores what it has already. */
export async function deliverAuditEvents(boss: Boss, identity: Transport): Promise<void> {
  const audit = createClient(AuditService, identity);
  await boss.workBatch<AuditMessage>(
    AUDIT_QUEUE,
    async (jobs) => {
      const events = jobs.map(({ data }) => fromJson(AuditEventSchema, data.event, { ignoreUnknownFields: true }));
      await audit.appendAuditEvents({ events }, { signal: AbortSignal.any(jobs.map(({ signal }) => signal)) });
    },
    BATCH,
  );
}
