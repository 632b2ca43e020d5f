import { isDeepStrictEqual } from 'node:util';
import { notFound } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { RetentionCounts, RetentionPolicyRow, RetentionRunRow } from '../db/entities/retention.ts';
import { idsOfMonth, limitsAt, type Limits, type RetentionRule } from '../domain/retention.ts';
import { appendAudit } from './audit.ts';
import { monthOf } from './partitions.ts';
import { planned } from './planned.ts';
import { refuseReuse } from './request-reused.ts';
import { lockRetention } from './retention-lock.ts';
import {
  CANDIDATES,
  COUNT_LOSSES,
  DROP_LOSSES,
  DROP_STRUCTURES,
  limitParams,
  SWEEPABLE,
  type Loss,
} from './retention-sql.ts';

const POLICY = 'policy_id, version, rules, set_by, set_at';
const RUN = `run_id, policy_version, started_by, started_at, ended_at, jobs, items, poses, events, cache_entries, partitions, bytes`;
/** A step is one transaction: it takes jobs until it has so many, or so many items. One job is never divided. */
const JOBS_PER_STEP = 50;
const ITEMS_PER_STEP = 50_000;
/** Before every id. */
const FIRST = '00000000-0000-0000-0000-000000000000';
/** Neither a policy nor a run is of one job. */
const NO_JOB = FIRST;

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

/** Where a run stands: the next step looks at jobs after this one; then months are swept; then it is over. */
export interface Progress {
  run: RetentionRunRow;
  after: string;
  over: boolean;
}

/** A run as it was begun, or found again: looking at jobs once more finds only what is left. */
export const standingOf = (run: RetentionRunRow): Progress => ({ run, after: FIRST, over: run.ended_at !== null });

/**
 * Goes on with a run, in a transaction of its own: drops results of some jobs, or sweeps a month's partitions, or ends the
 * run. Whatever a step has done it has counted, so a run that is cut anywhere goes on with the next.
 */
export async function step(tx: TenantTx, { run, after }: Progress): Promise<Progress> {
  await lockRetention(tx);
  const [policy] = await tx.query<RetentionPolicyRow>(`SELECT ${POLICY} FROM retention_policies WHERE version = $1`, [
    run.policy_version,
  ]);
  const limits = limitsAt(policy!.rules, run.started_at);
  const jobs = await candidates(tx, limits, after);
  if (jobs.length > 0) {
    const done = await dropResults(tx, run, limits, jobs);
    return { run: await addCounts(tx, run, done), after: jobs.at(-1)!.job_id, over: false };
  }
  const swept = await sweepMonth(tx, limits);
  if (swept !== undefined)
    return { run: await addCounts(tx, run, { ...NOTHING, partitions: swept }), after, over: false };
  return { run: await endRun(tx, run), after, over: true };
}

/** Counts what rules would delete now, job by job as `step` would. Changes nothing. */
export async function previewRetention(
  tx: TenantTx,
  rules: readonly RetentionRule[],
  now: Date,
  signal: AbortSignal,
): Promise<RetentionCounts> {
  const limits = limitsAt(rules, now);
  let total = NOTHING;
  const months = new Set<string>();
  for (let after = FIRST; ;) {
    signal.throwIfAborted();
    const jobs = await candidates(tx, limits, after);
    if (jobs.length === 0) break;
    const ids = jobs.map(({ job_id: id }) => id);
    const losses = await planned<Loss>(tx, COUNT_LOSSES, [...limitParams(limits), ids]);
    total = sum(total, countLosses(jobs, losses), await countEvents(tx, freshOf(jobs)));
    for (const id of ids) months.add(monthOf(id));
    after = ids.at(-1)!;
  }
  const waiting = await tx.query<{ job_id: string }>('SELECT job_id FROM jobs WHERE sweep_due');
  for (const { job_id: id } of waiting) months.add(monthOf(id));
  const sweepable = await sweepableOf(tx, limits, [...months]);
  return { ...total, partitions: await countPartitions(tx, sweepable) };
}

interface Candidate {
  job_id: string;
  requested: number;
  /** It has all of its results. */
  fresh: boolean;
}

const NOTHING: RetentionCounts = {
  jobs: 0,
  items: 0,
  poses: 0,
  events: 0,
  cache_entries: 0,
  partitions: 0,
  bytes: 0,
};

const KEYS = Object.keys(NOTHING) as (keyof RetentionCounts)[];

function sum(...all: RetentionCounts[]): RetentionCounts {
  return Object.fromEntries(
    KEYS.map((key) => [key, all.reduce((total, counts) => total + counts[key], 0)]),
  ) as unknown as RetentionCounts;
}

async function candidates(tx: TenantTx, limits: Limits, after: string): Promise<Candidate[]> {
  const found = await planned<Candidate>(tx, CANDIDATES, [...limitParams(limits), after, JOBS_PER_STEP]);
  let items = 0;
  const enough = found.findIndex(({ requested }) => (items += requested) > ITEMS_PER_STEP);
  return enough < 0 ? found : found.slice(0, Math.max(1, enough));
}

const freshOf = (jobs: readonly Candidate[]): string[] => jobs.filter(({ fresh }) => fresh).map((job) => job.job_id);

function countLosses(jobs: readonly Candidate[], losses: readonly Loss[]): RetentionCounts {
  const fresh = new Set(freshOf(jobs));
  return sum(
    NOTHING,
    ...losses.map(({ job_id: id, items, poses, cache_entries: entries, bytes }) => {
      return { ...NOTHING, jobs: fresh.has(id) || items > 0 ? 1 : 0, items, poses, cache_entries: entries, bytes };
    }),
  );
}

async function countEvents(tx: TenantTx, jobIds: readonly string[]): Promise<RetentionCounts> {
  if (jobIds.length === 0) return NOTHING;
  const [row] = await planned<{ events: number; bytes: number }>(
    tx,
    `SELECT count(*)::int AS events, coalesce(sum(pg_column_size(e)), 0)::bigint AS bytes FROM job_events e WHERE job_id = ANY ($1::uuid[])`,
    [jobIds],
  );
  return { ...NOTHING, ...row! };
}

async function dropResults(
  tx: TenantTx,
  run: RetentionRunRow,
  limits: Limits,
  jobs: readonly Candidate[],
): Promise<RetentionCounts> {
  const ids = jobs.map(({ job_id: id }) => id);
  const fresh = new Set(freshOf(jobs));
  await tx.query('SELECT 1 FROM jobs WHERE job_id = ANY ($1::uuid[]) ORDER BY job_id FOR UPDATE', [ids]);
  const sweepable = new Set(await sweepableOf(tx, limits, [...new Set(ids.map(monthOf))]));
  const leftToSweep = ids.filter((id) => sweepable.has(monthOf(id)));
  const losses = await planned<Loss>(tx, DROP_LOSSES, [...limitParams(limits), ids, leftToSweep]);
  await tx.execute(DROP_STRUCTURES, [ids]);
  const events = await countEvents(tx, [...fresh]);
  await tx.execute('DELETE FROM job_events WHERE job_id = ANY ($1::uuid[])', [[...fresh]]);
  await tx.execute(
    `UPDATE jobs j SET results_dropped_at = coalesce(j.results_dropped_at, now()), results_top = n.keep,
        results_needed = n.needed, sweep_due = j.sweep_due OR j.job_id = ANY ($4::uuid[])
      FROM unnest($1::uuid[], $2::int[], $3::int[]) AS n (job_id, keep, needed) WHERE j.job_id = n.job_id`,
    [
      losses.map((loss) => loss.job_id),
      losses.map(({ keep }) => keep),
      losses.map(({ needed }) => needed),
      leftToSweep,
    ],
  );
  for (const { job_id: jobId, items, poses, needed, keep } of losses) {
    if (!fresh.has(jobId) && items === 0) continue;
    const metadata = { run_id: run.run_id, items, poses, kept_top_hits: keep, kept_because_needed: needed };
    await appendAudit(tx, { userId: run.started_by, action: 'retention.drop', jobId, outcome: 'ok', metadata });
  }
  return sum(countLosses(jobs, losses), events);
}

async function sweepableOf(tx: TenantTx, limits: Limits, months: readonly string[]): Promise<string[]> {
  if (months.length === 0) return [];
  const bounds = months.map(idsOfMonth);
  const rows = await planned<{ place: number }>(tx, SWEEPABLE, [
    ...limitParams(limits),
    bounds.map(({ low }) => low),
    bounds.map(({ high }) => high),
  ]);
  return rows.map(({ place }) => months[place - 1]!);
}

/** Partitions there are of these months. */
async function countPartitions(tx: TenantTx, months: readonly string[]): Promise<number> {
  const names = months.flatMap((month) => {
    const suffix = month.slice(0, 7).replace('-', '_');
    return [`docking_results_${suffix}`, `job_events_${suffix}`];
  });
  const [row] = await tx.query<{ partitions: number }>(
    `SELECT count(*)::int AS partitions FROM pg_class WHERE relname = ANY ($1::text[]) AND relnamespace = 'results'::regnamespace`,
    [names],
  );
  return row!.partitions;
}

/** Sweeps one month that waits for it; answers its partitions, or undefined when none waits. */
async function sweepMonth(tx: TenantTx, limits: Limits): Promise<number | undefined> {
  const [due] = await tx.query<{ job_id: string }>('SELECT job_id FROM jobs WHERE sweep_due ORDER BY job_id LIMIT 1');
  if (due === undefined) return undefined;
  const month = monthOf(due.job_id);
  const { low, high } = idsOfMonth(month);
  const [whole] = await sweepableOf(tx, limits, [month]);
  let swept = 0;
  if (whole === undefined) {
    // A job came into the month meanwhile, or the policy keeps one: the poses go without their partition.
    await planned(
      tx,
      `DELETE FROM docking_results d USING jobs j WHERE d.job_id = j.job_id AND j.sweep_due AND j.job_id >= $1 AND j.job_id < $2
        AND NOT EXISTS (SELECT FROM task_results t WHERE t.job_id = d.job_id AND t.task_id = d.task_id AND t.item_no = d.item_no)`,
      [low, high],
    );
  } else {
    const [row] = await tx.query<{ swept: number }>('SELECT sweep_partitions($1::date) AS swept', [month]);
    swept = row!.swept;
  }
  const rows = await tx.query<{ job_id: string }>(
    'UPDATE jobs SET sweep_due = false WHERE sweep_due AND job_id >= $1 AND job_id < $2 RETURNING job_id',
    [low, high],
  );
  await tx.execute(DROP_STRUCTURES, [rows.map((row) => row.job_id)]);
  return swept;
}

async function addCounts(
  tx: TenantTx,
  { run_id: id }: RetentionRunRow,
  more: RetentionCounts,
): Promise<RetentionRunRow> {
  const sets = KEYS.map((key, index) => `${key} = ${key} + $${index + 2}`).join(', ');
  await tx.execute(`UPDATE retention_runs SET ${sets} WHERE run_id = $1`, [id, ...KEYS.map((key) => more[key])]);
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
  const counts = Object.fromEntries(KEYS.map((key) => [key, row[key]]));
  const metadata = { run_id: run.run_id, policy_version: run.policy_version, ...counts };
  await appendAudit(tx, { userId: run.started_by, action: 'retention.apply', jobId: NO_JOB, outcome: 'ok', metadata });
  return row;
}
