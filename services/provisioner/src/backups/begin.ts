import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { SECOND_MS, uuidv7 } from '@mad/process';
import { invalid, notFound, rpcError } from '@mad/rpc';
import type { BackupRow } from '../db/entities/backup.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import { canBeArchived } from '../domain/backup-rules.ts';
import type { OperationKind, RestoredState, TenantKey } from '../domain/plan.ts';
import { begin, type Held, type Request } from '../operations/lease.ts';
import { lockTenant } from '../operations/lock-tenant.ts';
import { BACKUP_COLUMNS } from './backup-rows.ts';
import type { BackupParams } from './steps.ts';

const RETRY_MS = SECOND_MS;

/** What a beginning is told. */
export type BeginRequest = Omit<Request, 'params'> & { leaseMs: number };

/** Notes a new backup and its operation. Throws UNAVAILABLE while the tenant is busy. */
export async function beginBackup(
  tx: Tx,
  key: TenantKey,
  { scheduled, ...request }: BeginRequest & { scheduled: boolean },
): Promise<{ held: Held; backupId: string }> {
  await idleTenant(tx, key);
  const backupId = uuidv7();
  const params: BackupParams = { backup_id: backupId };
  const held = await begin(tx, key, 'backup', { ...request, params: { ...params } });
  await tx.execute(
    `INSERT INTO provisioner.backups (backup_id, org_id, schema, operation_id, scheduled) VALUES ($1, $2, $3, $4, $5)`,
    [backupId, key.orgId, key.schema, held.operationId, scheduled],
  );
  return { held, backupId };
}

/**
 * Begins to try or to restore a backup, whose row is locked against its removal. Throws NOT_FOUND, FAILED_PRECONDITION for
 * one that is not whole or a tenant it cannot be restored to, UNAVAILABLE while the tenant is busy.
 */
export async function beginWithBackup(
  tx: Tx,
  backupId: string,
  kind: Extract<OperationKind, 'verify_backup' | 'restore' | 'restore_table'>,
  { keepMs, table, ...request }: BeginRequest & { keepMs?: number; table?: string },
): Promise<Held> {
  const backup = await lockBackup(tx, backupId);
  if (backup.completed_at === null || backup.deleting_at !== null) throw conflict(backupId, 'it is not whole');
  const mayBeOf = (name: string): boolean => name === table || name.startsWith(`${table}_`);
  if (table !== undefined && !backup.tables.some(({ name }) => mayBeOf(name))) {
    throw invalid('table', 'the backup holds no such table');
  }
  const key: TenantKey = { orgId: backup.org_id, schema: backup.schema };
  const tenant = await idleTenant(tx, key);
  const params: BackupParams = {
    backup_id: backupId,
    ...(keepMs === undefined ? {} : { keep_ms: keepMs }),
    ...(table === undefined ? {} : { table }),
    ...(kind === 'restore' ? { state: tenant.state as RestoredState } : {}),
  };
  return begin(tx, key, kind, { ...request, params: { ...params } });
}

/** The backup, locked until the transaction ends. Throws NOT_FOUND. */
export async function lockBackup(tx: Tx, backupId: string): Promise<BackupRow> {
  const [backup] = await tx.query<BackupRow>(
    `SELECT ${BACKUP_COLUMNS} FROM provisioner.backups b WHERE b.backup_id = $1 FOR UPDATE`,
    [backupId],
  );
  if (backup === undefined) throw notFound('backup', backupId);
  return backup;
}

async function idleTenant(tx: Tx, key: TenantKey): Promise<TenantRow> {
  const tenant = await lockTenant(tx, key);
  if (tenant === undefined) throw notFound('tenant', key.schema);
  const about = { org_id: key.orgId, schema: key.schema, state: tenant.state };
  if (tenant.step !== null) {
    const options = { retryAfterMs: RETRY_MS };
    throw rpcError(Code.Unavailable, 'TENANT_PROVISIONING', 'the tenant is busy: try again', about, options);
  }
  if (tenant.state === 'erasing' || tenant.state === 'erased') {
    const message = 'the organization was erased, and its keys with it: no backup of it can be read';
    throw rpcError(Code.FailedPrecondition, 'ORGANIZATION_ERASED', message, about);
  }
  if (!canBeArchived(tenant.state)) {
    throw rpcError(Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED', 'the tenant has no database', about);
  }
  return tenant;
}

/** Refuses something with a backup. */
export function conflict(backupId: string, why: string): Error {
  return rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', `backup_id: ${why}`, { backup_id: backupId });
}
