import { MINUTE_MS, sleep } from '@mad/process';
import { RolloutService } from '@mad/proto/provisioner';
import { killAtStep, oneRow } from '@mad/testing/operation-kills';
import type pg from 'pg';
import { SERVER_NAME } from '../../apps/local/src/environment.ts';
import { firstStep } from '../../services/provisioner/src/domain/plan.ts';
import { CANARY_WAVE, STAGING_WAVE } from '../../services/provisioner/src/domain/rollout.ts';
import { STEP_MS, strikeWhen, type Victim } from '../operations.ts';
import type { Chaos } from '../scenario.ts';

const LOOK_MS = 5;

/** To the newest version, or to the one before. */
export type Way = 'up' | 'back';

/** What a rollout does one after the other: it looks at the whole fleet, then migrates its waves; back, the last wave first. */
export const STAGES = {
  up: ['look', 'staging', 'canary', 'wave'],
  back: ['wave', 'canary', 'staging'],
} as const satisfies Record<Way, readonly string[]>;
export type Stage = (typeof STAGES)[Way][number];

const WAVES: Readonly<Record<Exclude<Stage, 'look'>, number>> = {
  staging: STAGING_WAVE,
  canary: CANARY_WAVE,
  wave: CANARY_WAVE + 1,
};

/** A kill in a rollout. */
export interface StageKill {
  rolloutId: string;
  /** Whose operations it may come in. */
  orgs: readonly string[];
  stage: Stage;
  victim: Victim;
}

/**
 * Kills in a stage that cannot be noted as done meanwhile: while the fleet is looked at, or in an operation of the wave. A
 * rollout that stopped on the failures of earlier kills is resumed. Answers whether somebody was killed, and not that the
 * stage had passed.
 */
export function strikeAt(chaos: Chaos, { rolloutId, orgs, stage, victim }: StageKill): Promise<boolean> {
  const { random } = chaos;
  return strikeWhen(chaos, {
    victim,
    async at(rows, kill) {
      if (stage === 'look') {
        await killWhileLooking(rows, rolloutId, async () => {
          await sleep(random() * STEP_MS);
          await kill(random() < 0.5 ? SERVER_NAME : 'second');
        });
        return;
      }
      const found = await migratingIn(chaos, rows, { rolloutId, orgs, wave: WAVES[stage] });
      if (found === undefined) return;
      const { operation_id: operationId, server } = found;
      const step = firstStep('migrate');
      await killAtStep({ rows, operationId, step, withinMs: STEP_MS, kill: () => kill(server), random });
    },
  });
}

/** The rollout's row is held, so that nobody can note that all have been looked at. */
async function killWhileLooking(rows: pg.Client, rolloutId: string, kill: () => Promise<void>): Promise<void> {
  await rows.query('BEGIN');
  const looking = await oneRow(
    rows,
    `SELECT FROM provisioner.migration_rollouts WHERE rollout_id = $1 AND state = 'running' AND NOT checked FOR UPDATE`,
    rolloutId,
  );
  if (looking !== undefined) await kill();
  await rows.query('ROLLBACK');
}

/** Waits for an operation of the wave; undefined when none comes any more. */
async function migratingIn(
  chaos: Chaos,
  rows: pg.Client,
  { rolloutId, orgs, wave }: { rolloutId: string; orgs: readonly string[]; wave: number },
): Promise<{ operation_id: string; server: string } | undefined> {
  for (const until = performance.now() + 2 * MINUTE_MS; ; await sleep(LOOK_MS)) {
    const running = await oneRow<{ operation_id: string; server: string }>(
      rows,
      `SELECT o.operation_id, s.name AS server FROM provisioner.migration_runs r
       JOIN provisioner.operations o ON o.operation_id = r.operation_id
       JOIN provisioner.tenants t ON (t.org_id, t.schema) = (r.org_id, r.schema)
       JOIN provisioner.database_servers s ON s.server_id = t.server_id
       WHERE r.rollout_id = $1 AND r.org_id = ANY ($2) AND r.wave = $3 AND r.state = 'running' AND o.state = 'running'
       LIMIT 1`,
      rolloutId,
      orgs,
      wave,
    );
    if (running !== undefined) return running;
    const rollout = await oneRow<{ state: string; coming: boolean }>(
      rows,
      `SELECT state, EXISTS (SELECT FROM provisioner.migration_runs r WHERE r.rollout_id = o.rollout_id
         AND r.org_id = ANY ($2) AND r.wave = $3 AND r.state IN ('pending', 'running')) AS coming
       FROM provisioner.migration_rollouts o WHERE rollout_id = $1`,
      rolloutId,
      orgs,
      wave,
    );
    const { state, coming } = rollout!;
    if (state === 'halted') {
      const rollouts = (await chaos.system.platform()).client(RolloutService);
      await rollouts.resumeRollout({ rolloutId }).catch(() => undefined);
    } else if (!coming) return undefined;
    if (performance.now() >= until) throw new Error(`the rollout is ${state}, and wave ${wave} does not begin`);
  }
}
