import { SECOND_MS } from '@mad/process';
import { standingOf, type TenantWork } from './ensure-tenant.ts';

const PATIENCE_MS = 30 * SECOND_MS;

/**
 * Brings an organization's databases to what its row says now, not to what it said when the message was sent: of a
 * suspension and a resumption the later counts, in whatever order their messages come. Throws when the row changed
 * meanwhile, so that the queue asks again.
 */
export async function setTenantState(work: TenantWork, orgId: string, signal: AbortSignal): Promise<void> {
  const before = (await standingOf(work.database, orgId))?.status;
  const options = { signal, timeoutMs: PATIENCE_MS };
  if (before === 'suspended') await work.tenants.suspendTenants({ orgId }, options);
  else if (before === 'read_only') await work.tenants.freezeTenants({ orgId }, options);
  else if (before === 'active') await work.tenants.resumeTenants({ orgId }, options);
  else return;
  const after = (await standingOf(work.database, orgId))?.status;
  if (after !== before) throw new Error(`${orgId} became ${after} while its databases were told that it is ${before}`);
}
