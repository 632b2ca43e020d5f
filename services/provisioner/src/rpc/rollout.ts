import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import {
  RolloutRunSchema,
  RolloutRunState,
  RolloutSchema,
  RolloutState,
  type Rollout,
  type RolloutRules as RulesMessage,
  type RolloutRun,
} from '@mad/proto/provisioner';
import type { RolloutRow, RunRow } from '../db/entities/rollout.ts';
import { DEFAULT_RULES, type RolloutRules, type RunState } from '../domain/rollout.ts';

/** The row as the API shows it, with its tenants counted by state, and the rows that are being changed. */
export function rolloutMessage(
  row: RolloutRow,
  counts: Readonly<Record<string, number>>,
  rows = { changed: 0, total: 0 },
): Rollout {
  const { rules } = row;
  return create(RolloutSchema, {
    rolloutId: row.rollout_id,
    schema: row.schema,
    version: row.version,
    state: RolloutState[row.state.toUpperCase() as keyof typeof RolloutState],
    rollingBack: row.direction === 'down',
    reason: row.reason,
    wave: row.wave,
    rules: {
      canaries: rules.canaries,
      waveSize: rules.wave_size,
      concurrency: rules.concurrency,
      maxFailures: rules.max_failures,
      maxFailurePercent: rules.max_failure_percent,
      attempts: rules.attempts,
      maxLatencyMs: rules.max_latency_ms,
      verification: rules.verification,
    },
    counts: {
      total: Object.values(counts).reduce((sum, count) => sum + count, 0),
      pending: counts['pending'],
      running: counts['running'],
      succeeded: counts['succeeded'],
      failed: counts['failed'],
      queued: counts['queued'],
      rolledBack: counts['rolled_back'],
      skipped: counts['skipped'],
    },
    actorKind: row.actor_kind,
    userId: row.user_id ?? '',
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    endTime: row.ended_at === null ? undefined : timestampFromDate(row.ended_at),
    rowsChanged: BigInt(rows.changed),
    rowsToChange: BigInt(rows.total),
  });
}

/** The rules of a request, with defaults where it says nothing. */
export function rulesOf(message: RulesMessage | undefined): RolloutRules {
  if (message === undefined) return DEFAULT_RULES;
  return {
    canaries: message.canaries || DEFAULT_RULES.canaries,
    wave_size: message.waveSize || DEFAULT_RULES.wave_size,
    concurrency: message.concurrency || DEFAULT_RULES.concurrency,
    max_failures: message.maxFailures || DEFAULT_RULES.max_failures,
    max_failure_percent: message.maxFailurePercent || DEFAULT_RULES.max_failure_percent,
    attempts: message.attempts || DEFAULT_RULES.attempts,
    max_latency_ms: message.maxLatencyMs || DEFAULT_RULES.max_latency_ms,
    verification: message.verification,
  };
}

/** The table's name of a run's state; undefined for UNSPECIFIED. */
export function runStateName(state: RolloutRunState): RunState | undefined {
  return state === RolloutRunState.UNSPECIFIED ? undefined : (RolloutRunState[state].toLowerCase() as RunState);
}

export function runMessage(row: RunRow & { database_name: string }): RolloutRun {
  return create(RolloutRunSchema, {
    orgId: row.org_id,
    databaseName: row.database_name,
    wave: row.wave,
    state: RolloutRunState[row.state.toUpperCase() as keyof typeof RolloutRunState],
    fromVersion: row.from_version,
    attempts: row.attempts,
    error: row.error,
    operationId: row.operation_id ?? '',
  });
}
