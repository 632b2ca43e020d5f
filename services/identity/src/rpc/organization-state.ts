import { Code, type HandlerContext } from '@connectrpc/connect';
import type { Boss, Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import type {
  EraseOrganizationRequest,
  FreezeOrganizationRequest,
  ResumeOrganizationRequest,
  SuspendOrganizationRequest,
} from '@mad/proto/identity';
import { callerOf, invalid, rpcError } from '@mad/rpc';
import { recordAudit } from '../audit/record.ts';
import type { OrganizationRow } from '../db/entities/organization.ts';
import { frozen, resumed, suspended, type OrganizationStatusName } from '../domain/organization-status.ts';
import { ERASE_ORGANIZATION, SET_TENANT_STATE, type ErasureMessage } from '../queue/queues.ts';
import { ORGANIZATION_COLUMNS } from './organization.ts';

/** Moves an organization to the status that `next` says and queues the word to the provisioner. */
async function changeStatus(
  tx: Tx,
  boss: Boss,
  orgId: string,
  next: (status: OrganizationStatusName) => OrganizationStatusName | undefined,
  verb: string,
): Promise<OrganizationRow> {
  const [before] = await tx.query<OrganizationRow>(
    `SELECT ${ORGANIZATION_COLUMNS} FROM identity.organizations WHERE org_id = $1 FOR NO KEY UPDATE`,
    [orgId],
  );
  const status = next(before!.status);
  if (status === undefined) {
    const message = `an organization that is ${before!.status} cannot be ${verb}`;
    throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { status: before!.status });
  }
  await boss.send(tx, SET_TENANT_STATE, { org_id: orgId }, { key: orgId });
  if (status === before!.status) return before!;
  const [row] = await tx.query<OrganizationRow>(
    `UPDATE identity.organizations SET status = $2, version = version + 1, updated_at = now()
     WHERE org_id = $1 RETURNING ${ORGANIZATION_COLUMNS}`,
    [orgId, status],
  );
  return row!;
}

/** Suspends an organization and ends its sessions: nobody of it can sign in, refresh or exchange a token. */
export async function suspendOrganization(
  tx: Tx,
  ctx: HandlerContext,
  boss: Boss,
  request: SuspendOrganizationRequest,
): Promise<OrganizationRow> {
  const { orgId, requestId, reason } = request;
  const row = await changeStatus(tx, boss, orgId, suspended, 'suspended');
  const sessions = await tx.execute(
    'UPDATE identity.user_sessions SET revoked_at = now() WHERE org_id = $1 AND revoked_at IS NULL',
    [orgId],
  );
  const metadata = { reason, sessions };
  const fact = { action: 'organizations.suspend', entityType: 'organization', entityId: orgId, requestId, metadata };
  await recordAudit(tx, ctx, orgId, fact);
  return row;
}

/** Makes an organization read-only: its people keep their sessions, and can change nothing. */
export async function freezeOrganization(
  tx: Tx,
  ctx: HandlerContext,
  boss: Boss,
  request: FreezeOrganizationRequest,
): Promise<OrganizationRow> {
  const { orgId, requestId, reason } = request;
  const row = await changeStatus(tx, boss, orgId, frozen, 'made read-only');
  const metadata = { reason };
  const fact = { action: 'organizations.freeze', entityType: 'organization', entityId: orgId, requestId, metadata };
  await recordAudit(tx, ctx, orgId, fact);
  return row;
}

/** Resumes an organization that is suspended or read-only; after a suspension its people sign in anew. */
export async function resumeOrganization(
  tx: Tx,
  ctx: HandlerContext,
  boss: Boss,
  request: ResumeOrganizationRequest,
): Promise<OrganizationRow> {
  const { orgId, requestId } = request;
  const row = await changeStatus(tx, boss, orgId, resumed, 'resumed');
  const fact = { action: 'organizations.resume', entityType: 'organization', entityId: orgId, requestId };
  await recordAudit(tx, ctx, orgId, fact);
  return row;
}

/** Shuts an organization and has the provisioner erase it. Throws INVALID_ARGUMENT unless the slug is its own. */
export async function eraseOrganization(
  tx: Tx,
  ctx: HandlerContext,
  boss: Boss,
  request: EraseOrganizationRequest,
): Promise<{ row: OrganizationRow; erasureId: string }> {
  const { orgId, requestId, reason, slug } = request;
  const [before] = await tx.query<OrganizationRow>(
    `SELECT ${ORGANIZATION_COLUMNS} FROM identity.organizations WHERE org_id = $1 FOR NO KEY UPDATE`,
    [orgId],
  );
  if (slug !== before!.slug) throw invalid('slug', 'is not the slug of this organization');
  const [row] = await tx.query<OrganizationRow>(
    `UPDATE identity.organizations SET status = 'erasing', version = version + 1, updated_at = now()
     WHERE org_id = $1 RETURNING ${ORGANIZATION_COLUMNS}`,
    [orgId],
  );
  const sessions = await tx.execute(
    'UPDATE identity.user_sessions SET revoked_at = now() WHERE org_id = $1 AND revoked_at IS NULL',
    [orgId],
  );
  const caller = callerOf(ctx);
  const message: ErasureMessage = {
    org_id: orgId,
    erasure_id: uuidv7(),
    slug,
    requested_by: (caller.kind === 'public' ? undefined : caller.userId) ?? '',
  };
  await boss.send(tx, ERASE_ORGANIZATION, message, { key: message.erasure_id });
  const metadata = { reason, sessions, erasure_id: message.erasure_id };
  const fact = { action: 'organizations.erase', entityType: 'organization', entityId: orgId, requestId, metadata };
  await recordAudit(tx, ctx, orgId, fact);
  return { row: row!, erasureId: message.erasure_id };
}
