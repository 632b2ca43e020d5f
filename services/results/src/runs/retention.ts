import { isDeepStrictEqual } from 'node:util';
import { Code } from '@connectrpc/connect';
import { notFound, rpcError } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { RetentionCounts, RetentionPolicyRow, RetentionRunRow } from '../db/entities/retention.ts';
import { limitsAt, type RetentionRule } from '../domain/retention.ts';
import { appendAudit } from './audit.ts';
import { refuseReuse } from './request-reused.ts';
import { COUNT_KEYS, NOTHING, sumOfCounts } from './retention-counts.ts';
import { beginDrop, candidates, goOn, jobUnderWay, type Candidate } from './retention-drop.ts';
import { lockRetention } from './retention-lock.ts';
import { clearMonths } from './retention-months.ts';

const POLICY = 'policy_id, version, rules, set_by, set_at';
const RUN = `run_id, policy_version, started_by, started_at, ended_at, jobs, items, poses, events, cache_entries, partitions, bytes`;
/** A step is one transaction: it takes jobs until it has so many, or has looked at so many rows. */
export const JOBS_PER_STEP = 50;
/** Behind every id. */
export const LAST = 'ffffffff-ffff-ffff-ffff-ffffffffffff';
/** Neither a policy nor a run is of one job. */
const NO_JOB = '00000000-0000-0000-0000-000000000000';

/** The policy in force; undefined when none was ever set. */
export async function currentPolicy(tx: TenantTx): Promise<RetentionPolicyRow | undefined> {
  const [row] = await tx.query<RetentionPolicyRow>(
    `SELECT ${POLICY} FROM retention_policies ORDER BY version DESC LIMIT 1`,
  );
  return row;
}

/**
 * Puts a policy in force. One of this id that is there already is answered as it is; ALREADY_EXISTS when it has other rules.
 */
export async function setPolicy(
  tx: TenantTx,
  { id, rules, userId }: { id: string; rules: readonly RetentionRule[]; userId: string },
): Promise<RetentionPolicyRow> {
  await lockRetention(tx);
  const [known] = await tx.query<RetentionPolicyRow>(`SELECT ${POLICY} FROM retention_policies WHERE policy_id = $1`, [
    id,
  ]);
  if (known !== undefined) {
    refuseReuse(id, { rules: !isDeepStrictEqual(known.rules, rules) });
    return known;
  }
  const [made] = await tx.query<RetentionPolicyRow>(
    `INSERT INTO retention_policies (policy_id, version, rules, set_by)
      VALUES ($1, (SELECT coalesce(max(version), 0) + 1 FROM retention_policies), $2, $3) RETURNING ${POLICY}`,
    [id, JSON.stringify(rules), userId],
  );
  const metadata = { version: made!.version, rules: rules.map((rule) => ({ ...rule })) };
  await appendAudit(tx, { userId, action: 'retention.set_policy', jobId: NO_JOB, outcome: 'ok', metadata });
  return made!;
}

/** Begins a run of the policy in force; one of this id that was begun before is answered as it stands. */
export async function beginRun(tx: TenantTx, id: string, userId: string): Promise<RetentionRunRow> {
  await tx.execute(
    `INSERT INTO retention_runs (run_id, policy_version, started_by)
      SELECT $1, version, $2 FROM retention_policies ORDER BY version DESC LIMIT 1 ON CONFLICT (run_id) DO NOTHING`,
    [id, userId],
  );
  return requireRun(tx, id);
}

async function requireRun(tx: TenantTx, id: string): Promise<RetentionRunRow> {
  const [row] = await tx.query<RetentionRunRow>(`SELECT ${RUN} FROM retention_runs WHERE run_id = $1`, [id]);
  if (row === undefined) throw notFound('retention policy', 'in force');
  return row;
}

/** Runs that were begun and are not over, the oldest first. */
export async function openRuns(tx: TenantTx): Promise<RetentionRunRow[]> {
  return tx.query(`SELECT ${RUN} FROM retention_runs WHERE ended_at IS NULL ORDER BY started_at LIMIT 10`);
}

/** Runs, newest first. */
export async function readRuns(
  tx: TenantTx,
  after: readonly [started: string, id: string] | undefined,
  limit: number,
): Promise<RetentionRunRow[]> {
  return tx.query(
    `SELECT ${RUN} FROM retention_runs WHERE $1::timestamptz IS NULL OR (started_at, run_id) < ($1, $2::uuid)
      ORDER BY started_at DESC, run_id DESC LIMIT $3`,
    [after?.[0] ?? null, after?.[1] ?? null, limit],
  );
}

/** Where a run stands: jobs below this one are looked at next; then months are cleared; then it is over. */
export interface Progress {
  run: RetentionRunRow;
  below: string;
  over: boolean;
}

/** A run as it was begun, or found again: looking at jobs once more finds only what is left. */
export const standingOf = (run: RetentionRunRow): Progress => ({ run, below: LAST, over: run.ended_at !== null });

/**
 * Goes on with a run, in a transaction of its own that looks at about `sliceRows` rows: drops results of some jobs or a slice of
 * one, or clears away what shows nowhere any more, or ends the run. Whatever a step has done it has counted, and where it stands
 * with a job is noted there, so a run that is cut anywhere goes on with the next.
 */
export async function step(tx: TenantTx, { run, below }: Progress, sliceRows: number): Promise<Progress> {
  await lockRetention(tx);
  await requireSlices(tx);
  const [policy] = await tx.query<RetentionPolicyRow>(`SELECT ${POLICY} FROM retention_policies WHERE version = $1`, [
    run.policy_version,
  ]);
  const limits = limitsAt(policy!.rules, run.started_at);
  let counts = NOTHING;
  let rows = 0;
  let at = below;
  let jobs = 0;
  let next = await jobUnderWay(tx);
  let waiting: Candidate[] | undefined;
  for (; jobs < JOBS_PER_STEP && rows < sliceRows; jobs += 1) {
    if (next === undefined) {
      waiting ??= await candidates(tx, limits, at, JOBS_PER_STEP);
      const candidate = waiting.shift();
      if (candidate === undefined) break;
      at = candidate.job_id;
      next = await beginDrop(tx, candidate);
    }
    const done = await goOn(tx, { run, limits, job: next, most: sliceRows - rows });
    counts = sumOfCounts(counts, done.counts);
    rows += done.rows;
    next = undefined;
  }
  if (jobs > 0) return { run: await addCounts(tx, run, counts), below: at, over: false };
  const cleared = await clearMonths(tx, limits, { now: run.started_at, sliceRows });
  if (cleared !== undefined) return { run: await addCounts(tx, run, sumOfCounts(cleared)), below: at, over: false };
  return { run: await endRun(tx, run), below: at, over: true };
}

/** While a release goes through the fleet, retention waits for a tenant's migration: it notes there where it stands. */
async function requireSlices(tx: TenantTx): Promise<void> {
  const [row] = await tx.query<{ ready: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'results.jobs'::regclass AND attname = 'drop_progress'
      AND NOT attisdropped) AS ready`,
  );
  if (row!.ready) return;
  const message = 'retention waits until the database of the organization is migrated';
  throw rpcError(Code.FailedPrecondition, 'SCHEMA_OUTDATED', message, { org_id: tx.orgId });
}

async function addCounts(
  tx: TenantTx,
  { run_id: id }: RetentionRunRow,
  more: RetentionCounts,
): Promise<RetentionRunRow> {
  const sets = COUNT_KEYS.map((key, index) => `${key} = ${key} + $${index + 2}`).join(', ');
  await tx.execute(`UPDATE retention_runs SET ${sets} WHERE run_id = $1`, [id, ...COUNT_KEYS.map((key) => more[key])]);
  return requireRun(tx, id);
}

async function endRun(tx: TenantTx, run: RetentionRunRow): Promise<RetentionRunRow> {
  const ended = await tx.execute('UPDATE retention_runs SET ended_at = now() WHERE run_id = $1 AND ended_at IS NULL', [
    run.run_id,
  ]);
  const row = await requireRun(tx, run.run_id);
  if (ended === 0) return row;
  if (row.started_by === '' && row.jobs + row.partitions === 0) {
    // The clock looks every day, and mostly there is nothing to tell.
    await tx.execute('DELETE FROM retention_runs WHERE run_id = $1', [row.run_id]);
    return row;
  }
  const counts = Object.fromEntries(COUNT_KEYS.map((key) => [key, row[key]]));
  const metadata = { run_id: run.run_id, policy_version: run.policy_version, ...counts };
  await appendAudit(tx, { userId: run.started_by, action: 'retention.apply', jobId: NO_JOB, outcome: 'ok', metadata });
  return row;
}
