import { MINUTE_MS } from '@mad/process';
import { OperationState } from '@mad/proto/provisioner';
import { appendAudit } from '../audit/append.ts';
import { auditEvent } from '../audit/record.ts';
import { standingOf, type TenantWork } from './ensure-tenant.ts';
import type { ErasureMessage } from './queues.ts';

/** How long the provisioner may take to answer; the rest it does without us, and we ask again how it went. */
const PATIENCE_MS = MINUTE_MS;

/**
 * Has the provisioner erase an organization, which asks every owner for its rows, identity too. An erasure that was given
 * up leaves a suspended organization. Throws while it is under way, so that the queue asks again.
 */
export async function eraseTenants(work: TenantWork, message: ErasureMessage, signal: AbortSignal): Promise<void> {
  const { org_id: orgId, erasure_id: erasureId, slug, requested_by: requestedBy } = message;
  if ((await standingOf(work.database, orgId))?.status !== 'erasing') return;
  const request = { orgId, erasureId, slug, requestedBy };
  const { operation } = await work.tenants.eraseTenants(request, { signal, timeoutMs: PATIENCE_MS });
  if (operation?.state === OperationState.SUCCEEDED) return;
  if (operation?.state !== OperationState.CANCELLED) {
    throw new Error(`${orgId} is being erased, at ${operation?.step}: ${operation?.error || 'under way'}`);
  }
  await work.database.inOrg(orgId, async (tx) => {
    const back = await tx.execute(
      `UPDATE identity.organizations SET status = 'suspended', version = version + 1, updated_at = now()
       WHERE org_id = $1 AND status = 'erasing'`,
      [orgId],
    );
    if (back === 0) return;
    const metadata = { erasure_id: erasureId };
    const about = { entityType: 'organization', entityId: orgId, outcome: 'cancelled', metadata };
    const fact = { action: 'organizations.erase', ...about };
    await appendAudit(tx, orgId, [auditEvent(orgId, fact, { actorKind: 'service', userId: null })]);
  });
}
