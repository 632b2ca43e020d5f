import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { sleep } from '@mad/process';
import { OperationService } from '@mad/proto/provisioner';
import { actorOf, bind, callerOf, nextPageToken, notFound, pageOf, rpcError, type BoundService } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import type { OperationRow } from '../db/entities/operation.ts';
import { mustBeCarriedThrough, type StepName } from '../domain/plan.ts';
import { recordAudit } from '../provisioning/audit.ts';
import { operationMessage, operationStateName } from './operation.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** How soon a watcher sees a change. */
const POLL_MS = 200;

type Row = OperationRow & { last_error: string };

/** What the tenant's last try said belongs to the operation it has now. */
const SELECT = `
  SELECT o.operation_id, o.org_id, o.schema, o.kind, o.state, o.error, o.cause, o.params, o.result, o.actor_kind, o.user_id, o.step,
    o.progress_done, o.progress_total, o.progress_unit, o.cancel_requested_at, o.started_at, o.ended_at, o.updated_at,
    CASE WHEN o.state = 'running' AND t.operation_id = o.operation_id THEN t.last_error ELSE '' END AS last_error
  FROM provisioner.operations o LEFT JOIN provisioner.tenants t ON t.org_id = o.org_id AND t.schema = o.schema`;

/** An operation as it is now. Throws NOT_FOUND. */
export async function readOperation(tx: Tx, operationId: string): Promise<Row> {
  const [row] = await tx.query<Row>(`${SELECT} WHERE o.operation_id = $1`, [operationId]);
  if (row === undefined) throw notFound('operation', operationId);
  return row;
}

export function operationService({ database, boss, changes }: ProvisionerContext): BoundService {
  return bind(OperationService, {
    async getOperation({ operationId }, ctx) {
      const row = await database.asSystem((tx) => readOperation(tx, operationId), { signal: ctx.signal });
      return { operation: operationMessage(row) };
    },

    async listOperations(request, ctx) {
      const { orgId, kind } = request;
      const state = operationStateName(request.state) ?? null;
      const query = { list: 'operations', orgId: orgId.toLowerCase(), kind, state };
      const { size, cursor } = pageOf(request, { query, isCursor: isOperationCursor });
      const [startedAt, afterId] = (cursor ?? [null, null]) as (string | null)[];
      const rows = await database.asSystem(
        (tx) =>
          tx.query<Row>(
            `${SELECT}
             WHERE ($1::uuid IS NULL OR o.org_id = $1) AND ($2 = '' OR o.kind = $2) AND ($3::text IS NULL OR o.state = $3)
               AND ($4::timestamptz IS NULL OR (o.started_at, o.operation_id) < ($4, $5))
             ORDER BY o.started_at DESC, o.operation_id DESC LIMIT $6`,
            [orgId || null, kind, state, startedAt, afterId, size + 1],
          ),
        { signal: ctx.signal },
      );
      const page = rows.slice(0, size);
      const last = page.at(-1);
      const more = rows.length > size && last !== undefined;
      return {
        operations: page.map(operationMessage),
        nextPageToken: more ? nextPageToken(query, [last.started_at.toISOString(), last.operation_id]) : '',
      };
    },

    async *watchOperation({ operationId }, ctx) {
      let said = '';
      while (!ctx.signal.aborted && !changes.closed) {
        const row = await database.asSystem((tx) => readOperation(tx, operationId), { signal: ctx.signal });
        const news = JSON.stringify([row.updated_at, row.last_error]);
        if (news !== said) {
          said = news;
          yield { operation: operationMessage(row) };
        }
        if (row.state !== 'running') return;
        await sleep(POLL_MS, ctx.signal).catch(() => undefined);
      }
    },

    async cancelOperation({ operationId }, ctx) {
      const row = await database.asSystem(async (tx) => {
        const [found] = await tx.query<Pick<OperationRow, 'org_id' | 'schema' | 'kind' | 'state' | 'step'>>(
          'SELECT org_id, schema, kind, state, step FROM provisioner.operations WHERE operation_id = $1 FOR UPDATE',
          [operationId],
        );
        if (found === undefined) throw notFound('operation', operationId);
        if (found.state === 'running') {
          if (mustBeCarriedThrough(found.kind, found.step as StepName))
            throw refused(operationId, `${found.kind} must be carried through`);
          // What only gave way would be begun again.
          const asked = await tx.execute(
            `UPDATE provisioner.operations SET cancel_requested_at = coalesce(cancel_requested_at, now()), cause = '',
               updated_at = now() WHERE operation_id = $1 AND (cancel_requested_at IS NULL OR cause <> '')`,
            [operationId],
          );
          if (asked > 0) {
            const about = { orgId: found.org_id, schema: found.schema, ...actorOf(callerOf(ctx)) };
            const metadata = { operation_id: operationId, kind: found.kind };
            await recordAudit(tx, boss, { ...about, action: 'operations.cancel', metadata });
          }
        } else if (found.state !== 'cancelled') {
          throw refused(operationId, 'it has ended');
        }
        return readOperation(tx, operationId);
      });
      return { operation: operationMessage(row) };
    },
  });
}

function refused(operationId: string, why: string): Error {
  const about = { operation_id: operationId };
  return rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', `operation_id: ${why}`, about);
}

/** Tokens are not signed: a forged one must not reach the database as a malformed value. */
function isOperationCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 2) return false;
  const [startedAt, operationId] = cursor as unknown[];
  return (
    typeof startedAt === 'string' &&
    !Number.isNaN(Date.parse(startedAt)) &&
    typeof operationId === 'string' &&
    UUID.test(operationId)
  );
}
