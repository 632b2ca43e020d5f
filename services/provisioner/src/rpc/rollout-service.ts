import type { JsonObject } from '@bufbuild/protobuf';
import type { Tx } from '@mad/postgres';
import { sleep } from '@mad/process';
import { RolloutService, type Rollout } from '@mad/proto/provisioner';
import { actorOf, bind, callerOf, nextPageToken, pageOf, type BoundService } from '@mad/rpc';
import type { HandlerContext } from '@connectrpc/connect';
import type { ProvisionerContext } from '../context.ts';
import { ROLLOUT_COLUMNS, type RolloutRow, type RunRow } from '../db/entities/rollout.ts';
import { versionOf } from '../domain/names.ts';
import { recordPlatformAudit } from '../provisioning/audit.ts';
import * as control from '../rollouts/control.ts';
import { countRows, countRuns, insertRollout, readRollout } from '../rollouts/rollout-rows.ts';
import { planRollout } from './plan-rollout.ts';
import { rolloutMessage, rulesOf, runMessage, runStateName } from './rollout.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** How soon a watcher sees a change. */
const POLL_MS = 250;

export function rolloutService(context: ProvisionerContext): BoundService {
  const { database, boss, owners, changes, rollouts } = context;

  const shown = async (tx: Tx, rolloutId: string): Promise<Rollout> => {
    const row = await readRollout(tx, rolloutId);
    const counts = (await countRuns(tx, [row.rollout_id])).get(row.rollout_id)!;
    return rolloutMessage(row, counts, await countRows(tx, row.rollout_id));
  };

  /** Changes a rollout, notes who did where it changed anything, and answers what it is then. */
  const changed = async (
    rolloutId: string,
    { action, metadata, ctx }: { action: string; metadata?: JsonObject; ctx: HandlerContext },
    change: (tx: Tx) => Promise<boolean>,
  ): Promise<{ rollout: Rollout }> => {
    const rollout = await database.asSystem(async (tx) => {
      if (await change(tx)) {
        const fact = { action: `rollouts.${action}`, entityType: 'rollout', entityId: rolloutId, metadata } as const;
        await recordPlatformAudit(tx, boss, { ...fact, ...actorOf(callerOf(ctx)) });
      }
      return shown(tx, rolloutId);
    });
    rollouts.look();
    return { rollout };
  };

  return bind(RolloutService, {
    planRollout: (request, ctx) => planRollout(context, request, ctx),

    async startRollout({ schema, rules, requestId }, ctx) {
      const version = versionOf(await owners.of(schema).migrations());
      const rollout = { rolloutId: requestId.toLowerCase(), schema, version, rules: rulesOf(rules) };
      return changed(rollout.rolloutId, { action: 'start', metadata: { schema, version }, ctx }, (tx) =>
        insertRollout(tx, { ...rollout, actor: actorOf(callerOf(ctx)) }),
      );
    },

    async getRollout({ rolloutId }, ctx) {
      return { rollout: await database.asSystem((tx) => shown(tx, rolloutId), { signal: ctx.signal }) };
    },

    async listRollouts(request, ctx) {
      const { schema } = request;
      const query = { list: 'rollouts', schema };
      const { size, cursor } = pageOf(request, { query, isCursor: isRolloutCursor });
      const [createdAt, afterId] = (cursor ?? [null, null]) as (string | null)[];
      return database.asSystem(
        async (tx) => {
          const rows = await tx.query<RolloutRow>(
            `SELECT ${ROLLOUT_COLUMNS} FROM provisioner.migration_rollouts
             WHERE ($1 = '' OR schema = $1) AND ($2::timestamptz IS NULL OR (created_at, rollout_id) < ($2, $3))
             ORDER BY created_at DESC, rollout_id DESC LIMIT $4`,
            [schema, createdAt, afterId, size + 1],
          );
          const page = rows.slice(0, size);
          const counts = await countRuns(
            tx,
            page.map((row) => row.rollout_id),
          );
          const last = page.at(-1);
          const more = rows.length > size && last !== undefined;
          return {
            rollouts: page.map((row) => rolloutMessage(row, counts.get(row.rollout_id)!)),
            nextPageToken: more ? nextPageToken(query, [last.created_at.toISOString(), last.rollout_id]) : '',
          };
        },
        { signal: ctx.signal },
      );
    },

    async listRolloutRuns(request, ctx) {
      const { rolloutId } = request;
      const state = runStateName(request.state) ?? null;
      const query = { list: 'rollout-runs', rolloutId, state };
      const { size, cursor } = pageOf(request, { query, isCursor: isRunCursor });
      const [afterWave, afterOrg] = (cursor ?? [null, null]) as [number | null, string | null];
      const rows = await database.asSystem(
        async (tx) => {
          await readRollout(tx, rolloutId);
          return tx.query<RunRow & { database_name: string }>(
            `SELECT r.rollout_id, r.org_id, r.schema, r.wave, r.state, r.from_version, r.operation_id, r.attempts, r.not_before,
               r.error, r.drift, r.updated_at, t.database_name
             FROM provisioner.migration_runs r JOIN provisioner.tenants t USING (org_id, schema)
             WHERE r.rollout_id = $1 AND ($2::text IS NULL OR r.state = $2)
               AND ($3::int IS NULL OR (r.wave, r.org_id) > ($3, $4))
             ORDER BY r.wave, r.org_id LIMIT $5`,
            [rolloutId, state, afterWave, afterOrg, size + 1],
          );
        },
        { signal: ctx.signal },
      );
      const page = rows.slice(0, size);
      const last = page.at(-1);
      const more = rows.length > size && last !== undefined;
      return {
        runs: page.map(runMessage),
        nextPageToken: more ? nextPageToken(query, [last.wave, last.org_id]) : '',
      };
    },

    async *watchRollout({ rolloutId }, ctx: HandlerContext) {
      let said = '';
      while (!ctx.signal.aborted && !changes.closed) {
        const { row, rollout } = await database.asSystem(
          async (tx) => ({ row: await readRollout(tx, rolloutId), rollout: await shown(tx, rolloutId) }),
          { signal: ctx.signal },
        );
        const news = JSON.stringify([row.updated_at, row.state, row.wave, rollout.counts, `${rollout.rowsChanged}`]);
        if (news !== said) {
          said = news;
          yield { rollout };
        }
        // What was begun before it was paused or given up is still seen to its end.
        if (row.state !== 'running' && (rollout.counts?.running ?? 0) === 0) return;
        await sleep(POLL_MS, ctx.signal).catch(() => undefined);
      }
    },

    pauseRollout: ({ rolloutId }, ctx) =>
      changed(rolloutId, { action: 'pause', ctx }, (tx) => control.pause(tx, rolloutId)),
    resumeRollout: ({ rolloutId }, ctx) =>
      changed(rolloutId, { action: 'resume', ctx }, (tx) => control.resume(tx, rolloutId)),
    abortRollout: ({ rolloutId }, ctx) =>
      changed(rolloutId, { action: 'abort', ctx }, (tx) => control.abort(tx, rolloutId)),
    rollBackRollout: ({ rolloutId }, ctx) =>
      changed(rolloutId, { action: 'roll_back', ctx }, (tx) => control.rollBack(tx, rolloutId)),
    reportVerification: ({ rolloutId, passed, report }, ctx) =>
      changed(rolloutId, { action: 'report', metadata: { passed, report }, ctx }, (tx) =>
        control.report(tx, rolloutId, passed, report),
      ),
  });
}

/** Tokens are not signed: a forged one must not reach the database as a malformed value. */
function isRolloutCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 2) return false;
  const [createdAt, rolloutId] = cursor as unknown[];
  return (
    typeof createdAt === 'string' &&
    !Number.isNaN(Date.parse(createdAt)) &&
    typeof rolloutId === 'string' &&
    UUID.test(rolloutId)
  );
}

function isRunCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 2) return false;
  const [wave, orgId] = cursor as unknown[];
  return Number.isSafeInteger(wave) && typeof orgId === 'string' && UUID.test(orgId);
}
