import { EntitySchema } from '@mad/postgres';
import type { RolloutDirection, RolloutRules, RolloutState, RunState } from '../../domain/rollout.ts';

/** A row of provisioner.migration_rollouts. */
export interface RolloutRow {
  rollout_id: string;
  schema: string;
  version: string;
  state: RolloutState;
  direction: RolloutDirection;
  checked: boolean;
  verified: boolean;
  wave: number;
  rules: RolloutRules;
  reason: string;
  driver: string | null;
  driver_until: Date | null;
  actor_kind: 'user' | 'platform' | 'service';
  user_id: string | null;
  created_at: Date;
  updated_at: Date;
  ended_at: Date | null;
}

/** Every column of a RolloutRow, for queries. */
export const ROLLOUT_COLUMNS = `rollout_id, schema, version, state, direction, checked, verified, wave, rules, reason, driver,
  driver_until, actor_kind, user_id, created_at, updated_at, ended_at`;

export const RolloutEntity = new EntitySchema<RolloutRow>({
  name: 'migration_rollouts',
  schema: 'provisioner',
  columns: {
    rollout_id: { type: 'uuid', primary: true },
    schema: { type: 'text' },
    version: { type: 'text' },
    state: { type: 'text', default: 'running' },
    direction: { type: 'text', default: 'up' },
    checked: { type: 'boolean', default: false },
    verified: { type: 'boolean', default: false },
    wave: { type: 'integer', default: 0 },
    rules: { type: 'jsonb' },
    reason: { type: 'text', default: '' },
    driver: { type: 'uuid', nullable: true },
    driver_until: { type: 'timestamptz', precision: 3, nullable: true },
    actor_kind: { type: 'text' },
    user_id: { type: 'uuid', nullable: true },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    ended_at: { type: 'timestamptz', precision: 3, nullable: true },
  },
});

/** A row of provisioner.migration_runs. */
export interface RunRow {
  rollout_id: string;
  org_id: string;
  schema: string;
  wave: number;
  state: RunState;
  from_version: string;
  operation_id: string | null;
  attempts: number;
  not_before: Date;
  error: string;
  /** How its database differed when the rollout looked at it; null before that look. */
  drift: string | null;
  updated_at: Date;
}

export const RunEntity = new EntitySchema<RunRow>({
  name: 'migration_runs',
  schema: 'provisioner',
  columns: {
    rollout_id: { type: 'uuid', primary: true },
    org_id: { type: 'uuid', primary: true },
    schema: { type: 'text' },
    wave: { type: 'integer' },
    state: { type: 'text', default: 'pending' },
    from_version: { type: 'text', default: '' },
    operation_id: { type: 'uuid', nullable: true },
    attempts: { type: 'integer', default: 0 },
    not_before: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    error: { type: 'text', default: '' },
    drift: { type: 'text', nullable: true },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});
