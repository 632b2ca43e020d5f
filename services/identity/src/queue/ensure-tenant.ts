import type { Client } from '@connectrpc/connect';
import type { Database } from '@mad/postgres';
import { MINUTE_MS } from '@mad/process';
import { TenantState, type TenantService } from '@mad/proto/provisioner';
import { appendAudit } from '../audit/append.ts';
import { auditEvent } from '../audit/record.ts';
import type { OrganizationStatusName } from '../domain/organization-status.ts';

/** How long the provisioner may take to answer; what it has not finished by then it goes on with, and we ask again. */
const PATIENCE_MS = MINUTE_MS;

/** Whom the handlers of identity's queue talk to. */
export interface TenantWork {
  database: Database;
  tenants: Client<typeof TenantService>;
  /** The tenant schemas an organization gets when it is made, e.g. `results`. */
  tenantSchemas: readonly string[];
}

interface Standing {
  status: OrganizationStatusName;
  region: string;
}

/** Reads where an organization stands now. */
export async function standingOf(database: Database, orgId: string): Promise<Standing | undefined> {
  return database.inOrg(orgId, async (tx) => {
    const [row] = await tx.query<Standing>('SELECT status, region FROM identity.organizations WHERE org_id = $1', [
      orgId,
    ]);
    return row;
  });
}

/**
 * Has an organization's databases made and then opens it for use. Throws while one is not ready, so that the queue
 * asks again later; the organization goes on provisioning.
 */
export async function ensureTenant(work: TenantWork, orgId: string, signal: AbortSignal): Promise<void> {
  const standing = await standingOf(work.database, orgId);
  if (standing?.status !== 'provisioning') return;
  for (const schema of work.tenantSchemas) {
    const request = { orgId, schema, region: standing.region };
    const { tenant } = await work.tenants.ensureTenant(request, { signal, timeoutMs: PATIENCE_MS });
    if (tenant?.state === TenantState.READY) continue;
    const state = TenantState[tenant?.state ?? TenantState.UNSPECIFIED];
    throw new Error(`the ${schema} tenant of ${orgId} is ${state}: ${tenant?.lastError || 'not ready yet'}`);
  }
  await work.database.inOrg(orgId, async (tx) => {
    const activated = await tx.execute(
      `UPDATE identity.organizations SET status = 'active', version = version + 1, updated_at = now()
       WHERE org_id = $1 AND status = 'provisioning'`,
      [orgId],
    );
    if (activated === 0) return;
    const fact = { action: 'organizations.activate', entityType: 'organization', entityId: orgId };
    await appendAudit(tx, orgId, [auditEvent(orgId, fact, { actorKind: 'service', userId: null })]);
  });
}
