import type { ServiceImpl } from '@connectrpc/connect';
import type { JobStatisticsService } from '@mad/proto/results';
import { invalid, nextPageToken, orgOf, pageOf } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { Context } from '../context.ts';
import { joined, joining, lowOf, quantile } from '../domain/score-units.ts';
import { countersMessage, requireJob } from '../runs/job-image.ts';
import { readFailures, readHistogram } from '../runs/statistics.ts';
import { countersIn } from './convert.ts';
import { shapeOf } from './cursor.ts';
import type { HitCursor } from './hit-rows.ts';
import { scoringTask } from './job-tasks.ts';
import { ranksOf, readAgreement, readPairs, type Side } from './score-pairs.ts';

const DEFAULT_PROBABILITIES = [0.05, 0.25, 0.5, 0.75, 0.95];

/** A job's results in numbers. */
export function jobStatisticsService(context: Context): ServiceImpl<typeof JobStatisticsService> {
  const { tenants } = context;

  return {
    async getJobCoverage({ jobId }, ctx) {
      return tenants.read(orgOf(ctx), async (tx) => {
        const { row, tasks } = await requireJob(tx, jobId);
        const failures = await readFailures(tx, jobId);
        return {
          counters: countersMessage(countersIn(row)),
          tasks: tasks.map(({ taskId, counters }) => ({
            taskId,
            counters: countersMessage(counters),
            failures: failures
              .filter((failure) => failure.task_id === taskId)
              .map((failure) => ({
                errorClass: failure.error_class,
                items: BigInt(failure.items),
                exampleItemNo: failure.example_item_no,
                exampleMessage: failure.example_message,
              })),
          })),
        };
      });
    },

    async getScoreHistogram({ jobId, taskId, maxBins, probabilities }, ctx) {
      if (maxBins === 1) throw invalid('max_bins', 'must be 0, or at least 2: below and above zero are never one bin');
      return tenants.read(orgOf(ctx), async (tx) => {
        const task = scoringTask(await requireJob(tx, jobId), taskId);
        const { plan, binWidth } = task;
        if (binWidth === null) throw invalid('task_id', `the task ${task.taskId} gives no scores`);
        const finest = await readHistogram(tx, jobId, task.taskId);
        const width = maxBins === 0 || finest.length === 0 ? 1 : joining(finest[0]!.bin, finest.at(-1)!.bin, maxBins);
        const asked = probabilities.length === 0 ? DEFAULT_PROBABILITIES : probabilities;
        return {
          taskId: task.taskId,
          scoreUnits: plan.scoreUnits,
          lowerIsBetter: plan.lowerIsBetter,
          items: BigInt(finest.reduce((sum, { items }) => sum + items, 0)),
          binWidth: lowOf(width, binWidth),
          bins: joined(finest, width).map(({ bin, items }) => ({
            low: lowOf(bin * width, binWidth),
            items: BigInt(items),
          })),
          quantiles:
            finest.length === 0
              ? []
              : asked.map((probability) => ({ probability, score: quantile(finest, probability, binWidth) })),
          resolution: binWidth,
        };
      });
    },

    async listScorePairs(request, ctx) {
      const orgId = orgOf(ctx);
      const { jobId, otherJobId, taskId, otherTaskId } = request;
      const query = ['pairs', orgId, jobId, otherJobId, taskId, otherTaskId];
      const { size, cursor } = pageOf(request, { query, isCursor: shapeOf('nii') });
      return tenants.read(orgId, async (tx) => {
        const [one, other] = await sidesOf(tx, request);
        const { rows, next } = await readPairs(tx, one, other, { after: cursor as HitCursor | undefined, size });
        const ranks = await ranksOf(
          tx,
          other,
          rows.map((row) => row.other_score),
        );
        return {
          pairs: rows.map((row, index) => ({
            moleculeId: row.molecule_id,
            smiles: row.smiles,
            itemNo: row.item_no,
            otherItemNo: row.other_item_no,
            score: row.score,
            otherScore: row.other_score,
            difference: row.other_score - row.score,
            rank: row.rank,
            otherRank: ranks[index]!.rank,
            otherRankEstimated: ranks[index]!.estimated,
          })),
          scoreUnits: one.task.plan.scoreUnits,
          nextPageToken: next === undefined ? '' : nextPageToken(query, next),
        };
      });
    },

    async getScoreAgreement(request, ctx) {
      return tenants.read(
        orgOf(ctx),
        async (tx) => {
          const [one, other] = await sidesOf(tx, request);
          const agreement = await readAgreement(tx, one, other);
          return {
            scoreUnits: one.task.plan.scoreUnits,
            pairs: BigInt(agreement.pairs),
            pearson: agreement.pearson ?? undefined,
            spearman: agreement.spearman ?? undefined,
            meanDifference: agreement.mean_difference ?? undefined,
            rmsDifference: agreement.rms_difference ?? undefined,
          };
        },
        { signal: ctx.signal },
      );
    },
  };
}

/** Both sides of a comparison. Scores of different units, or of which one is better low and the other high, do not compare. */
async function sidesOf(
  tx: TenantTx,
  request: { jobId: string; otherJobId: string; taskId: string; otherTaskId: string },
): Promise<[Side, Side]> {
  const { jobId, otherJobId, taskId, otherTaskId } = request;
  const one = { jobId, task: scoringTask(await requireJob(tx, jobId), taskId) };
  const other = {
    jobId: otherJobId,
    task: scoringTask(await requireJob(tx, otherJobId), otherTaskId, 'other_task_id'),
  };
  for (const [field, { task }] of [['task_id', one] as const, ['other_task_id', other] as const]) {
    if (task.binWidth === null) throw invalid(field, `the task ${task.taskId} gives no scores`);
  }
  const [a, b] = [one.task.plan, other.task.plan];
  if (a.scoreUnits !== b.scoreUnits || a.lowerIsBetter !== b.lowerIsBetter) {
    throw invalid('other_task_id', `its scores are in ${b.scoreUnits}, the first task's in ${a.scoreUnits}`);
  }
  return [one, other];
}
