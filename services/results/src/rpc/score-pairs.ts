import type { TenantTx } from '@mad/tenancy';
import { lowOf } from '../domain/score-units.ts';
import type { JobTask } from '../runs/job-image.ts';
import { planned } from '../runs/planned.ts';
import { readHistogram } from '../runs/statistics.ts';
import { parseFilter } from '../domain/hit-filter.ts';
import { examine, isFirstOfMolecule, IS_HIT, keptBound, type HitCursor, type HitPage } from './hit-rows.ts';

/** One side of a comparison. */
export interface Side {
  jobId: string;
  task: JobTask;
}

/** One molecule in both. */
export interface PairRow {
  molecule_id: string;
  smiles: string;
  item_no: number;
  score: number;
  rank: number;
  other_item_no: number;
  other_score: number;
}

/** A page of the molecules both have, best of the first side first. */
export async function readPairs(
  tx: TenantTx,
  one: Side,
  other: Side,
  { after, size }: { after: HitCursor | undefined; size: number },
): Promise<HitPage<PairRow>> {
  const page = await examine(tx, one.jobId, one.task, { filter: parseFilter(''), after, size }, (param) => {
    const [jobId, taskId] = [param(other.jobId), param(other.task.taskId)];
    const found = `(SELECT item_no FROM task_results o WHERE o.job_id = ${jobId}::uuid AND o.task_id = ${taskId}::text
      AND o.molecule_id = t.molecule_id AND ${IS_HIT}${keptBound(other.task, { job: jobId, taskId })} ORDER BY item_no LIMIT 1)`;
    return { fits: `${found} IS NOT NULL AND ${isFirstOfMolecule(one.task)}`, found };
  });
  const [ours, theirs] = [
    await itemsOf(
      tx,
      one,
      page.rows.map((row) => row.item_no),
    ),
    await itemsOf(
      tx,
      other,
      page.rows.map((row) => row.found!),
    ),
  ];
  const rows = page.rows.map(({ item_no, score, rank, found }): PairRow => ({
    ...ours.get(item_no)!,
    score,
    rank,
    other_item_no: found!,
    other_score: theirs.get(found!)!.score,
  }));
  return { rows, next: page.next };
}

type PairItem = Pick<PairRow, 'item_no' | 'molecule_id' | 'smiles' | 'score'>;

async function itemsOf(
  tx: TenantTx,
  { jobId, task }: Side,
  itemNos: readonly number[],
): Promise<Map<number, PairItem>> {
  const rows = await tx.query<PairItem>(
    `SELECT item_no, molecule_id, smiles, score FROM task_results
      WHERE job_id = $1 AND task_id = $2 AND item_no = ANY ($3::int[])`,
    [jobId, task.taskId, itemNos],
  );
  return new Map(rows.map((row) => [row.item_no, row]));
}

/** A place among a task's hits. */
export interface Rank {
  rank: number;
  estimated: boolean;
}

/** Hits of one bin that are counted at most for one rank; beyond, it is interpolated within the bin. */
const COUNTED = 10_000;

/**
 * The places of scores among the task's hits: the better bins of its histogram, and the better hits of the score's own bin,
 * counted along the index.
 */
export async function ranksOf(tx: TenantTx, { jobId, task }: Side, scores: readonly number[]): Promise<Rank[]> {
  const { lowerIsBetter } = task.plan;
  const bins = await readHistogram(tx, jobId, task.taskId);
  const width = task.binWidth!;
  const distinct = [...new Set(scores)];
  const rows = await planned<{ score: number; bin: number; better: number }>(
    tx,
    `SELECT s.score, score_bin(s.score, $4::float8) AS bin, c.better
      FROM unnest($3::float8[]) AS s (score) CROSS JOIN LATERAL (
        SELECT count(*)::int AS better FROM (
          SELECT FROM task_results WHERE job_id = $1 AND task_id = $2 AND ${IS_HIT}
            AND ${
              lowerIsBetter
                ? `score < s.score AND score >= score_bin(s.score, $4) * $4 - 1e-6`
                : `score > s.score AND score < (score_bin(s.score, $4) + 1) * $4 + 1e-6`
            }
            AND score_bin(score, $4) = score_bin(s.score, $4)
          ORDER BY score LIMIT ${COUNTED + 1}) counted) c`,
    [jobId, task.taskId, distinct, width],
  );
  const found = new Map(
    rows.map(({ score, bin, better }): [number, Rank] => {
      const own = bins.find((one) => one.bin === bin)?.items ?? 0;
      const before = bins
        .filter((one) => (lowerIsBetter ? one.bin < bin : one.bin > bin))
        .reduce((sum, { items }) => sum + items, 0);
      if (better <= COUNTED) return [score, { rank: before + better + 1, estimated: false }];
      const share = (score - lowOf(bin, width)) / width;
      const within = Math.floor(own * Math.min(1, Math.max(0, lowerIsBetter ? share : 1 - share)));
      return [score, { rank: before + within + 1, estimated: true }];
    }),
  );
  return scores.map((score) => found.get(score)!);
}

/** How two sides agree; null where that is not defined. */
export interface Agreement {
  pairs: number;
  pearson: number | null;
  spearman: number | null;
  mean_difference: number | null;
  rms_difference: number | null;
}

/**
 * Over all molecules both have: two index scans, and sorts for the ranks. Grouped, not joined: a planner that does not know
 * yet how many there are would join them one with each.
 */
export async function readAgreement(tx: TenantTx, one: Side, other: Side): Promise<Agreement> {
  const [row] = await planned<Agreement>(
    tx,
    `WITH pairs AS (
        SELECT max(score) FILTER (WHERE side = 1) AS a, max(score) FILTER (WHERE side = 2) AS b FROM (
          SELECT molecule_id, score, side FROM (SELECT DISTINCT ON (molecule_id) molecule_id, score, 1 AS side FROM task_results
            WHERE job_id = $1 AND task_id = $2 AND ${IS_HIT}${keptBound(one.task)} ORDER BY molecule_id, item_no) one
          UNION ALL
          SELECT molecule_id, score, side FROM (SELECT DISTINCT ON (molecule_id) molecule_id, score, 2 AS side FROM task_results
            WHERE job_id = $3 AND task_id = $4 AND ${IS_HIT}${keptBound(other.task, { job: '$3', taskId: '$4' })} ORDER BY molecule_id, item_no) other) both_sides
        GROUP BY molecule_id HAVING count(*) = 2),
      ranked AS (
        SELECT a, b,
          rank() OVER (ORDER BY a) + (count(*) OVER (PARTITION BY a) - 1) / 2.0::float8 AS rank_a,
          rank() OVER (ORDER BY b) + (count(*) OVER (PARTITION BY b) - 1) / 2.0::float8 AS rank_b
        FROM pairs)
      SELECT count(*) AS pairs, corr(a, b) AS pearson, corr(rank_a, rank_b) AS spearman, avg(b - a) AS mean_difference,
        sqrt(avg((b - a) * (b - a))) AS rms_difference FROM ranked`,
    [one.jobId, one.task.taskId, other.jobId, other.task.taskId],
  );
  return row!;
}
