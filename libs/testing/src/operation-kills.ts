import { MINUTE_MS, sleep } from '@mad/process';
import type pg from 'pg';

/** Provisioner's settings under which another goes on soon after one was killed, and nothing begins by itself. */
export const KILL_SETTINGS = {
  PROVISIONER_STEP_LEASE_MS: '1000',
  PROVISIONER_SWEEP_MS: '100',
  PROVISIONER_CLEANUP_GRACE_MS: '0',
  PROVISIONER_BACKUP_EVERY_HOURS: '0',
} as const;

const END_MS = 3 * MINUTE_MS;
const LOOK_MS = 20;

/** The one row of a query, undefined where there is none. */
export async function oneRow<R extends pg.QueryResultRow>(
  rows: pg.Client,
  sql: string,
  ...values: unknown[]
): Promise<R | undefined> {
  return (await rows.query<R>(sql, values)).rows[0];
}

/** A kill in the middle of an operation. */
export interface StepKill {
  /** The superuser in the metadata database. */
  rows: pg.Client;
  operationId: string;
  step: string;
  /** How long the step may work at most before the kill, in milliseconds. */
  withinMs: number;
  kill: () => Promise<void>;
  random?: () => number;
}

/**
 * Kills at a step that cannot be noted as done meanwhile: the tenant's rows are held. Answers the step it died at, undefined
 * when the operation had passed by or ended.
 */
export async function killAtStep(options: StepKill): Promise<string | undefined> {
  const { rows, operationId, step, withinMs, kill, random = Math.random } = options;
  for (;;) {
    const now = await oneRow<{ step: string; state: string }>(
      rows,
      'SELECT step, state FROM provisioner.operations WHERE operation_id = $1',
      operationId,
    );
    if (now!.state !== 'running') return undefined;
    if (now!.step === step) break;
  }
  await rows.query('BEGIN');
  const held = await oneRow<{ step: string | null }>(
    rows,
    `SELECT t.step FROM provisioner.tenants t JOIN provisioner.operations o USING (org_id) WHERE o.operation_id = $1
     FOR UPDATE OF t`,
    operationId,
  );
  // Time for what the step does on the servers and in the store, in full or in part.
  await sleep(random() * withinMs);
  await kill();
  await rows.query('ROLLBACK');
  return held!.step ?? undefined;
}

/** Waits until an operation has ended; answers how. */
export async function operationEnded(rows: pg.Client, operationId: string): Promise<{ state: string; error: string }> {
  for (const until = performance.now() + END_MS; performance.now() < until; await sleep(LOOK_MS)) {
    const now = await oneRow<{ state: string; error: string }>(
      rows,
      'SELECT state, error FROM provisioner.operations WHERE operation_id = $1',
      operationId,
    );
    if (now!.state !== 'running') return now!;
  }
  const stuck = await oneRow(rows, 'SELECT step, last_error FROM provisioner.tenants WHERE step IS NOT NULL');
  throw new Error(`the operation never ended: ${JSON.stringify(stuck)}`);
}

/** Waits until nothing is left to be cleaned up. */
export async function sweptClean(rows: pg.Client): Promise<void> {
  for (const until = performance.now() + END_MS; performance.now() < until; await sleep(LOOK_MS)) {
    const left = await oneRow(rows, 'SELECT FROM provisioner.cleanup_records LIMIT 1');
    if (left === undefined) return;
  }
  const left = await oneRow(rows, 'SELECT * FROM provisioner.cleanup_records LIMIT 1');
  throw new Error(`still to be cleaned up: ${JSON.stringify(left)}`);
}
