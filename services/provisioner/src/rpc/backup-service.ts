import { create } from '@bufbuild/protobuf';
import { Code, type HandlerContext } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { HOUR_MS } from '@mad/process';
import { BackupPolicySchema, BackupService, type BackupPolicy, type Operation } from '@mad/proto/provisioner';
import { actorOf, bind, callerOf, nextPageToken, notFound, pageOf, rpcError, type BoundService } from '@mad/rpc';
import { BACKUP_COLUMNS } from '../backups/backup-rows.ts';
import { beginBackup, beginWithBackup, type BeginRequest } from '../backups/begin.ts';
import { removeWithdrawn, withdraw } from '../backups/removal.ts';
import type { ProvisionerContext } from '../context.ts';
import type { BackupPolicyRow } from '../db/entities/backup.ts';
import type { OperationRow } from '../db/entities/operation.ts';
import { replacedName } from '../domain/names.ts';
import type { Held } from '../operations/lease.ts';
import { recordAudit } from '../provisioning/audit.ts';
import { backupMessage, type BackupWithState } from './backup.ts';
import { startOperation } from './operation.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const SELECT = `
  SELECT ${BACKUP_COLUMNS}, o.state AS operation_state
  FROM provisioner.backups b JOIN provisioner.operations o USING (operation_id)`;

/** Operations that leave a database behind for a while. */
const REPLACING: ReadonlySet<OperationRow['kind']> = new Set(['restore', 'move', 'move_online']);

export function backupService(context: ProvisionerContext): BoundService {
  const { database, boss, owners, leaseMs, replacedKeepMs, backupPolicy } = context;

  const request = (ctx: HandlerContext): BeginRequest => ({ leaseMs, actor: actorOf(callerOf(ctx)) });

  const read = async (tx: Tx, backupId: string): Promise<BackupWithState> => {
    const [row] = await tx.query<BackupWithState>(`${SELECT} WHERE b.backup_id = $1`, [backupId]);
    if (row === undefined) throw notFound('backup', backupId);
    return row;
  };

  const started = (held: Held): Promise<Operation> => startOperation(context, held);

  return bind(BackupService, {
    async createBackup({ orgId, schema }, ctx) {
      owners.of(schema);
      const key = { orgId: orgId.toLowerCase(), schema };
      const { held, backupId } = await database.asSystem((tx) =>
        beginBackup(tx, key, { ...request(ctx), scheduled: false }),
      );
      const operation = await started(held);
      const row = await database.asSystem((tx) => read(tx, backupId));
      return { backup: backupMessage(row, { tables: true }), operation };
    },

    async getBackup({ backupId }, ctx) {
      const row = await database.asSystem((tx) => read(tx, backupId), { signal: ctx.signal });
      return { backup: backupMessage(row, { tables: true }) };
    },

    async listBackups(list, ctx) {
      const { schema } = list;
      const orgId = list.orgId.toLowerCase();
      const query = { list: 'backups', orgId, schema };
      const { size, cursor } = pageOf(list, { query, isCursor: isBackupCursor });
      const [createdAt, afterId] = (cursor ?? [null, null]) as (string | null)[];
      const rows = await database.asSystem(
        (tx) =>
          tx.query<BackupWithState>(
            `${SELECT}
             WHERE ($1::uuid IS NULL OR b.org_id = $1) AND ($2 = '' OR b.schema = $2)
               AND ($3::timestamptz IS NULL OR (b.created_at, b.backup_id) < ($3, $4))
             ORDER BY b.created_at DESC, b.backup_id DESC LIMIT $5`,
            [orgId || null, schema, createdAt, afterId, size + 1],
          ),
        { signal: ctx.signal },
      );
      const page = rows.slice(0, size);
      const last = page.at(-1);
      const more = rows.length > size && last !== undefined;
      return {
        backups: page.map((row) => backupMessage(row, { tables: false })),
        nextPageToken: more ? nextPageToken(query, [last.created_at.toISOString(), last.backup_id]) : '',
      };
    },

    async verifyBackup({ backupId }, ctx) {
      const held = await database.asSystem((tx) => beginWithBackup(tx, backupId, 'verify_backup', request(ctx)));
      return { operation: await started(held) };
    },

    async restoreBackup({ backupId, keepHours }, ctx) {
      const keepMs = keepHours === undefined ? replacedKeepMs : keepHours * HOUR_MS;
      const held = await database.asSystem((tx) =>
        beginWithBackup(tx, backupId, 'restore', { ...request(ctx), keepMs }),
      );
      return { operation: await started(held) };
    },

    async restoreTable({ backupId, table }, ctx) {
      const held = await database.asSystem((tx) =>
        beginWithBackup(tx, backupId, 'restore_table', { ...request(ctx), table }),
      );
      return { operation: await started(held) };
    },

    async dropReplacedDatabase({ operationId }, ctx) {
      const databaseName = await database.asSystem(async (tx) => {
        const [found] = await tx.query<Pick<OperationRow, 'kind' | 'state' | 'schema' | 'org_id'>>(
          'SELECT kind, state, schema, org_id FROM provisioner.operations WHERE operation_id = $1',
          [operationId],
        );
        if (found === undefined || !REPLACING.has(found.kind)) throw notFound('operation', operationId);
        if (found.state !== 'succeeded') {
          const about = { operation_id: operationId };
          throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', 'operation_id: it restored nothing yet', about);
        }
        const name = replacedName(found.schema, operationId);
        const there = await tx.execute(
          `UPDATE provisioner.cleanup_records SET keep_until = now() WHERE object_kind = 'database' AND object_name = $1`,
          [name],
        );
        if (there === 0) return '';
        const fact = { orgId: found.org_id, schema: found.schema, action: 'backups.drop_replaced' };
        await recordAudit(tx, boss, { ...fact, ...actorOf(callerOf(ctx)), metadata: { database: name } });
        return name;
      });
      return { databaseName };
    },

    async deleteBackup({ backupId }, ctx) {
      await database.asSystem(async (tx) => {
        const { org_id: orgId, schema } = await withdraw(tx, backupId);
        const fact = { orgId, schema, action: 'backups.delete', metadata: { backup_id: backupId } };
        await recordAudit(tx, boss, { ...fact, ...actorOf(callerOf(ctx)) });
      });
      await removeWithdrawn(context, backupId);
      return {};
    },

    async getBackupPolicy({ orgId }) {
      const [own] = await database.asSystem((tx) =>
        tx.query<BackupPolicyRow>('SELECT every_hours, keep FROM provisioner.backup_policies WHERE org_id = $1', [
          orgId,
        ]),
      );
      if (own === undefined) return { policy: create(BackupPolicySchema, { ...backupPolicy }), isDefault: true };
      return { policy: policyMessage(own) };
    },

    async setBackupPolicy({ orgId, everyHours, keep }, ctx) {
      const own = await database.asSystem(async (tx) => {
        const [row] = await tx.query<BackupPolicyRow>(
          `INSERT INTO provisioner.backup_policies (org_id, every_hours, keep) VALUES ($1, $2, $3)
           ON CONFLICT (org_id) DO UPDATE
             SET every_hours = excluded.every_hours, keep = excluded.keep, updated_at = now()
           RETURNING every_hours, keep`,
          [orgId, everyHours, keep],
        );
        const fact = { orgId, schema: 'policy', action: 'backups.set_policy', metadata: { everyHours, keep } };
        await recordAudit(tx, boss, { ...fact, ...actorOf(callerOf(ctx)) });
        return row!;
      });
      return { policy: policyMessage(own) };
    },
  });
}

function policyMessage({ every_hours: everyHours, keep }: Pick<BackupPolicyRow, 'every_hours' | 'keep'>): BackupPolicy {
  return create(BackupPolicySchema, { everyHours, keep });
}

/** Tokens are not signed: a forged one must not reach the database as a malformed value. */
function isBackupCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 2) return false;
  const [createdAt, backupId] = cursor as unknown[];
  return (
    typeof createdAt === 'string' &&
    !Number.isNaN(Date.parse(createdAt)) &&
    typeof backupId === 'string' &&
    UUID.test(backupId)
  );
}
