import type { JsonValue, MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import type {
  RetentionCountsSchema,
  RetentionPolicySchema,
  RetentionRule as RuleMessage,
  RetentionRunSchema,
  RetentionService,
} from '@mad/proto/results';
import { invalid, nextPageToken, orgOf, pageOf, userOf } from '@mad/rpc';
import type { Context } from '../context.ts';
import type { RetentionCounts, RetentionPolicyRow, RetentionRunRow } from '../db/entities/retention.ts';
import { rulesProblem, type RetentionRule } from '../domain/retention.ts';
import { previewRetention } from '../runs/retention-preview.ts';
import { beginRun, currentPolicy, readRuns, setPolicy, standingOf, step } from '../runs/retention.ts';

/** A call goes on with a run for so long; the next one with the same request_id takes it from there. */
const CALL_MS = 10 * SECOND_MS;
/** Who ingests, or reads for long, may hold what a step needs. */
const STEP_WAIT_MS = 15 * SECOND_MS;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const isRunCursor = (value: JsonValue): boolean =>
  Array.isArray(value) &&
  value.length === 2 &&
  value.every((part) => typeof part === 'string') &&
  !Number.isNaN(Date.parse(value[0]!)) &&
  UUID.test(value[1]!);

/** How long results are kept, and what was deleted. */
export function retentionService({
  tenants,
  retentionSliceRows: sliceRows,
}: Context): ServiceImpl<typeof RetentionService> {
  return {
    async getRetentionPolicy(_request, ctx) {
      return { policy: policyMessage(await tenants.read(orgOf(ctx), currentPolicy)) };
    },

    async setRetentionPolicy({ requestId: id, rules }, ctx) {
      const { orgId, userId } = userOf(ctx);
      const checked = rulesOf(rules);
      const row = await tenants.transact(orgId, (tx) => setPolicy(tx, { id, rules: checked, userId }));
      return { policy: policyMessage(row) };
    },

    async previewRetention({ rules }, ctx) {
      const given = rules.length === 0 ? undefined : rulesOf(rules);
      const counts = await tenants.read(
        orgOf(ctx),
        async (tx) => {
          const inForce = given ?? (await currentPolicy(tx))?.rules ?? [];
          return previewRetention(tx, inForce, { now: new Date(), sliceRows, signal: ctx.signal });
        },
        { signal: ctx.signal },
      );
      return { wouldDelete: countsMessage(counts) };
    },

    async applyRetention({ requestId }, ctx) {
      const { orgId, userId } = userOf(ctx);
      const until = performance.now() + CALL_MS;
      let standing = standingOf(await tenants.transact(orgId, (tx) => beginRun(tx, requestId, userId)));
      while (!standing.over && performance.now() < until) {
        const from = standing;
        const options = { signal: ctx.signal, deadlineMs: STEP_WAIT_MS };
        standing = await tenants.transact(orgId, (tx) => step(tx, from, sliceRows), options);
      }
      return { run: runMessage(standing.run) };
    },

    async listRetentionRuns(request, ctx) {
      const orgId = orgOf(ctx);
      const query = ['retention runs', orgId];
      const { size, cursor } = pageOf(request, { query, isCursor: isRunCursor });
      const after = cursor as [string, string] | undefined;
      const rows = await tenants.read(orgId, (tx) => readRuns(tx, after, size + 1));
      const shown = rows.slice(0, size);
      const last = shown.at(-1);
      return {
        runs: shown.map(runMessage),
        nextPageToken: rows.length > size ? nextPageToken(query, [last!.started_at.toISOString(), last!.run_id]) : '',
      };
    },
  };
}

function rulesOf(messages: readonly RuleMessage[]): RetentionRule[] {
  const rules = messages.map(({ pipelineId, keepDays, keepTopHits }) => ({ pipelineId, keepDays, keepTopHits }));
  const problem = rulesProblem(rules);
  if (problem !== undefined) throw invalid(`rules[${problem.index}].pipeline_id`, problem.description);
  return rules;
}

function policyMessage(row: RetentionPolicyRow | undefined): MessageInitShape<typeof RetentionPolicySchema> {
  if (row === undefined) return {};
  return { rules: row.rules, version: row.version, setBy: row.set_by, setTime: timestampFromDate(row.set_at) };
}

function countsMessage(counts: RetentionCounts): MessageInitShape<typeof RetentionCountsSchema> {
  return {
    jobs: BigInt(counts.jobs),
    items: BigInt(counts.items),
    poses: BigInt(counts.poses),
    events: BigInt(counts.events),
    cacheEntries: BigInt(counts.cache_entries),
    partitions: BigInt(counts.partitions),
    bytes: BigInt(counts.bytes),
  };
}

function runMessage(row: RetentionRunRow): MessageInitShape<typeof RetentionRunSchema> {
  return {
    runId: row.run_id,
    policyVersion: row.policy_version,
    startedBy: row.started_by,
    startTime: timestampFromDate(row.started_at),
    endTime: row.ended_at === null ? undefined : timestampFromDate(row.ended_at),
    deleted: countsMessage(row),
  };
}
